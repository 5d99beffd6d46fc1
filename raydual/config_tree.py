"""Every key of the configuration: its type, its default, its limits and what it does."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


NotBool = BeforeValidator(_refuse_bool)
Fraction = Annotated[float, NotBool, Field(ge=0, le=1)]
Positive = Annotated[float, NotBool, Field(gt=0)]
NonNegative = Annotated[float, NotBool, Field(ge=0)]
Count = Annotated[int, NotBool, Field(ge=0, le=2**63 - 1)]
AtLeastOne = Annotated[int, NotBool, Field(ge=1)]


class Section(BaseModel):
    """A part of the tree: unknown keys, infinities and NaN are refused."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, frozen=True, validate_default=True
    )


class RunSection(Section):
    """Where a run is kept and how it survives."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="folder name under storage; the date and time when not given",
    )
    storage: str = Field("runs", description="folder or s3://, gs:// URI that holds the runs")
    resume: bool = Field(False, description="go on from latest_checkpoint where there is one")
    max_failures: Count = Field(0, description="restarts of the worker group after a crash")


class MarkSection(Section):
    """How the objects already counted are shown to the model."""

    style: Literal["numbers", "dots", "heatmap", "embedding"] = Field(
        "numbers", description="painted; embedding: vectors are added to the cells' features"
    )
    alpha: Fraction = Field(0.5, description="opacity of a painted mark, 0 to 1")
    jitter: NonNegative = Field(
        0.0, description="training only: how far marks lie off, standard deviation in px of 384"
    )
    missing: Fraction = Field(
        0.0, description="training only: share of marks left out; the object is to be marked again"
    )
    doubled: Fraction = Field(0.0, description="training only: share of marks drawn twice")


class DataSection(Section):
    """Which rows are read and how an image is prepared."""

    path: str = Field("synthetic", description="dataset folder or URI; 'synthetic' draws one")
    category: str | None = Field(None, description="only rows of this category")
    image_size: AtLeastOne = Field(
        384, le=8192, description="side of the model's square canvas, px"
    )
    order: Literal["reading_order", "left_to_right", "nearest_neighbor"] = "reading_order"
    min_objects: Count = Field(0, description="leave out rows with fewer objects")
    max_objects: Count | None = Field(None, description="leave out rows with more objects")
    features: str | None = Field(
        None, description="folder or URI of kept features; default: .features in run.storage"
    )
    max_bad_fraction: Fraction = Field(0.01, description="corrupt images tolerated an epoch")
    augment: bool = Field(
        False,
        description="training only: mirror half of the views, crop each, change its brightness, "
        "contrast and colour, and shrink half of them",
    )
    views: Count = Field(
        0,
        le=1000,
        description="number of views of a training image whose features are computed once and "
        "kept; needs a frozen tower and data.mark.style=embedding; 0 keeps none",
    )
    mark: MarkSection = MarkSection()


class LoraSection(Section):
    """Low-rank adapters on the language model; r = 0 trains every parameter instead."""

    r: Count = Field(16, le=4096, description="rank; 0 for full fine-tuning")
    alpha: Positive = Field(32, description="scale numerator: the update is alpha / r * BA")
    dropout: Annotated[float, NotBool, Field(ge=0, lt=1)] = 0.05


class ModelSection(Section):
    """The shared trunk and the coordinate head on it."""

    trunk: str = Field(
        "tiny",
        description="'tiny', 'photo', a Hugging Face id or a local path; of a checkpoint, with its "
        "heads",
    )
    coord_head: Literal["pointing", "mlp"] = "pointing"
    lora: LoraSection = LoraSection()
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the trunk's arithmetic; auto: bfloat16 on a GPU, else float32"
    )
    cell: Literal[4, 8] = Field(4, description="side in px of the cells of the trunk `photo`")
    freeze_tower: bool = Field(
        False, description="keep the vision tower as it is; LoRA always does"
    )
    tower_lr_factor: Positive = Field(
        1.0, description="learning rates of a tower that is trained, as a share of the trunk's"
    )
    gradient_checkpointing: bool = Field(False, description="trade compute for memory")
    compile: bool = Field(
        True,
        description="on one GPU, of Qwen2-VL under LoRA, without gradient_checkpointing and "
        "train.accumulate: compile layers at the first iteration and run them as CUDA graphs",
    )
    trust_remote_code: bool = Field(
        False, description="run code that comes with a trunk; to be given again to resume"
    )


class TaskSection(Section):
    """What both tasks have: an optimizer, a schedule, a patience."""

    lr: Positive = Field(5e-5, description="AdamW learning rate at its highest")
    weight_decay: NonNegative = 0.01
    clip_norm: Positive = Field(1.0, description="largest gradient norm of this task's step")
    patience: AtLeastOne = Field(5, description="validations without improvement before stopping")
    min_delta: NonNegative = Field(0.0, description="a smaller gain is no improvement")
    warmup: Count = Field(0, description="steps of linear warm-up")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="after warm-up, down to 0 at the last of train.epochs"
    )


class CoordSection(TaskSection):
    """The task that says where the next object is."""

    match: Literal["ordered", "nearest", "all"] = Field(
        "ordered",
        description="ordered: train on the next point in data.order; nearest: mark random objects "
        "and train on the nearest unmarked one; all: mark random objects and train on all others",
    )


class DoneSection(TaskSection):
    """The task that says whether every object is marked."""

    positive_fraction: Annotated[float, NotBool, Field(gt=0, lt=1)] = Field(
        0.5, description="share of examples in which all objects are marked"
    )


class TrainSection(Section):
    """The loop."""

    strategy: Literal["dual", "mixed", "independent"] = Field(
        "dual", description="two optimizers on one trunk; one summed loss; or two trunks"
    )
    epochs: AtLeastOne = Field(100, description="validations at the most")
    best_after: Annotated[float, NotBool, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of train.epochs, rounded down to whole epochs; after them best losses "
        "and patience start again: with few validation images an early best is often chance",
    )
    batch_size: AtLeastOne = Field(2, description="images a worker and task in one pass")
    accumulate: AtLeastOne = Field(1, description="passes whose gradients make one step")
    stop: Literal["all", "any"] = Field("all", description="end when all or any task has stalled")
    max_iterations: AtLeastOne | None = Field(None, description="iterations an epoch, at the most")
    min_iterations: AtLeastOne = Field(
        1, description="iterations an epoch, at the least; few images are read several times"
    )
    max_val_batches: AtLeastOne | None = Field(
        None, description="validate on so many batches only, all workers together"
    )
    val_marks: AtLeastOne = Field(
        1, description="sets of random marks that each validation image is judged with"
    )
    calibrate: bool = Field(
        False, description="in the end find thresholds of counting on at most 100 validation images"
    )
    checkpoint_every: AtLeastOne | None = Field(
        None, description="iterations between checkpoints within an epoch; none: at its end"
    )
    count_every: Count | None = Field(
        5, description="epochs from one closed-loop count of 64 validation images to the next"
    )

    @property
    def forgotten(self) -> int:
        """How many epochs are forgotten by `best_after`."""
        return int(self.best_after * self.epochs)


class ScaleSection(Section):
    """Workers and what each of them gets."""

    num_workers: Count | tuple[AtLeastOne, AtLeastOne] = Field(
        1,
        description="Ray Train workers; 0 trains here, without Ray; [min, max]: as many as there "
        "is room for, while it trains",
    )
    use_gpu: bool = Field(False, description="one GPU a worker")
    cpus_per_worker: Positive = 1.0
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="the trunk whole on every worker; fsdp: in parts, where it does not fit"
    )
    timeout_s: AtLeastOne = Field(
        1800, description="seconds that ranks wait for one that hangs before the training fails"
    )

    @property
    def min_workers(self) -> int:
        """The fewest workers to train with."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """The most workers to train with; learning rates are meant for so many."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @model_validator(mode="after")
    def _check_workers(self) -> ScaleSection:
        if self.min_workers > self.max_workers:
            raise ValueError(
                f"num_workers=[{self.min_workers}, {self.max_workers}] is [min, max]: "
                "the first is the smaller one"
            )
        if self.strategy == "fsdp" and self.min_workers < 2:
            raise ValueError(
                f"strategy=fsdp splits the trunk over workers, but num_workers={self.min_workers}; "
                "take two or more, or strategy=ddp"
            )
        return self


