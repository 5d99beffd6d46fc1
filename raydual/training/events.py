"""What a training tells whoever runs it, in a module that loads nothing: events cross processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave, the same on every rank.

    metrics: `train/*` and `val/*`, means over all examples of all ranks. improved: the tasks with
    a new best validation loss. stalled: validations without improvement, by task. ended: whether
    patience ends the training here. bad_rows: id and reason of images that were skipped.
    """

    epoch: int
    metrics: dict[str, float]
    improved: list[str]
    stalled: dict[str, int]
    ended: bool
    bad_rows: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """How far something long has come: an epoch's iterations, say."""

    label: str
    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """A line for the user."""

    text: str


Event = Step | Note | EpochResult
OnEvent = Callable[[Event], None]
