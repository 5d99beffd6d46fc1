"""Read off a training's history what smaller patiences would have given.

The path of a training does not depend on patience, only its end does: the training with the
largest patience passes through the end of every smaller one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raydual.tasks import TASKS
from raydual.training.early_stopping import EarlyStopping

Epoch = Mapping[str, Any]
"""A line of metrics.jsonl."""


@dataclass(frozen=True)
class Ending:
    """Where a training ends and what it has by then.

    epoch: the last one. bests: best validation loss, by task; absent where none was finite.
    cost: worker-seconds up to there, of training and validation. ended: whether patience or
    `train.epochs` ended it; else the history was cut before.
    """

    epoch: int
    bests: dict[str, float]
    cost: float
    ended: bool


def costs(history: Sequence[Epoch], workers: int) -> list[float]:
    """Return the worker-seconds spent by the end of each epoch."""
    seconds = (line["train/seconds"] + line["val/seconds"] for line in history)
    return [total * max(1, workers) for total in itertools.accumulate(seconds)]


def with_costs(history: Sequence[Epoch], workers: int) -> list[dict[str, Any]]:
    """Return the lines of a history, each with the `cost` by its end, in worker-seconds."""
    spent = costs(history, workers)
    return [{**line, "cost": cost} for line, cost in zip(history, spent, strict=True)]


def ending(
    history: Sequence[Epoch],
    patience: Mapping[str, int],
    min_delta: Mapping[str, float],
    *,
    stop: str,
    epochs: int,
    workers: int,
    forgotten: int = 0,
) -> Ending | None:
    """Run the stopping rule of the training along a history; None for an empty one.

    patience, min_delta: by task. stop: `all` or `any`, as `train.stop`. epochs: `train.epochs`.
    forgotten: the number of first epochs that do not count, see `train.best_after`.
    """
    stoppers = {
        t.name: EarlyStopping(patience[t.name], min_delta[t.name], forgotten) for t in TASKS
    }
    ended, last = False, 0
    for line in history:
        for task in TASKS:
            stoppers[task.name].update(line.get(task.monitor, math.nan))
        exhausted = [stopper.exhausted for stopper in stoppers.values()]
        last += 1
        ended = (all if stop == "all" else any)(exhausted) or line["epoch"] >= epochs
        if ended:
            break
    if not last:
        return None
    bests = {name: s.best for name, s in stoppers.items() if math.isfinite(s.best)}
    return Ending(history[last - 1]["epoch"], bests, costs(history, workers)[last - 1], ended)


def pairs(replayed: Mapping[str, Sequence[int]], own: Mapping[str, int]) -> list[dict[str, int]]:
    """Return every combination of patiences by task, smallest first.

    replayed: the values to read off, by task. own: the trained value of the other tasks.
    """
    options = [replayed.get(task.name, [own[task.name]]) for task in TASKS]
    names = [task.name for task in TASKS]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*options)]