class LogSection(Section):
    """Trackers."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    images: Count = Field(16, description="validation pictures an epoch")


class Config(Section):
    """The whole tree."""

    seed: Count = 0
    run: RunSection = RunSection()
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    coord: CoordSection = CoordSection()
    done: DoneSection = DoneSection()
    train: TrainSection = TrainSection()
    scale: ScaleSection = ScaleSection()
    log: LogSection = LogSection()

    @property
    def tower_is_frozen(self) -> bool:
        """Whether an image's features stay the same while a model is trained."""
        return self.model.freeze_tower or bool(self.model.lora.r)

    @property
    def embeds_marks(self) -> bool:
        """Whether marks are inputs of their own, so that an image stays as it is."""
        return self.data.mark.style == "embedding"

    @model_validator(mode="after")
    def _check_views(self) -> Config:
        views = self.data.views
        if views and not self.tower_is_frozen:
            raise ValueError(
                f"data.views={views} needs a frozen tower; set model.freeze_tower=true, "
                "or data.views=0"
            )
        if views and not self.embeds_marks:
            raise ValueError(
                f"data.views={views} needs marks that are not painted; set "
                "data.mark.style=embedding, or data.views=0"
            )
        if views and (views > 1) != self.data.augment:
            raise ValueError(
                f"data.views={views} with data.augment={str(self.data.augment).lower()}: the first "
                "view is the image as it is, the others are augmented; set data.augment=true and "
                "data.views=2 or more, or data.augment=false and data.views=1"
            )
        if views and self.scale.strategy == "fsdp":
            raise ValueError(
                f"data.views={views} does not work with scale.strategy=fsdp; set "
                "scale.strategy=ddp, or data.views=0"
            )
        if self.coord.match == "all" and self.model.coord_head != "pointing":
            raise ValueError(
                "coord.match=all needs a head with a grid; set model.coord_head=pointing"
            )
        return self

    def to_yaml(self) -> str:
        """Return the tree as YAML that `load(file=...)` reads back to an equal tree."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)
