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
        cells, usual = "", f"{USUAL.done}"
        if most_per_look > 1:
            cells = f", cells above {self.cell_threshold:.4g}"
            usual += f" and {USUAL.cell}"
        return (
            f"Done above {self.threshold:.4g}{cells}: MAE {self.mae:.3f} on {self.images} images "
            f"of {split}, {self.mae_before:.3f} above {usual}, counted to {self.max_objects} at "
            "the most"
        )


def best_thresholds(predictions: Sequence[Prediction], max_objects: int) -> Calibrated:
    """Return the thresholds at which counts have the lowest mean absolute error.

    predictions: counted to `max_objects`, with a threshold of done of 1, each image with the same
    thresholds of a cell.

    First, for each cell threshold, take the done threshold with the lowest mean error over
    `SHIFTS`; of equal ones, the nearest to the usual one. Shifting makes the choice robust: a model
    that is rarely sure of being done counts best just below the threshold at which it hardly ever
    ends, and that threshold differs on other images. Then compare the cell thresholds by the error
    at their own done threshold. Take the one nearest to the usual one whose error exceeds the
    lowest by at most one standard error of the difference (after the one-standard-error rule of
    Breiman et al., "Classification and Regression Trees", 1984): few images say little.
    """
    tried = _candidates(predictions)
    cells = sorted({p.cell_threshold or USUAL.cell for p in predictions})
    groups = [[p for p in predictions if (p.cell_threshold or USUAL.cell) == c] for c in cells]
    dones = np.array([_best_done(own, tried) for own in groups])
    errors = np.array([_errors(g, np.array([d]))[:, 0] for g, d in zip(groups, dones, strict=True)])
    worse = errors - errors[errors.mean(axis=1).argmin()]
    as_good = worse.mean(axis=1) <= worse.std(axis=1) / np.sqrt(errors.shape[1])
    usual = np.abs(np.array(cells) - USUAL.cell)
    chosen = int(np.where(as_good, usual, np.inf).argmin())
    before = groups[int(usual.argmin())]
    return Calibrated(
        float(dones[chosen]),
        cells[chosen],
        float(errors[chosen].mean()),
        float(_errors(before, np.array([USUAL.done])).mean()),
        len(before),
        max_objects,
    )


def _best_done(predictions: Sequence[Prediction], tried: np.ndarray) -> float:
    moved = [_errors(predictions, expit(logit(tried) + s)).mean(axis=0) for s in SHIFTS]
    error = np.mean(moved, axis=0).round(9)
    return float(tried[np.lexsort((abs(tried - USUAL.done), error))[0]])


def _errors(predictions: Sequence[Prediction], thresholds: np.ndarray) -> np.ndarray:
    """Return the errors (images, thresholds) of ending where done is above each threshold."""
    errors = np.zeros((len(predictions), len(thresholds)))
    for i, prediction in enumerate(predictions):
        sure = np.maximum.accumulate(prediction.done)
        looks = np.searchsorted(sure, thresholds, side="right")
        marks = np.searchsorted(np.array(prediction.looks), looks, side="right")
        counts = np.where(looks < len(sure), marks, prediction.count)
        errors[i] = abs(counts - prediction.true_count)
    return errors


def _candidates(predictions: Sequence[Prediction]) -> np.ndarray:
    """Thresholds between which no count changes: 0.5, and those amid two steps that differ."""
    steps = np.unique(np.concatenate([np.maximum.accumulate(p.done) for p in predictions]))
    between = (steps[1:] + steps[:-1]) / 2
    if len(between) > MOST:
        between = between[np.linspace(0, len(between) - 1, MOST).round().astype(int)]
    return np.array([USUAL.done, *between])
