"""Patience read off a history: by hand, and against trainings that really stopped there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raydual.tasks import TASKS
from raydual.training.run import run_here
from raydual.training.run_folder import RunFolder
from raydual.tuning.replay import Ending, costs, ending, pairs


def history(coord: list[float], done: list[float]) -> list[dict]:
    return [
        {
            "epoch": i,
            "val/loss_coord": c,
            "val/loss_done": d,
            "train/seconds": 2.0,
            "val/seconds": 0.5,
        }
        for i, (c, d) in enumerate(zip(coord, done, strict=True), start=1)
    ]


COORD = [0.9, 0.5, 0.6, 0.4, 0.7, 0.7, 0.7, 0.3]
DONE = [0.8, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.9]


def end(coord: int, done: int, stop: str = "all", epochs: int = 8, workers: int = 1) -> Ending:
    found = ending(
        history(COORD, DONE),
        {"coord": coord, "done": done},
        {"coord": 0.0, "done": 0.0},
        stop=stop,
        epochs=epochs,
        workers=workers,
    )
    assert found is not None
    return found


def test_endings_worked_out_by_hand() -> None:
    # stalled after each epoch: coord 0 0 1 0 1 2 3 0, done 0 1 2 3 0 1 2 3
    assert end(1, 1) == Ending(3, {"coord": 0.5, "done": 0.8}, 7.5, True)
    assert end(2, 1) == Ending(6, {"coord": 0.4, "done": 0.2}, 15.0, True)
    assert end(2, 2) == Ending(7, {"coord": 0.4, "done": 0.2}, 17.5, True)
    assert end(3, 3).epoch == 8  # never both at 3: ended by train.epochs
    assert end(3, 3).ended
    assert end(1, 5, stop="any") == Ending(3, {"coord": 0.5, "done": 0.8}, 7.5, True)
    assert end(1, 1, workers=4).cost == 30.0


def test_a_history_that_was_cut_has_not_ended() -> None:
    assert end(3, 3, epochs=20) == Ending(8, {"coord": 0.3, "done": 0.2}, 20.0, False)


def test_min_delta_counts_as_in_training() -> None:
    lines = history([0.9, 0.85, 0.7], [0.5, 0.4, 0.3])
    delta = {"coord": 0.1, "done": 0.0}
    patience = {"coord": 1, "done": 9}
    found = ending(lines, patience, delta, stop="any", epochs=9, workers=1)
    assert found == Ending(2, {"coord": 0.9, "done": 0.4}, 5.0, True)


def test_nothing_trained_has_no_ending() -> None:
    zero = {"coord": 0.0, "done": 0.0}
    one = {"coord": 1, "done": 1}
    assert ending([], one, zero, stop="all", epochs=3, workers=1) is None


def test_pairs_take_the_trained_patience_where_none_is_searched() -> None:
    assert pairs({"coord": [1, 2]}, {"coord": 9, "done": 4}) == [
        {"coord": 1, "done": 4},
        {"coord": 2, "done": 4},
    ]


@pytest.mark.parametrize("stop", ["all", "any"])
def test_replay_equals_real_trainings_in_every_digit(small: Callable, stop: str) -> None:
    common = (f"train.stop={stop}", "train.epochs=10", "train.max_iterations=2", "log.images=0",
              "coord.lr=0.01", "done.lr=0.01")  # fmt: skip

    def trained(coord: int, done: int) -> tuple[list[dict], RunFolder]:
        own = (f"coord.patience={coord}", f"done.patience={done}")
        config = small(*common, *own, f"run.name=p{coord}-{done}")
        run_here(config, lambda event: None)
        folder = RunFolder(config.run.storage, f"p{coord}-{done}")
        return folder.history(), folder

    longest, _ = trained(4, 4)
    ends = set()
    for coord, done in ((1, 1), (2, 1), (1, 3), (4, 4)):
        lines, folder = trained(coord, done)
        found = ending(
            longest,
            {"coord": coord, "done": done},
            {"coord": 0.0, "done": 0.0},
            stop=stop,
            epochs=10,
            workers=1,
        )
        assert found is not None
        assert found.epoch == lines[-1]["epoch"]
        assert found.ended
        for task in TASKS:
            assert found.bests[task.name] == lines[-1][task.best]
        assert found.cost == costs(longest, 1)[len(lines) - 1]
        assert folder.has_checkpoint("best_coord_checkpoint")
        ends.add(found.epoch)
    assert len(ends) > 1
