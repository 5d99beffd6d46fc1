"""Count as a person does: predict, mark, look again, until done; many images in lock-step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from raydual.config import value_of
from raydual.config_tree import MarkSection
from raydual.counting.threshold import DONE_THRESHOLD, threshold_of
from raydual.data.images import to_rgb
from raydual.data.letterbox import REFERENCE_SIDE, Letterbox
from raydual.data.marking import draw_mark
from raydual.errors import CheckpointError, ConfigError
from raydual.model.counter import DualTaskCounter
from raydual.model.files import same_weights
from raydual.tasks import COORD, DONE, Task
from raydual.training.run_folder import RunFolder, best_of

MAX_OBJECTS = 500
REPEAT_RADIUS = 3.0
"""In pixels of 384. Of 8,018 objects in FSC-147 images 0.1 % have a neighbour nearer than this, of
2,653 pears none; a model kept from ever being done repeats itself this near in every image."""

SECOND_CHOICE = 0.1
"""How likely another place has to be, beside the likeliest one, to be taken where that one has a
mark already."""

BATCH_SIZE = 32

Picture = tuple[Image.Image, str | None]
"""An image of any mode and size, and what to count in it (None: see `category_or_default`)."""


@dataclass(frozen=True)
class Counted:
    """The objects found in one image.

    points: (count, 2) in pixels of the image as given, in the order of counting.
    done: the probability of being done at each step: count + 1 of them, or count where the cap
        was reached.
    stopped: why counting ended: `done`; `max_objects`, the cap; or `repeat`, the next point, and
        any other place nearly as likely, fell on a mark already made, and was not counted.
    """

    points: np.ndarray
    done: list[float]
    stopped: str

    @property
    def count(self) -> int:
        """How many objects were found."""
        return len(self.points)


@dataclass(frozen=True)
class Counter:
    """Counts images: coordinates from one model, done from another or the same.

    Where both are the same, each step is one pass through the trunk for both heads. threshold: a
    probability of being done above it ends a count; `raydual calibrate` stores another than 0.5.

    Raises, when made:
        CheckpointError: the two take images of different sizes, or other marks.
    """

    coord: DualTaskCounter
    done: DualTaskCounter
    threshold: float = DONE_THRESHOLD

    def __post_init__(self) -> None:
        for key in ("data.image_size", "data.mark.style", "data.mark.alpha"):
            ours, theirs = (value_of(m.config, key) for m in (self.coord, self.done))
            if ours != theirs:
                raise CheckpointError(
                    f"the coordinate model was trained with {key}={ours}, the done model "
                    f"with {theirs}; take both from one run"
                )

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> Counter:
        """Load both tasks from one checkpoint folder.

        Raises:
            CheckpointError: the folder is missing, incomplete or no raydual checkpoint.
        """
        model = DualTaskCounter.from_pretrained(folder, device)
        return cls(model, model, threshold_of(Path(folder), Path(folder)))

    @classmethod
    def from_run(cls, run: str | Path, device: str | torch.device = "cpu") -> Counter:
        """Load a run, local or in a bucket: each task from its own best checkpoint.

        Under LoRA the two models share the frozen weights. Where both checkpoints are of one
        epoch they are one model.

        Raises:
            CheckpointError: there is no run, or it has not both checkpoints.
        """
        folder = RunFolder.at(run)
        with (
            folder.checkpoint(best_of(COORD.name)) as coord,
            folder.checkpoint(best_of(DONE.name)) as done,
        ):
            first = DualTaskCounter.from_pretrained(coord, device)
            threshold = threshold_of(coord, done)
            if same_weights(coord, done):
                return cls(first, first, threshold)
            other = DualTaskCounter.from_pretrained(done, device, base=first)
            return cls(first, other, threshold)

    def count(
        self,
        image: Image.Image,
        category: str | None = None,
        max_objects: int = MAX_OBJECTS,
        repeat_radius: float = REPEAT_RADIUS,
    ) -> Counted:
        """Count one image; see `count_batch`."""
        return self.count_batch([image], [category], max_objects, repeat_radius)[0]

    def count_batch(
        self,
        images: Sequence[Image.Image],
        categories: Sequence[str | None] | None = None,
        max_objects: int = MAX_OBJECTS,
        repeat_radius: float = REPEAT_RADIUS,
        batch_size: int = BATCH_SIZE,
    ) -> list[Counted]:
        """Count images in lock-step, with the results of counting them one by one.

        Args:
            images: of any mode and any sizes; an EXIF orientation is not looked at.
            categories: what to count in each; None, or None for an image: the category that the
                model was trained on where there is one alone, else "object".
            max_objects: ends a count that would not end by itself.
            repeat_radius: a point nearer than this to a mark already made, in pixels of an image
                fitted to 384 x 384, is not counted: the next likely place is taken, or the count
                ends. 0 counts every point.
            batch_size: images in one forward pass; one that is finished makes room for the next.

        Raises:
            ConfigError: `max_objects` or `batch_size` is below 1, or `categories` is one text.
            CheckpointError: a model answers with what is no number.
        """
        if isinstance(categories, str):
            raise ConfigError(f"{categories=}: one for each image is expected, in a list")
        wanted = [None] * len(images) if categories is None else categories
        pairs = zip(images, wanted, strict=True)
        results = dict(self.count_stream(pairs, max_objects, repeat_radius, batch_size))
        return [results[i] for i in range(len(images))]

    def count_stream(
        self,
        pictures: Iterable[Picture],
        max_objects: int = MAX_OBJECTS,
        repeat_radius: float = REPEAT_RADIUS,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[tuple[int, Counted]]:
        """Count as `count_batch`; yields (index, result) as soon as an image is finished.

        Pictures are taken when there is room in the batch, and not kept.
        """
        if min(max_objects, batch_size) < 1:
            raise ConfigError(f"{max_objects=}, {batch_size=}: both have to be 1 or more")
        waiting = enumerate(pictures)
        active: list[_Count] = []
        while True:
            for index, (image, category) in islice(waiting, batch_size - len(active)):
                active.append(self._start(index, image, category))
            if not active:
                return
            with _evaluating(self.coord, self.done):
                self._step(active, max_objects, repeat_radius)
            for count in active:
                if count.stopped:
                    yield count.index, count.result()
            active = [count for count in active if not count.stopped]

    def _start(self, index: int, image: Image.Image, category: str | None) -> _Count:
        box = Letterbox(*image.size, self.coord.config.data.image_size)
        category = self.coord.category_or_default(category)
        return _Count(index, category, box, box.apply(to_rgb(image)))

    def _step(self, active: Sequence[_Count], max_objects: int, repeat_radius: float) -> None:
        """Ask about every image once, and mark what is there; sets `stopped` where it ends."""
        together = self.coord is self.done
        answers = _ask(self.done, active, (DONE, COORD) if together else (DONE,))
        chances = answers[0].logit.double().sigmoid().tolist()
        for count, chance in zip(active, chances, strict=True):
            count.done.append(chance)
            count.stopped = "done" if chance > self.threshold else ""
        going = [i for i, count in enumerate(active) if not count.stopped]
        if not going:
            return
        left = [active[i] for i in going]
        position = answers[1] if together else _ask(self.coord, left, (COORD,))[0]
        chosen = going if together else slice(None)
        places, likely = (part.double().cpu().numpy()[chosen] for part in position.ranked())
        if not all(np.isfinite(answer).all() for answer in (places, likely, chances)):
            raise CheckpointError("the model answers NaN: its training diverged; take another one")
        mark = self.coord.config.data.mark
        for count, choices, weights in zip(left, places, likely, strict=True):
            choices = choices[weights >= SECOND_CHOICE * weights[0]]
            count.add(count.box.clip(choices), mark, repeat_radius)
            if not count.stopped and len(count.found) == max_objects:
                count.stopped = "max_objects"


@dataclass
class _Count:
    """An image being counted.

    canvas: uint8 (side, side, 3), with the marks made so far. found: points in [-1, 1] of it.
    """

    index: int
    category: str
    box: Letterbox
    canvas: np.ndarray
    found: list[np.ndarray] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    stopped: str = ""

    def add(self, choices: np.ndarray, mark: MarkSection, repeat_radius: float) -> None:
        """Mark the first of the points (n, 2) in [-1, 1] that has no mark, or stop."""
        marks = np.array(self.found).reshape(-1, 2)
        distances = cdist(choices, marks) * REFERENCE_SIDE / 2
        free = np.flatnonzero((distances >= repeat_radius).all(axis=1))
        if not len(free):
            self.stopped = "repeat"
            return
        point = choices[free[0]]
        self.found.append(point)
        draw_mark(self.canvas, point, len(self.found), mark.style, mark.alpha)

    def result(self) -> Counted:
        """What was found, in pixels of the image."""
        points = self.box.to_pixels(np.array(self.found))
        inside = points.clip(0, (self.box.width, self.box.height))  # of rounding
        return Counted(inside, self.done, self.stopped)


@contextlib.contextmanager
def _evaluating(*models: DualTaskCounter) -> Iterator[None]:
    """Switch dropout off inside the block."""
    training = [model for model in models if model.training]
    for model in training:
        model.eval()
    try:
        yield
    finally:
        for model in training:
            model.train()


@torch.no_grad()
def _ask(model: DualTaskCounter, counts: Sequence[_Count], tasks: Sequence[Task]) -> list[Any]:
    """Run the tasks on the images as they are marked now."""
    canvases = np.stack([count.canvas for count in counts])
    marked = [len(count.found) for count in counts]
    inputs = model.encode(canvases, [count.category for count in counts], marked)
    return model.answers(inputs, [task.name for task in tasks])
