"""The verdicts of the two ladders, and the ranks of a population, worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from raydual.tuning.results import dominators
from raydual.tuning.schedulers import TwoTaskHalving, make_scheduler
from raydual.tuning.space import build_search

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


def halving(name: str, **keys: object) -> TwoTaskHalving:
    search = build_search(
        {"space": {"coord.lr": {"uniform": [1, 2]}}, "trial_scheduler": name,
         "halving": {"grace_epochs": 1, "reduction_factor": 2, **keys}}
    )  # fmt: skip
    scheduler = make_scheduler(search, 4)
    assert isinstance(scheduler, TwoTaskHalving)
    return scheduler


def add(scheduler: TwoTaskHalving, name: str) -> Any:
    trial = SimpleNamespace(config={"trial": name})
    scheduler.on_trial_add(None, trial)
    return trial


def result(epoch: int, coord: float, done: float) -> dict[str, float]:
    return {"epoch": epoch, "val/best_loss_coord": coord, "val/best_loss_done": done}


@pytest.mark.parametrize(
    ("name", "coord_behind", "done_behind", "both_behind"),
    [("asha-all", CONTINUE, CONTINUE, STOP), ("asha-any", STOP, STOP, STOP)],
)
def test_one_ladder_a_task(
    name: str, coord_behind: str, done_behind: str, both_behind: str
) -> None:
    scheduler = halving(name)
    first = add(scheduler, "0")
    assert scheduler.on_trial_result(None, first, result(1, 0.5, 0.5)) == CONTINUE
    assert scheduler.on_trial_result(None, add(scheduler, "1"), result(1, 0.9, 0.1)) == coord_behind
    assert scheduler.on_trial_result(None, add(scheduler, "2"), result(1, 0.1, 0.9)) == done_behind
    assert scheduler.on_trial_result(None, add(scheduler, "3"), result(1, 0.8, 0.8)) == both_behind
    assert scheduler.on_trial_result(None, first, result(2, 0.4, 0.4)) == CONTINUE


def test_plain_asha_looks_at_its_metric_alone() -> None:
    scheduler = halving("asha", metric="val/best_loss_done")
    scheduler.on_trial_result(None, add(scheduler, "0"), result(1, 0.5, 0.5))
    assert scheduler.on_trial_result(None, add(scheduler, "1"), result(1, 0.9, 0.4)) == CONTINUE
    assert scheduler.on_trial_result(None, add(scheduler, "2"), result(1, 0.1, 0.9)) == STOP


def test_a_resumed_search_remembers_its_rungs() -> None:
    scheduler = halving("asha-all")
    scheduler.remember("0", [result(1, 0.1, 0.1), result(2, 0.1, 0.1)])
    back = add(scheduler, "0")
    assert scheduler.on_trial_result(None, back, result(3, 0.1, 0.1)) == CONTINUE
    assert scheduler.on_trial_result(None, add(scheduler, "1"), result(1, 0.5, 0.5)) == STOP


def test_dominators_by_hand() -> None:
    points = np.array([[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [1.0, 4.0]])
    assert dominators(points).tolist() == [0, 0, 1, 4, 0]
