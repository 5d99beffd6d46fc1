"""Marks as the model itself makes them, for training: off their object, left out, made twice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from raydual.config_tree import MarkSection
from raydual.data.letterbox import REFERENCE_SIDE


class Shown(NamedTuple):
    """What an example shows, and what is right about it.

    marks: (K, 2) in [-1, 1], to be drawn in this order. objects: (N, 2), all of them, those that
    have a mark first, the others after them in the order of counting. marked: how many have one.
    """

    marks: np.ndarray
    objects: np.ndarray
    marked: int


def imperfect(
    points: np.ndarray, marked: int, mark: MarkSection, rng: np.random.Generator
) -> Shown:
    """Show the first `marked` of the points (N, 2), as imperfectly as `mark` says.

    Each mark is left out with probability `mark.missing`: its object counts as not marked, so
    that it is the next one in the order of counting. Each that is left is drawn once more with
    probability `mark.doubled`, as the mark that follows it: a second mark on an object that has
    one changes the number of marks, not what is right. Every mark drawn is then off by normal
    noise of standard deviation `mark.jitter` in x and in y, in pixels of 384.

    With all three at 0 nothing is drawn from `rng`, and the marks are the points.
    """
    kept = np.arange(marked)
    if mark.missing:
        kept = kept[rng.random(marked) >= mark.missing]
    left = np.setdiff1d(np.arange(len(points)), kept)
    objects = points[np.concatenate([kept, left])]
    times = np.ones(len(kept), dtype=int)
    if mark.doubled:
        times += rng.random(len(kept)) < mark.doubled
    marks = np.repeat(points[kept], times, axis=0)
    if mark.jitter:
        marks = marks + rng.normal(0, mark.jitter * 2 / REFERENCE_SIDE, marks.shape)
    return Shown(marks, objects, len(kept))
