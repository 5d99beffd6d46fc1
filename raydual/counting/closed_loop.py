"""Count as a person does: predict, mark, look again, until done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from raydual.data.letterbox import Letterbox
from raydual.data.marking import draw_marks
from raydual.errors import CheckpointError
from raydual.model.counter import DualTaskCounter
from raydual.tasks import COORD, DONE


@dataclass(frozen=True)
class Counted:
    """The objects found in one image.

    points: (count, 2) in pixels of the image, in the order of counting. done: the probability of
    being done at each step, count + 1 of them, or count where the cap was reached. stopped: why
    counting ended, `done` or `max_objects`.
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
    """Counts images: coordinates from one model, done from another or the same."""

    coord: DualTaskCounter
    done: DualTaskCounter

    @classmethod
    def from_pretrained(
        cls, coord: str | Path, done: str | Path | None = None, device: str = "cpu"
    ) -> Counter:
        """Load from one checkpoint folder, or from one a task.

        Raises:
            CheckpointError: a folder is missing, incomplete or no raydual checkpoint, or the two
                take images of different sizes.
        """
        first = DualTaskCounter.from_pretrained(coord, device)
        second = first if done is None else DualTaskCounter.from_pretrained(done, device)
        sizes = [model.config.data.image_size for model in (first, second)]
        if sizes[0] != sizes[1]:
            raise CheckpointError(
                f"{coord} takes images of {sizes[0]} px, {done} of {sizes[1]} px; "
                "both have to be of one run, or of runs with the same data.image_size"
            )
        return cls(first, second)

    @torch.no_grad()
    def count(
        self, image: Image.Image, category: str = "object", max_objects: int = 500
    ) -> Counted:
        """Count one RGB image; `max_objects` ends a count that would not end by itself."""
        size = self.coord.config.data.image_size
        box = Letterbox(*image.size, size)
        canvas = box.apply(image)
        found = np.zeros((0, 2))
        chances: list[float] = []
        while len(found) < max_objects:
            chances.append(self._done(canvas, found, category))
            if chances[-1] > 0.5:
                return Counted(box.to_pixels(found), chances, "done")
            found = np.vstack([found, box.clip(self._next(canvas, found, category))])
        return Counted(box.to_pixels(found), chances, "max_objects")

    def _done(self, canvas: np.ndarray, found: np.ndarray, category: str) -> float:
        return float(_ask(self.done, DONE.name, canvas, found, category)[0].sigmoid())

    def _next(self, canvas: np.ndarray, found: np.ndarray, category: str) -> np.ndarray:
        return _ask(self.coord, COORD.name, canvas, found, category).position.double().cpu().numpy()


def _ask(model: DualTaskCounter, task: str, canvas: np.ndarray, found: np.ndarray, category: str):  # type: ignore[no-untyped-def]
    mark = model.config.data.mark
    marked = draw_marks(canvas, found, mark.style, mark.alpha)
    return model(model.encode(marked[None], [category], [len(found)]), task)


def annotate(image: Image.Image, counted: Counted) -> Image.Image:
    """Draw the numbered points and the count onto a copy of the image, at least 384 px wide."""
    scale = max(1.0, 384 / max(image.size))
    picture = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    draw = ImageDraw.Draw(picture)
    radius = max(8, max(picture.size) // 60)
    font = ImageFont.load_default(size=radius * 1.3)
    for number, (x, y) in enumerate(counted.points * scale, start=1):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=(20, 140, 50), outline="white", width=2)
        draw.text((x, y), str(number), "white", font=font, anchor="mm")
    label = f"count {counted.count}"
    font = ImageFont.load_default(size=18)
    draw.rectangle((0, 0, draw.textlength(label, font) + 12, 26), fill="black")
    draw.text((6, 3), label, "white", font=font)
    return picture
