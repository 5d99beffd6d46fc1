"""The typed configuration: a preset, then a YAML file, then `key=value` overrides.

The dotted path of a field (`coord.lr`) is its name everywhere: in YAML files, on the command
line, in search spaces and in error messages.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from raydual.errors import ConfigError

DEFAULT_PRESET = "tiny"


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

    style: Literal["numbers", "dots", "heatmap"] = "numbers"
    alpha: Fraction = Field(0.5, description="opacity of a mark, 0 to 1")


class DataSection(Section):
    """Which rows are read and how an image is prepared."""

    path: str = Field("synthetic", description="dataset folder or URI; 'synthetic' draws one")
    category: str | None = Field(None, description="only rows of this category")
    image_size: AtLeastOne = Field(384, description="side of the model's square canvas, px")
    order: Literal["reading_order", "left_to_right", "nearest_neighbor"] = "reading_order"
    min_objects: Count = Field(0, description="leave out rows with fewer objects")
    max_objects: Count | None = Field(None, description="leave out rows with more objects")
    max_bad_fraction: Fraction = Field(0.01, description="corrupt images tolerated an epoch")
    mark: MarkSection = MarkSection()


class LoraSection(Section):
    """Low-rank adapters on the language model; r = 0 trains every parameter instead."""

    r: Count = Field(16, le=4096, description="rank; 0 for full fine-tuning")
    alpha: Positive = Field(32, description="scale numerator: the update is alpha / r * BA")
    dropout: Annotated[float, NotBool, Field(ge=0, lt=1)] = 0.05


class ModelSection(Section):
    """The shared trunk and the coordinate head on it."""

    trunk: str = Field("tiny", description="'tiny', a Hugging Face id or a local path")
    coord_head: Literal["pointing", "mlp"] = "pointing"
    lora: LoraSection = LoraSection()
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the trunk's arithmetic; auto: bfloat16 on a GPU, else float32"
    )
    gradient_checkpointing: bool = Field(False, description="trade compute for memory")
    trust_remote_code: bool = Field(False, description="run code that comes with a trunk")


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

    match: Literal["ordered", "nearest"] = Field(
        "ordered", description="target: the next point in data.order, or the nearest not marked"
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
    batch_size: AtLeastOne = Field(2, description="images a worker and task in one pass")
    accumulate: AtLeastOne = Field(1, description="passes whose gradients make one step")
    stop: Literal["all", "any"] = Field("all", description="end when all or any task has stalled")
    max_iterations: AtLeastOne | None = Field(None, description="iterations an epoch, at the most")
    max_val_batches: AtLeastOne | None = Field(
        None, description="validate on so many batches only, all workers together"
    )


class ScaleSection(Section):
    """Workers and what each of them gets."""

    num_workers: Count = Field(1, description="Ray Train workers; 0 trains here, without Ray")
    use_gpu: bool = Field(False, description="one GPU a worker")
    cpus_per_worker: Positive = 1.0
    strategy: Literal["ddp"] = "ddp"


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

    def with_values(self, **values: Any) -> Config:
        """Return a copy in which dotted keys, written with `__` for the dots, have new values."""
        tree = self.model_dump()
        for key, value in values.items():
            _merge(tree, _nested(key.replace("__", "."), value))
        return build(tree)

    def to_yaml(self) -> str:
        """Return the tree as YAML that `load(file=...)` reads back to an equal tree."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def presets() -> list[str]:
    """Return the names of the presets that ship with the package."""
    folder = resources.files("raydual") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load(
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    preset: str = DEFAULT_PRESET,
    base: str | None = None,
) -> Config:
    """Build the configuration from a preset, a YAML file and `key=value` strings, in that order.

    base: YAML text to start from in the place of the preset.

    Raises:
        ConfigError: an unknown preset or key, a wrong type or value, a file that is no YAML
            mapping; the message names the key.
    """
    if preset not in presets():
        raise ConfigError(f"no preset {preset!r}; there are: {', '.join(presets())}")
    if base is None:
        base = (resources.files("raydual") / "presets" / f"{preset}.yaml").read_text()
    tree = _parse(base, preset)
    if file is not None:
        try:
            _merge(tree, read_yaml(file))
        except RecursionError:
            raise ConfigError(f"{file} refers to itself") from None
    for override in overrides:
        key, sep, value = override.partition("=")
        if not sep or not key:
            raise ConfigError(
                f"got {override!r}; an override is written key=value, as coord.lr=1e-4"
            )
        if not _known(key):
            raise ConfigError(_unknown(key))
        _merge(tree, _nested(key, _parse_value(value, key)))
    return build(tree)


def build(tree: Mapping[str, Any]) -> Config:
    """Validate a nested mapping.

    Raises:
        ConfigError: the first unknown key, else the first wrong value, by its dotted path.
    """
    for key in _paths(tree):
        if not _known(key):
            raise ConfigError(_unknown(key))
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        got = "" if isinstance(first["input"], Mapping) else f" got {first['input']!r};"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{key}:{got} {message[0].lower()}{message[1:]}") from None


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: the file is missing, is no YAML, or holds something else.
    """
    try:
        return _parse(Path(file).read_text(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from None


def keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every leaf of the tree."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def value_of(config: Config, path: str) -> Any:
    """Return the value at a dotted path."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deeply") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} holds a {type(tree).__name__}; a mapping of keys is expected")
    return tree


def _parse_value(text: str, key: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{key}: got {text!r}, which is no YAML value; quote it") from None


def _merge(tree: dict[str, Any], other: Mapping[Any, Any], prefix: str = "") -> None:
    for key, value in other.items():
        if not isinstance(key, str):
            raise ConfigError(f"{prefix}{key}: keys are text, got a {type(key).__name__}")
        if isinstance(value, Mapping):
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            _merge(tree[key], value, f"{prefix}{key}.")
        elif value is None and isinstance(tree.get(key), dict):
            continue  # a section that is named and left empty
        else:
            tree[key] = value


def _nested(path: str, value: Any) -> dict[str, Any]:
    """Return {"a": {"b": value}} for the path "a.b"."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def _paths(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{path}.")
        else:
            yield path


def _known(path: str) -> bool:
    return any(key == path or key.startswith(f"{path}.") for key in keys())


def _unknown(path: str) -> str:
    known = list(keys())
    leaf = path.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.6)
    near += [k for k in known if k.rsplit(".", 1)[-1] == leaf and k not in near]
    if not near:
        parent = path.rpartition(".")[0]
        near = [k for k in known if k.startswith(f"{parent}.")] if parent else []
    near = near or sorted({k.split(".")[0] for k in known})
    return f"unknown key {path!r}; near it: {', '.join(near)}"
