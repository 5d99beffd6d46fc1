"""Count as a person does: look, mark, look again, until done; many images in lock-step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from raydual.config import value_of
from raydual.config_tree import MarkSection
from raydual.counting.looks import PerLook, marks_a_look
from raydual.counting.one_count import Counted, OneCount
from raydual.counting.threshold import USUAL, thresholds_of
from raydual.data.images import to_rgb
from raydual.data.letterbox import Letterbox
from raydual.data.marking import draw_mark
from raydual.errors import CheckpointError, ConfigError
from raydual.model.counter import DualTaskCounter
from raydual.model.files import same_weights
from raydual.model.trunk import Trunk
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
class Counter:
    """Counts images: coordinates from one model, done from another or the same.

    Where both are the same, each look is one pass through the trunk for both heads. Where marks
    are embedded, the pixels are looked at once.

    threshold: a probability of being done above it ends a count. cell_threshold: where a look marks
    many, it marks cells whose probability is above it. `raydual calibrate` stores others.
    per_look: the most objects that one look marks: a number, or `all`. None means `all` for a model
    trained with `coord.match=all`, else 1.

    Raises, when made:
        CheckpointError: the two take images of different sizes, or other marks.
        ConfigError: `per_look` is neither a number of 1 or more nor `all`, or it is above 1 for a
            head without a grid.
    """

    coord: DualTaskCounter
    done: DualTaskCounter
    threshold: float = USUAL.done
    cell_threshold: float = USUAL.cell
    per_look: PerLook | None = None

    def __post_init__(self) -> None:
        marks_a_look(self.per_look, self.coord.config)
        for key in ("data.image_size", "data.mark.style", "data.mark.alpha"):
            ours, theirs = (value_of(m.config, key) for m in (self.coord, self.done))
            if ours != theirs:
                raise CheckpointError(
                    f"the coordinate model was trained with {key}={ours}, the done model "
                    f"with {theirs}; take both from one run"
                )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        per_look: PerLook | None = None,
    ) -> Counter:
        """Load both tasks from one checkpoint folder.

        Raises:
            CheckpointError: the folder is missing, incomplete or no raydual checkpoint.
            ConfigError: as `Counter`.
        """
        model = DualTaskCounter.from_pretrained(folder, device)
        most = marks_a_look(per_look, model.config)
        found = thresholds_of(Path(folder), Path(folder), most)
        return cls(model, model, found.done, found.cell, per_look)

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        device: str | torch.device = "cpu",
        per_look: PerLook | None = None,
    ) -> Counter:
        """Load a run, local or in a bucket: each task from its own best checkpoint.

        Under LoRA the two models share the frozen weights. Where both checkpoints are of one
        epoch they are one model.

        Raises:
            CheckpointError: there is no run, or it has not both checkpoints.
            ConfigError: as `Counter`.
        """
        folder = RunFolder.at(run)
        with (
            folder.checkpoint(best_of(COORD.name)) as coord,
            folder.checkpoint(best_of(DONE.name)) as done,
        ):
            first = DualTaskCounter.from_pretrained(coord, device)
            found = thresholds_of(coord, done, marks_a_look(per_look, first.config))
            if same_weights(coord, done):
                return cls(first, first, found.done, found.cell, per_look)
            other = DualTaskCounter.from_pretrained(done, device, base=first)
            return cls(first, other, found.done, found.cell, per_look)

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
        active: list[OneCount] = []
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

    def _start(self, index: int, image: Image.Image, category: str | None) -> OneCount:
        config = self.coord.config
        box = Letterbox(*image.size, config.data.image_size)
        category = self.coord.category_or_default(category)
        mark = config.data.mark
        paint = None if config.embeds_marks else partial(_paint, mark)
        return OneCount(index, category, box, box.apply(to_rgb(image)), paint)

    def _step(self, active: Sequence[OneCount], max_objects: int, repeat_radius: float) -> None:
        """Look at every image once, and mark what is there; sets `stopped` where it ends."""
        together = self.coord is self.done and self._one_tower
        answers = self._ask(DONE, active, (DONE, COORD) if together else (DONE,))
        chances = answers[0].logit.double().sigmoid().tolist()
        for count, chance in zip(active, chances, strict=True):
            count.done.append(chance)
            count.stopped = "done" if chance > self.threshold else ""
        going = [i for i, count in enumerate(active) if not count.stopped]
        if not going:
            return
        left = [active[i] for i in going]
        position = answers[1] if together else self._ask(COORD, left, (COORD,))[0]
        chosen = going if together else slice(None)
        one = self.most_per_look == 1
        places = position.ranked() if one else position.peaks(self.coord.grid)
        where, likely, sure = (part.double().cpu().numpy()[chosen] for part in places)
        if not all(np.isfinite(answer).all() for answer in (where, likely, chances)):
            raise CheckpointError("the model answers NaN: its training diverged; take another one")
        for count, points, weights, own in zip(left, where, likely, sure, strict=True):
            tried = weights >= SECOND_CHOICE * weights[0] if one else weights > self.cell_threshold
            room = max_objects - len(count.found)
            most = min(self.most_per_look, room)
            count.add(points[tried], own[tried], most, repeat_radius)
            if not count.stopped and len(count.found) == max_objects:
                count.stopped = "max_objects"

    @cached_property
    def most_per_look(self) -> int:
        """How many objects a look marks at the most."""
        return marks_a_look(self.per_look, self.coord.config)

    @torch.no_grad()
    def _ask(self, of: Task, counts: Sequence[OneCount], tasks: Sequence[Task]) -> list[Any]:
        """Answer `tasks` with the model of `of`, for the images with their present marks."""
        model = self.done if of is DONE else self.coord
        categories = [count.category for count in counts]
        names = [task.name for task in tasks]
        marks = [count.marks for count in counts]
        if not model.can_look:
            canvases = np.stack([count.canvas for count in counts])
            return model.answers(model.encode_marked(canvases, categories, marks), names)
        eyes = "both" if self._one_tower else of.name
        new = [count for count in counts if eyes not in count.features]
        if new:
            seen = model.look(np.stack([count.canvas for count in new]), of.name)
            for count, features in zip(new, seen, strict=True):
                count.features[eyes] = features
        together = torch.stack([count.features[eyes] for count in counts])
        return model.answers(model.encode_seen(together, categories, marks), names)

    @cached_property
    def _one_tower(self) -> bool:
        """Whether both tasks see the same features of an image, where marks are not in it."""
        if not self.coord.config.embeds_marks:
            return True
        coord = self.coord.trunks[self.coord.trunk_of(COORD.name)]
        done = self.done.trunks[self.done.trunk_of(DONE.name)]
        assert isinstance(coord, Trunk)
        assert isinstance(done, Trunk)
        pairs = zip(coord.tower_parameters(), done.tower_parameters(), strict=True)
        return all(a is b or torch.equal(a, b) for a, b in pairs)


def _paint(mark: MarkSection, canvas: np.ndarray, point: np.ndarray, number: int) -> None:
    draw_mark(canvas, point, number, mark.style, mark.alpha)


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
