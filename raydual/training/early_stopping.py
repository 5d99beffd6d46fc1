"""Patience, one a task."""

from __future__ import annotations

import math
from typing import Any


class EarlyStopping:
    """Count the validations without improvement of one monitored loss.

    after: the number of validations after which everything before is forgotten.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, after: int = 0) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.after = after
        self.best = math.inf
        self.stalled = 0
        self.seen = 0
        self._forgot = after == 0

    def update(self, loss: float) -> bool:
        """Take in a validation loss; return whether it is a new best by more than min_delta."""
        if self.seen >= self.after and not self._forgot:
            self.best, self.stalled, self._forgot = math.inf, 0, True
        self.seen += 1
        improved = loss < self.best - self.min_delta
        self.best = loss if improved else self.best
        self.stalled = 0 if improved else self.stalled + 1
        return improved

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up; never during the first `after` validations."""
        return self._forgot and self.stalled >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs."""
        return {
            "best": self.best,
            "stalled": self.stalled,
            "seen": self.seen,
            "forgot": self._forgot,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; patience, min_delta and after stay as configured now.

        A state from before `after` existed is not reset.
        """
        self.best, self.stalled = state["best"], state["stalled"]
        self.seen, self._forgot = state.get("seen", 0), state.get("forgot", True)
