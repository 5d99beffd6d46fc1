"""How sure the model has to be of being done for counts to come out best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from raydual.counting.predictions import Prediction
from raydual.counting.threshold import DONE_THRESHOLD

MOST = 1000
"""Thresholds tried at the most."""

SHIFTS = np.linspace(-0.25, 0.25, 5)
"""Of the logit of done, between the images that a threshold is found with and others."""


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

    predictions: counted to `max_objects`, with a threshold of 1.

    The error is the mean of those with the threshold moved by `SHIFTS`. A model that is never
    quite sure of being done counts best just below where it would hardly ever end, and on other
    images that is somewhere else. Of thresholds that are equally good, the one nearest to 0.5.
    """
    sure = [np.maximum.accumulate(p.done) for p in predictions]
    true = np.array([p.true_count for p in predictions])
    most = np.array([p.count for p in predictions])

    def mae(thresholds: np.ndarray) -> np.ndarray:
        steps = np.array([np.searchsorted(s, thresholds, side="right") for s in sure])
        counts = np.minimum(steps, most[:, None])
        return np.asarray(abs(counts - true[:, None]).mean(axis=0))

    tried = _candidates(sure)
    moved = np.mean([mae(expit(logit(tried) + shift)) for shift in SHIFTS], axis=0)
    best = tried[np.lexsort((abs(tried - DONE_THRESHOLD), moved.round(9)))[0]]
    found, before = mae(np.array([best, DONE_THRESHOLD])).tolist()
    return Calibrated(float(best), found, before, len(predictions), max_objects)


def _candidates(sure: Sequence[np.ndarray]) -> np.ndarray:
    """Thresholds between which no count changes: 0.5, and those amid two steps that differ."""
    steps = np.unique(np.concatenate(sure))
    between = (steps[1:] + steps[:-1]) / 2
    if len(between) > MOST:
        between = between[np.linspace(0, len(between) - 1, MOST).round().astype(int)]
    return np.array([DONE_THRESHOLD, *between])
