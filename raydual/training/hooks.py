"""What a training tells whoever runs it, and what it can be asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

CHECK_EVERY, CHECK_S = 20, 1.0
"""Iterations, and seconds, from one agreement of several ranks to the next: what is shorter."""


class Request(IntEnum):
    """What is wanted after the iteration under way; of several, the largest counts."""

    NOTHING = 0
    SAVE = 1
    END = 2
    """Save, and end."""


@dataclass(frozen=True)
class Hooks:
    """Called on every rank.

    on_progress: with (epoch, iterations done, iterations of the epoch).
    on_stage: with where this rank stands, as "epoch 2, iteration 7, forward pass of coord".
    on_pause: with what each rank has gathered of the epoch; to be saved.
    requested: what is asked for; called equally often on every rank.
    """

    on_progress: Callable[[int, int, int], None] = lambda epoch, done, total: None
    on_stage: Callable[[str], None] = lambda stage: None
    on_pause: Callable[[list[dict[str, Any]]], None] = lambda parts: None
    requested: Callable[[], Request] = lambda: Request.NOTHING


class Agreement:
    """When ranks ask each other what is requested: a collective, and not free.

    Without ranks it is asked after every iteration. Ranks do so before and after the first of an
    epoch, after the last, and between them about every `CHECK_S`, or `CHECK_EVERY` iterations.
    """

    def __init__(self, requested: Callable[[], Request], device: torch.device) -> None:
        self._requested, self._device = requested, device
        self._next = 0
        self._asked: tuple[int, float] | None = None

    def reached(self, done: int, last: bool) -> Request:
        """Return the largest request of any rank, after `done` iterations of an epoch."""
        if not dist.is_initialized():
            return self._requested()
        if done < self._next and not last:
            return Request.NOTHING
        asked = torch.tensor([int(self._requested()), -self._pace(done)], device=self._device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        request, fewest = asked.tolist()
        self._next = 0 if last else done - fewest
        return Request(request)

    def _pace(self, done: int) -> int:
        """Return how many iterations take `CHECK_S`, by those since the last time."""
        now, before = time.monotonic(), self._asked
        self._asked = (done, now)
        if before is None or done <= before[0]:
            return 1
        each = (now - before[1]) / (done - before[0])
        return max(1, min(CHECK_EVERY, int(CHECK_S / each)))
