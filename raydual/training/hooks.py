"""What a training tells whoever runs it, and what it can be asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

CHECK_EVERY = 20
"""Iterations from one agreement of several ranks to the next."""


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


def agreed(
    requested: Callable[[], Request], done: int, last: bool, device: torch.device
) -> Request:
    """Return the largest request of any rank.

    A collective, and not free: several ranks ask every `CHECK_EVERY` iterations only, and after
    the last of an epoch.
    """
    if not dist.is_initialized():
        return requested()
    if done % CHECK_EVERY and not last:
        return Request.NOTHING
    largest = torch.tensor(int(requested()), device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return Request(int(largest))
