"""Patience, one a task."""

from __future__ import annotations

import math
from typing import Any


class EarlyStopping:
    """Count the validations without improvement of one monitored loss."""

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.stalled = 0

    def update(self, loss: float) -> bool:
        """Take in a validation loss; return whether it is a new best by more than min_delta."""
        improved = loss < self.best - self.min_delta
        self.best = loss if improved else self.best
        self.stalled = 0 if improved else self.stalled + 1
        return improved

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up."""
        return self.stalled >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs."""
        return {"best": self.best, "stalled": self.stalled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; patience and min_delta stay as configured now."""
        self.best, self.stalled = state["best"], state["stalled"]
