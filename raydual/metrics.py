"""Weighted means that add up over batches and over ranks.

Every figure is kept as (sum of weight x value, sum of weight), so that masked examples have
weight 0, an F1 is a mean too, and the result does not depend on how examples were spread.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from raydual.data.letterbox import REFERENCE_SIDE

PX_PER_UNIT = REFERENCE_SIDE / 2

Weighted = tuple[Tensor, Tensor]


class Means:
    """Running weighted means by name; nothing is read back from the device before `compute`."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}

    def update(self, figures: Mapping[str, Weighted]) -> None:
        """Add, by name, values (B,) with their weights (B,); values of weight 0 are ignored."""
        for name, (values, weights) in figures.items():
            values, weights = values.detach().double(), weights.detach().double()
            # a masked value may be NaN, and NaN * 0 is NaN
            total = torch.where(weights > 0, values * weights, 0.0).sum()
            pair = torch.stack([total, weights.sum()])
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def compute(self) -> dict[str, float]:
        """Return the mean of each figure over all ranks; one without any weight is left out.

        A collective: every rank calls it, with the same names or, if it had no batch, none.
        """
        names = sorted({n for ranks in gather(sorted(self._sums)) for n in ranks})
        if not names:
            return {}
        zero = torch.zeros(2, dtype=torch.float64, device=self._device)
        pairs = torch.stack([self._sums.get(n, zero) for n in names])
        if dist.is_initialized():
            dist.all_reduce(pairs)
        return {n: (s / w) for n, (s, w) in zip(names, pairs.tolist(), strict=True) if w > 0}

    def state_dict(self) -> dict[str, Tensor]:
        """Return this rank's sums by name, on the CPU."""
        return {name: pair.cpu() for name, pair in self._sums.items()}

    def add(self, saved: Mapping[str, Tensor]) -> None:
        """Add what another, or an earlier one, had gathered: its `state_dict`."""
        for name, pair in saved.items():
            pair = pair.to(self._device)
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair


class Medians:
    """Medians over the examples of weight > 0; they do not add up, so all values are kept."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def update(self, figures: Mapping[str, Weighted]) -> None:
        """Add, by name, values (B,) with their weights (B,)."""
        for name, (values, weights) in figures.items():
            self._values.setdefault(name, []).append(values.detach()[weights > 0])

    def compute(self) -> dict[str, float]:
        """Return the median of each figure over all ranks; a collective."""
        local = [(name, torch.cat(parts).tolist()) for name, parts in self._values.items()]
        together: dict[str, list[float]] = {}
        for ranks in gather(local):
            for name, values in ranks:
                together.setdefault(name, []).extend(values)
        return {name: statistics.median(v) for name, v in sorted(together.items()) if v}


def gather(value: list) -> list[list]:
    """Return the lists of all ranks, in the order of ranks. A collective."""
    if not dist.is_initialized():
        return [value]
    everyone: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone


def pixel_errors(position: Tensor, target: Tensor) -> Tensor:
    """Return Euclidean distances in pixels of the 384-pixel reference side; (..., 2) -> (...)."""
    return torch.linalg.vector_norm(position.float() - target.float(), dim=-1) * PX_PER_UNIT


def done_figures(
    logit: Tensor, label: Tensor, valid: Tensor, natural: Tensor
) -> dict[str, Weighted]:
    """Return accuracy and F1 of the done task at probability 0.5.

    logit, label, valid, natural: (B,). `natural` weights an example to the rate at which done
    occurs when the number of marks is uniform. F1 = 2 TP / (2 TP + FP + FN) (van Rijsbergen,
    1979) is a mean of 1 over true positives of weight 2, and of 0 over errors of weight 1.
    """
    predicted, label = logit > 0, label > 0.5
    right = (predicted == label).float()
    hits = (predicted & label).float()
    return {
        "done_accuracy": (right, valid),
        "done_accuracy_natural": (right, valid * natural),
        "done_f1": (hits, valid * (2 * hits + (1 - right))),
    }


def natural_weight(label: float, num_objects: int, positive_fraction: float) -> float:
    """Return the weight that takes an example from the sampled to the natural rate of done.

    With k uniform in 0..N, done occurs with probability 1 / (N + 1); it was drawn with
    `positive_fraction`. An image without objects is always done: weight 1.
    """
    if num_objects == 0:
        return 1.0
    natural = 1 / (num_objects + 1)
    if label:
        return natural / positive_fraction
    return (1 - natural) / (1 - positive_fraction)
