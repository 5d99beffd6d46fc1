"""How sure the model has to be for counts to come out best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from raydual.counting.predictions import Prediction
from raydual.counting.threshold import USUAL, Thresholds

MOST = 1000
"""Thresholds of done tried at the most."""

CELLS = tuple(np.linspace(0.2, 0.6, 9).round(3).tolist())
"""Thresholds of a cell that are tried."""

SHIFTS = np.linspace(-0.25, 0.25, 5)
"""Of the logit of done, between the images that a threshold is found with and others."""


@dataclass(frozen=True)
class Calibrated:
    """Thresholds, and the mean absolute errors of counting with them and with the usual ones.

    threshold, cell_threshold: see `Thresholds`. max_objects: where every count ended at the latest.
    """

    threshold: float
    cell_threshold: float
    mae: float
    mae_before: float
    images: int
    max_objects: int

    @property
    def thresholds(self) -> Thresholds:
        """What a checkpoint is to store."""
        return Thresholds(self.threshold, self.cell_threshold)

    def said(self, split: str, most_per_look: int) -> str:
        """Say it in a line."""
        cells = f", cells above {self.cell_threshold:.4g}" if most_per_look > 1 else ""
        return (
            f"Done above {self.threshold:.4g}{cells}: MAE {self.mae:.3f} on {self.images} images "
            f"of {split}, {self.mae_before:.3f} above 0.5, counted to {self.max_objects} at the "
            "most"
        )


def best_thresholds(predictions: Sequence[Prediction], max_objects: int) -> Calibrated:
    """Return the thresholds at which counts have the lowest mean absolute error.

    predictions: counted to `max_objects`, with a threshold of done of 1, each image with the same
    thresholds of a cell.

    The error is the mean of those with the threshold of done moved by `SHIFTS`, and with the
    thresholds of a cell beside it: a model that is never quite sure counts best just below where
    it would hardly ever end, and on other images that is somewhere else. Of thresholds that are
    equally good, those nearest to the usual ones.
    """
    cells = sorted({p.cell_threshold or USUAL.cell for p in predictions})
    groups = [[p for p in predictions if (p.cell_threshold or USUAL.cell) == c] for c in cells]
    tried = _candidates(predictions)
    shifted = [expit(logit(tried) + shift) for shift in SHIFTS]
    errors = np.array([np.mean([_mae(own, s) for s in shifted], axis=0) for own in groups])
    smooth = np.array([errors[max(0, i - 1) : i + 2].mean(axis=0) for i in range(len(cells))])
    by_cell, by_done = np.meshgrid(np.array(cells), tried, indexing="ij")
    unusual = abs(by_done - USUAL.done) + abs(by_cell - USUAL.cell)
    best = np.lexsort((unusual.ravel(), smooth.round(9).ravel()))[0]
    row, column = np.unravel_index(best, smooth.shape)
    found = Thresholds(float(tried[column]), cells[row])
    before = groups[int(np.abs(np.array(cells) - USUAL.cell).argmin())]
    return Calibrated(
        found.done,
        found.cell,
        float(_mae(groups[row], np.array([found.done]))[0]),
        float(_mae(before, np.array([USUAL.done]))[0]),
        len(before),
        max_objects,
    )


def _mae(predictions: Sequence[Prediction], thresholds: np.ndarray) -> np.ndarray:
    """Return the mean absolute error of ending where done is above each of the thresholds."""
    errors = np.zeros(len(thresholds))
    for prediction in predictions:
        sure = np.maximum.accumulate(prediction.done)
        looks = np.searchsorted(sure, thresholds, side="right")
        marks = np.searchsorted(np.array(prediction.looks), looks, side="right")
        counts = np.where(looks < len(sure), marks, prediction.count)
        errors += abs(counts - prediction.true_count)
    return errors / len(predictions)


def _candidates(predictions: Sequence[Prediction]) -> np.ndarray:
    """Thresholds between which no count changes: 0.5, and those amid two steps that differ."""
    steps = np.unique(np.concatenate([np.maximum.accumulate(p.done) for p in predictions]))
    between = (steps[1:] + steps[:-1]) / 2
    if len(between) > MOST:
        between = between[np.linspace(0, len(between) - 1, MOST).round().astype(int)]
    return np.array([USUAL.done, *between])
