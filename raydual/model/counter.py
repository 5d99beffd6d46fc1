"""The model: one shared trunk, a head a task, and predictions from them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from raydual.config import build, with_values
from raydual.config_tree import Config
from raydual.data.images import to_rgb
from raydual.data.letterbox import Letterbox
from raydual.errors import CheckpointError
from raydual.model.files import read_manifest, read_tensors, saved_config, write_manifest
from raydual.model.heads import Position, take_over
from raydual.model.inputs import FEATURES, mark_inputs
from raydual.model.prompt import Prompter
from raydual.model.source import resolve
from raydual.model.trunk import Trunk
from raydual.model.trunks import SHARED, new_trunks, saved_trunks, trunk_folders
from raydual.tasks import COORD, DONE, TASKS, Task

HEADS_FILE = "heads.safetensors"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Prediction:
    """The next object, and whether there is one.

    x, y: in [-1, 1] of the canvas (see `Letterbox`). pixel: the same point in pixels of the image
    as given. done: probability in [0, 1] that every object is marked.
    """

    x: float
    y: float
    pixel: tuple[float, float]
    done: float


class DualTaskCounter(nn.Module):
    """A trunk read at its last hidden state, with a coordinate head and a done head.

    With strategy `independent` each task has a trunk of its own, and nothing is shared.

    Attributes:
        categories: what it was trained to count, sorted; empty where that is not known.
    """

    def __init__(self, config: Config, trunks: Mapping[str, Trunk], prompter: Prompter) -> None:
        super().__init__()
        self.config = config
        self.categories: tuple[str, ...] = ()
        self.prompter = prompter
        self.trunks = nn.ModuleDict(trunks)
        first = next(iter(trunks.values()))
        self.grid = first.grid
        self.heads = nn.ModuleDict({t.name: _new_head(t, first, config) for t in TASKS})

    @classmethod
    def from_config(
        cls, config: Config, base_dtype: torch.dtype = torch.float32
    ) -> DualTaskCounter:
        """Build the model that a training starts from; the seed decides on what is random.

        Of a checkpoint of this project, trunk and heads are taken along.

        base_dtype: of the frozen weights under LoRA.

        Raises:
            ConfigError: the trunk cannot be loaded, or does not take `data.image_size`.
        """
        prompter = Prompter.from_pretrained(
            config.model.trunk,
            config.data.image_size,
            trust_remote_code=config.model.trust_remote_code,
        )
        counter = cls(config, new_trunks(config, base_dtype), prompter)
        counter._take_over_heads(Path(resolve(config.model.trunk)))
        return counter

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        trust_remote_code: bool = False,
        base: DualTaskCounter | None = None,
    ) -> DualTaskCounter:
        """Load a model from any checkpoint folder of a run, ready to predict.

        trust_remote_code: run Python that comes with the folder; what the folder itself says
            of it is ignored.
        base: a model of the same run. Under LoRA its frozen weights are used, not loaded again.

        Raises:
            CheckpointError: the folder is missing, incomplete or no raydual checkpoint.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        config = with_values(
            build(saved_config(manifest, folder)),
            {"model.trust_remote_code": trust_remote_code},
        )
        prompter = Prompter.from_pretrained(
            str(folder), config.data.image_size, trust_remote_code=trust_remote_code
        )
        counter = cls(config, saved_trunks(folder, config, _lent(base, config)), prompter)
        counter.categories = tuple(manifest.get("categories", ()))
        counter._load_heads(folder)
        return counter.to(device).eval()

    def load_pretrained(self, folder: str | Path) -> None:
        """Load the weights of a checkpoint of the same architecture into this model.

        Raises:
            CheckpointError: as `from_pretrained`, and where the architecture differs.
        """
        trusted = self.config.model.trust_remote_code
        other = DualTaskCounter.from_pretrained(folder, trust_remote_code=trusted)
        try:
            self.load_state_dict(other.state_dict())
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip()[:200]
            raise CheckpointError(f"{folder} holds another architecture: {detail}") from None

    def save_pretrained(self, folder: str | Path, **metadata: Any) -> None:
        """Save the full model and its processor; metadata goes into `raydual.json`."""
        folder = Path(folder)
        self.save_weights(folder)
        self.save_manifest(folder, **metadata)

    def save_weights(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Save everything but the manifest, without which the folder is no checkpoint yet.

        weights: all of the model's, whole; to be given where its own are sharded.
        """
        weights = self.state_dict() if weights is None else weights
        folder.mkdir(parents=True, exist_ok=True)
        for name, below in trunk_folders(self.config).items():
            trunk = self.trunks[name]
            assert isinstance(trunk, Trunk)
            trunk.save_pretrained(folder / below, _below(weights, f"trunks.{name}."))
        self.prompter.save_pretrained(folder)
        heads = _below(weights, "heads.")
        save_file({k: v.detach().cpu().contiguous() for k, v in heads.items()}, folder / HEADS_FILE)

    def save_manifest(self, folder: Path, **metadata: Any) -> None:
        """Write the manifest, which makes the folder a checkpoint."""
        about = {"config": self.config.model_dump(), "categories": list(self.categories)}
        write_manifest(folder, about | metadata)

    def trunk_of(self, task: str) -> str:
        """Return the key of the trunk that a task reads."""
        return task if task in self.trunks else SHARED

    def forward(self, inputs: Mapping[str, Tensor], task: str) -> Any:
        """Run one task: its trunk, then its head."""
        return self.answers(inputs, [task])[0]

    def answers(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> list[Any]:
        """Run tasks, and a trunk that several of them share only once; outputs in their order."""
        names = dict.fromkeys(self.trunk_of(task) for task in tasks)
        hidden = {name: self.trunks[name](inputs) for name in names}
        return [self.heads[task](*hidden[self.trunk_of(task)]) for task in tasks]

    def category_or_default(self, category: str | None) -> str:
        """Return the category; for None the one trained on, or "object" where it is not one."""
        if category is not None:
            return category
        return self.categories[0] if len(self.categories) == 1 else "object"

    def tower_weights(self) -> list[Tensor]:
        """Return copies of the weights that compute features of images."""
        trunks = [trunk for trunk in self.trunks.values() if isinstance(trunk, Trunk)]
        return [p.detach().clone() for trunk in trunks for p in trunk.tower_parameters()]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def encode(
        self, canvases: np.ndarray, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Turn marked canvases, uint8 (B, side, side, 3), into inputs on the model's device."""
        return self._here(self.prompter.encode(canvases, categories, num_marked))

    def encode_marked(
        self, canvases: np.ndarray, categories: Sequence[str], marks: Sequence[np.ndarray]
    ) -> dict[str, Tensor]:
        """Turn canvases, and marks (k, 2) in [-1, 1] of each, into inputs.

        Where marks are painted, they are on the canvases already, and only counted.
        """
        inputs = self.encode(canvases, categories, [len(own) for own in marks])
        return inputs | (self._here(mark_inputs(marks)) if self.config.embeds_marks else {})

    @property
    def can_look(self) -> bool:
        """Whether pixels can be looked at apart from marks: these are embedded, the trunk whole."""
        from torch.distributed.tensor import DTensor

        sharded = isinstance(next(self.trunks.parameters()), DTensor)
        return self.config.embeds_marks and not sharded

    def encode_seen(
        self, features: Tensor, categories: Sequence[str], marks: Sequence[np.ndarray]
    ) -> dict[str, Tensor]:
        """Turn what `look` saw, and marks (k, 2) in [-1, 1] of each image, into inputs."""
        inputs = self.prompter.text_inputs(categories, [len(own) for own in marks])
        return self._here(inputs | mark_inputs(marks)) | {FEATURES: features}

    def look(self, canvases: np.ndarray, task: str) -> Tensor:
        """Run the tower of a task's trunk over canvases, uint8 (B, side, side, 3); no gradients.

        Where marks are embedded, one look at the pixels does for a whole count.
        """
        blank = [""] * len(canvases)
        inputs = self.encode(canvases, blank, [0] * len(canvases))
        trunk = self.trunks[self.trunk_of(task)]
        assert isinstance(trunk, Trunk)
        (looked,) = trunk.look([inputs])
        return looked[FEATURES]

    def _here(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def predict_coordinates(
        self,
        image: Image.Image,
        num_marked: int,
        category: str | None = None,
        *,
        marks: Points = (),
    ) -> tuple[float, float]:
        """Say where the next object is: x and y in [-1, 1] of the canvas.

        image: with the marks of the `num_marked` objects already counted drawn on it (see
        `raydual.draw_marks`). category: what is counted, as in training. marks: where these objects
        lie, (x, y) in pixels of the image, for a model that takes marks without paint
        (`data.mark.style=embedding`); the image is then as it was.

        Raises:
            ValueError: `num_marked` is below 0, or is not the number of `marks` where the model
                takes them; or they are given where it does not.
        """
        (position,) = self._answers(image, num_marked, category, marks, [COORD.name])
        return self._point(image, position)

    def predict_done(
        self,
        image: Image.Image,
        num_marked: int,
        category: str | None = None,
        *,
        marks: Points = (),
    ) -> float:
        """Say with what probability, in [0, 1], every object of the image is marked.

        Takes and raises what `predict_coordinates` does.
        """
        (done,) = self._answers(image, num_marked, category, marks, [DONE.name])
        return float(done.logit[0].sigmoid())

    def predict(
        self,
        image: Image.Image,
        num_marked: int,
        category: str | None = None,
        *,
        marks: Points = (),
    ) -> Prediction:
        """Say both: where the next object is and whether there is one.

        Takes and raises what `predict_coordinates` does.
        """
        tasks = [COORD.name, DONE.name]
        position, done = self._answers(image, num_marked, category, marks, tasks)
        x, y = self._point(image, position)
        px, py = self._letterbox(image).to_pixels(np.array([[x, y]]))[0].tolist()
        return Prediction(x, y, (px, py), float(done.logit[0].sigmoid()))

    @torch.no_grad()
    def _answers(
        self,
        image: Image.Image,
        num_marked: int,
        category: str | None,
        marks: Points,
        tasks: Sequence[str],
    ) -> list[Any]:
        takes = num_marked if self.config.embeds_marks else 0
        if len(marks) != takes:
            raise ValueError(
                f"{len(marks)} marks are given for num_marked={num_marked}, expected {takes}: the "
                f"model was trained with data.mark.style={self.config.data.mark.style}"
            )
        box = self._letterbox(image)
        canvas = box.apply(to_rgb(image))[None]
        inputs = self.encode(canvas, [self.category_or_default(category)], [num_marked])
        if self.config.embeds_marks:
            inputs |= self._here(mark_inputs([box.to_canvas(np.array(marks))]))
        return self.answers(inputs, tasks)

    def _point(self, image: Image.Image, position: Position) -> tuple[float, float]:
        points = position.position.cpu().double().numpy()
        x, y = self._letterbox(image).clip(points)[0].tolist()
        return x, y

    def _letterbox(self, image: Image.Image) -> Letterbox:
        return Letterbox(*image.size, self.config.data.image_size)

    def _take_over_heads(self, folder: Path) -> None:
        if not (folder / HEADS_FILE).is_file():
            return
        saved = read_tensors(folder / HEADS_FILE)
        for name, head in self.heads.items():
            take_over(head, _below(saved, f"{name}."))

    def _load_heads(self, folder: Path) -> None:
        try:
            self.heads.load_state_dict(read_tensors(folder / HEADS_FILE))
        except RuntimeError as error:
            raise CheckpointError(
                f"{folder / HEADS_FILE}: {str(error).splitlines()[-1].strip()[:200]}"
            ) from None


def _new_head(task: Task, trunk: Trunk, config: Config) -> nn.Module:
    """Make a head with weights of its own seed, so that the order of tasks does not matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + zlib.crc32(task.name.encode()))
        return task.make_head(trunk.hidden_size, trunk.grid, config)


def _below(weights: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}


def _lent(base: DualTaskCounter | None, config: Config) -> dict[str, Trunk]:
    """Return the trunks whose frozen weights another checkpoint of their run has too."""
    if base is None or not config.model.lora.r:
        return {}
    if (base.config.model, base.config.seed) != (config.model, config.seed):
        return {}
    return {name: trunk for name, trunk in base.trunks.items() if isinstance(trunk, Trunk)}
