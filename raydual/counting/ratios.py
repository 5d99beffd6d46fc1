"""Figures that are a ratio of two sums over images, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
_SEED = 0
_AT_ONCE = 50


@dataclass(frozen=True)
class Ratio:
    """sum(numerator) / sum(denominator) over images, or the square root of that.

    numerator, denominator: (images,). A mean has a denominator of ones; an F1 over all objects is
    2 TP / (2 TP + FP + FN) with the sums of each.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    root: bool = False

    @property
    def value(self) -> float | None:
        """The figure; None where it is not defined, the denominator being 0."""
        total = float(self.denominator.sum())
        if total == 0:
            return None
        value = float(self.numerator.sum()) / total
        return value**0.5 if self.root else value

    def among(self, chosen: np.ndarray) -> Ratio:
        """Return the figure of the chosen images, bool (images,), alone."""
        return Ratio(self.numerator * chosen, self.denominator * chosen, self.root)


def mean(values: np.ndarray, chosen: np.ndarray | None = None) -> Ratio:
    """Return the mean of values (images,), or of those chosen, bool (images,)."""
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones(len(values)) if chosen is None else np.asarray(chosen, dtype=np.float64)
    return Ratio(np.where(weights > 0, values, 0.0), weights)


def intervals(ratios: Mapping[str, Ratio]) -> dict[str, tuple[float, float] | None]:
    """Return the 95 % percentile bootstrap interval of each figure (Efron, 1979).

    Images are drawn with replacement, as many as there are, `RESAMPLES` times, from a fixed seed:
    the same images give the same interval. None where the figure is not defined; a resample in
    which it is not defined is left out.
    """
    if not ratios:
        return {}
    numerators = np.stack([ratio.numerator for ratio in ratios.values()], axis=1)
    denominators = np.stack([ratio.denominator for ratio in ratios.values()], axis=1)
    images = len(numerators)
    rng = np.random.default_rng(_SEED)
    parts = []
    for _ in range(RESAMPLES // _AT_ONCE):
        times_drawn = rng.multinomial(images, np.full(images, 1 / images), size=_AT_ONCE)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append((times_drawn @ numerators) / (times_drawn @ denominators))
    samples = np.concatenate(parts)
    tail = 50 * (1 - CONFIDENCE)
    return {
        name: _percentiles(samples[:, i], ratio, tail)
        for i, (name, ratio) in enumerate(ratios.items())
    }


def _percentiles(samples: np.ndarray, ratio: Ratio, tail: float) -> tuple[float, float] | None:
    if ratio.value is None:
        return None
    low, high = np.percentile(samples[np.isfinite(samples)], [tail, 100 - tail])
    return (float(low**0.5), float(high**0.5)) if ratio.root else (float(low), float(high))
