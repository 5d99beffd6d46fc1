"""One image while it is counted: what is marked, and why counting it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.distance import cdist
from torch import Tensor

from raydual.data.letterbox import REFERENCE_SIDE, Letterbox


@dataclass(frozen=True)
class Counted:
    """The objects found in one image.

    points: (count, 2) in pixels of the image as given, in the order of counting.
    done: the probability of being done at each look. One mark a look: count + 1 of them, or count
        where the cap was reached.
    stopped: why counting ended: `done`; `max_objects`, the cap; `repeat`, every likely place has a
        mark already; or, with several marks a look, `unsure`, no place is likely enough.
    looks: (count,) in which look each point was found, from 1.
    sure: (count,) how sure the model was of each, in [0, 1]; 1 from a head without a grid.
    """

    points: np.ndarray
    done: list[float]
    stopped: str
    looks: np.ndarray
    sure: np.ndarray

    @property
    def count(self) -> int:
        """How many objects were found."""
        return len(self.points)


@dataclass
class OneCount:
    """An image being counted.

    canvas: uint8 (side, side, 3), with the marks made so far where they are painted. paint: paints
    mark number n at a point (2,) onto it. found: points in [-1, 1] of it. features: what the
    tower computed, by task name, or under `both` where the two towers are equal; empty where marks
    are painted.
    """

    index: int
    category: str
    box: Letterbox
    canvas: np.ndarray
    paint: Callable[[np.ndarray, np.ndarray, int], None] | None
    found: list[np.ndarray] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    features: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""

    @property
    def marks(self) -> np.ndarray:
        """The points marked so far, (k, 2) in [-1, 1]."""
        return np.array(self.found).reshape(-1, 2)

    def add(self, places: np.ndarray, sure: np.ndarray, most: int, repeat_radius: float) -> None:
        """Mark the first `most` of the points (n, 2) in [-1, 1] that have no mark yet.

        Sets `stopped` to `unsure` if there are no points, to `repeat` if each has a mark.

        sure: (n,). repeat_radius: see `Counter.count_batch`.
        """
        if not len(places):
            self.stopped = "unsure"
            return
        look, before = len(self.done), len(self.found)
        for place, own in zip(self.box.clip(places), sure.tolist(), strict=True):
            if len(self.found) - before == most:
                break
            distances = cdist(place[None], self.marks) * REFERENCE_SIDE / 2
            if (distances >= repeat_radius).all():
                self.found.append(place)
                self.looks.append(look)
                self.sure.append(own)
                if self.paint is not None:
                    self.paint(self.canvas, place, len(self.found))
        if len(self.found) == before:
            self.stopped = "repeat"

    def result(self) -> Counted:
        """Return what was found, in pixels of the image."""
        points = self.box.to_pixels(np.array(self.found))
        inside = points.clip(0, (self.box.width, self.box.height))  # of rounding
        looks, sure = np.array(self.looks, dtype=int), np.array(self.sure, dtype=float)
        return Counted(inside, self.done, self.stopped, looks, sure)
