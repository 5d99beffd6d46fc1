"""How sure the model has to be of being done for counts to come out best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raydual.counting.closed_loop import DONE_THRESHOLD
from raydual.counting.predictions import Prediction

MOST = 1000
"""Thresholds tried at the most."""


@dataclass(frozen=True)
class Calibrated:
    """A threshold of done, and the mean absolute errors of counting with it and with 0.5.

    max_objects: where every count ended at the latest.
    """

    threshold: float
    mae: float
    mae_before: float
    images: int
    max_objects: int


def best_threshold(predictions: Sequence[Prediction], max_objects: int) -> Calibrated:
    """Return the threshold at which counts have the lowest mean absolute error.

    predictions: counted to `max_objects`, with a threshold of 1. Of thresholds that are equally
    good, the one nearest to 0.5.
    """
    sure = [np.maximum.accumulate(p.done) for p in predictions]
    true = np.array([p.true_count for p in predictions])
    most = np.array([p.count for p in predictions])

    def mae(threshold: float) -> float:
        steps = np.array([np.searchsorted(s, threshold, side="right") for s in sure])
        return float(abs(np.minimum(steps, most) - true).mean())

    best = min(_candidates(sure), key=lambda t: (mae(t), abs(t - DONE_THRESHOLD)))
    return Calibrated(best, mae(best), mae(DONE_THRESHOLD), len(predictions), max_objects)


def _candidates(sure: Sequence[np.ndarray]) -> list[float]:
    """Thresholds between which no count changes: 0.5, and those amid two steps that differ."""
    steps = np.unique(np.concatenate(sure))
    between = (steps[1:] + steps[:-1]) / 2
    if len(between) > MOST:
        between = between[np.linspace(0, len(between) - 1, MOST).round().astype(int)]
    return [DONE_THRESHOLD, *between.tolist()]
