"""The numbers of a search's page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from raydual.errors import ConfigError
from raydual.report.importance import importance
from raydual.report.page import gather, open_folder
from raydual.report.words import in_words
from tests.report.searches import SPACE, add_trial, drawn_search, line, new_search

COORD = [1.0, 0.5, 0.6, 0.4, 0.5, 0.5]
DONE = [0.5, 0.6, 0.6, 0.6, 0.6, 0.6]
PAIRS = {"coord.patience": {"choice": [1, 3]}, "done.patience": {"choice": [1, 3]}}
VALUES = {"coord.lr": 1e-4, "done.lr": 3e-4, "coord.patience": 3, "done.patience": 3}


def data_of(path: Path) -> dict[str, Any]:
    data = gather(open_folder(str(path)))
    json.dumps(data, allow_nan=False)
    return data


@pytest.fixture
def small_search(tmp_path: Path) -> Path:
    """Return a search of a finished trial, one cut short after three epochs and one that failed."""
    folder = new_search(tmp_path / "s", epochs=6, space=SPACE | PAIRS)
    history = [line(i + 1, c, d) for i, (c, d) in enumerate(zip(COORD, DONE, strict=True))]
    add_trial(folder, "0000", VALUES, history)
    add_trial(folder, "0001", VALUES, history[:3], "stopped", "behind in both tasks")
    add_trial(folder, "0002", VALUES, state="failed", reason="loss_coord is not finite")
    return tmp_path / "s"


def test_trials_and_outcomes(small_search: Path) -> None:
    data = data_of(small_search)
    first, _, failed = data["trials"]
    assert first["epochs"] == [1, 2, 3, 4, 5, 6]
    assert first["val"]["coord"] == COORD
    assert first["train"]["done"][0] == 0.45
    assert first["best_epoch"] == {"coord": 4, "done": 1}
    assert first["cost"] == 24.0  # six epochs of 3 + 1 seconds, one worker
    assert failed["best"] == {"coord": None, "done": None}
    assert failed["best_epoch"] == {"coord": None, "done": None}
    assert failed["reason"] == "loss_coord is not finite"
    ends = [(o["epoch"], o["pairs"], o["front"]) for o in data["outcomes"] if o["trial"] == "0000"]
    assert ends == [(3, [[1, 1]], True), (5, [[1, 3]], True), (6, [[3, 1], [3, 3]], False)]
    assert data["outcomes"][data["picks"]["best_coord"]]["epoch"] == 5


def test_the_heat_map(small_search: Path) -> None:
    heat = data_of(small_search)["heat"]
    assert (heat["x"], heat["y"], heat["count"]) == ([1, 3], [1, 3], 1)
    # rows done.patience, columns coord.patience; 0.5 is 25 % above 0.4, and 12 s half of 24 s
    assert heat["all"]["coord"] == [[0.25, 0.0], [0.0, 0.0]]
    assert heat["all"]["done"] == [[0.0, 0.0], [0.0, 0.0]]
    assert heat["all"]["cost"] == [[0.5, 1.0], [0.8333, 1.0]]
    assert heat["trials"]["0000"] == heat["all"]
    assert heat["trials"]["0001"]["coord"] == [[0.0, None], [None, None]]


def test_the_heat_map_of_drawn_patiences_compares_trials(tmp_path: Path) -> None:
    folder = new_search(tmp_path / "s", epochs=2, patience="sample", space=SPACE | PAIRS)
    for name, patience, loss, epochs in (("0000", 1, 0.2, 1), ("0001", 3, 0.1, 2)):
        values = VALUES | {
            "coord.patience": patience,
            "done.patience": patience,
            "train.epochs": epochs,
        }
        add_trial(folder, name, values, [line(e + 1, loss, 0.5) for e in range(epochs)])
    heat = data_of(tmp_path / "s")["heat"]
    assert heat["all"]["coord"] == [[1.0, None], [None, 0.0]]
    assert heat["all"]["cost"] == [[0.5, None], [None, 1.0]]
    assert heat["trials"] == {}


def test_no_heat_map_where_patience_is_not_searched(tmp_path: Path) -> None:
    folder = new_search(tmp_path / "s", epochs=2, space={"coord.lr": SPACE["coord.lr"]})
    add_trial(folder, "0000", {"coord.lr": 1e-4}, [line(1, 0.2, 0.5), line(2, 0.1, 0.4)])
    data = data_of(tmp_path / "s")
    assert data["heat"] is None
    assert [p["key"] for p in data["parameters"]] == ["coord.lr"]


@pytest.mark.parametrize("state", ["waiting", "running", "lost"])
def test_a_search_in_which_nothing_has_happened(tmp_path: Path, state: str) -> None:
    folder = new_search(tmp_path / "s")
    assert data_of(tmp_path / "s")["trials"] == []
    add_trial(folder, "0000", VALUES, state=state)
    data = data_of(tmp_path / "s")
    assert data["picks"] == {}
    assert data["outcomes"] == []
    assert data["importance"]["shares"] == {}
    assert in_words(data) == ["No trial has come to its end: there is no Pareto front yet"]


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    folder = new_search(tmp_path / "s", epochs=3)
    history = [line(1, 0.2, 0.5), line(2, math.nan, 0.4), line(3, math.inf, 0.3)]
    add_trial(folder, "0000", VALUES, history)
    (trial,) = data_of(tmp_path / "s")["trials"]
    assert trial["val"]["coord"] == [0.2, None, None]
    assert trial["best"]["coord"] == 0.2


def test_values_that_are_texts(tmp_path: Path) -> None:
    space = {"train.strategy": {"choice": ["dual", "mixed"]}, "coord.lr": SPACE["coord.lr"]}
    folder = new_search(tmp_path / "s", epochs=1, space=space)
    for i, strategy in enumerate(["dual", "mixed"] * 4):
        values = {"train.strategy": strategy, "coord.lr": 1e-4 * (i + 1)}
        good = strategy == "dual"
        add_trial(folder, f"{i:04d}", values, [line(1, 0.1 + 0.1 * good, 0.5 - 0.1 * good)])
    data = data_of(tmp_path / "s")
    shares = data["importance"]["shares"]
    assert shares["coord"]["train.strategy"] > shares["coord"]["coord.lr"]
    assert any("train.strategy=mixed" in text for text in in_words(data))


def summary_of_random_trials(count: int) -> dict[str, Any]:
    """Return trials whose coord loss hangs on coord.lr alone, and done loss on done.lr."""
    trials = []
    for i in range(count):
        lrs = {"coord.lr": 10 ** -(2 + i / count), "done.lr": 10 ** -(2 + i * 7 % count / count)}
        outcome = {"val/best_loss_coord": lrs["coord.lr"], "val/best_loss_done": lrs["done.lr"]}
        trials.append({"state": "finished", "values": lrs, "outcomes": [outcome] * 16})
    return {
        "tasks": ["coord", "done"],
        "objectives": ["val/best_loss_coord", "val/best_loss_done", "cost"],
        "parameters": [{"key": k, "log": True, "values": None} for k in ("coord.lr", "done.lr")],
        "trials": trials,
    }


@pytest.mark.parametrize("count", [30, 200])
def test_importance_finds_the_parameter_that_decides(count: int) -> None:
    found = importance(summary_of_random_trials(count))
    for task in ("coord", "done"):
        assert found["shares"][task][f"{task}.lr"] > 0.9
        assert sum(found["shares"][task].values()) == pytest.approx(1, abs=1e-3)
    assert found == importance(summary_of_random_trials(count))


def test_importance_needs_four_trials() -> None:
    found = importance(summary_of_random_trials(3))
    assert found["shares"] == {}
    assert "trials that have ended: 3;" in found["note"]


def test_importance_of_trials_that_do_not_differ() -> None:
    summary = summary_of_random_trials(5)
    for trial in summary["trials"]:
        trial |= {key: summary["trials"][0][key] for key in ("values", "outcomes")}
    assert importance(summary)["shares"] == {}


def test_a_large_search_stays_small(tmp_path: Path) -> None:
    drawn_search(tmp_path / "s", 40)
    assert len(json.dumps(data_of(tmp_path / "s"))) < 40 * 4000


def test_a_damaged_trial_is_one_line(small_search: Path) -> None:
    (small_search / "trials/0001/metrics.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"damaged") as raised:
        data_of(small_search)
    assert "\n" not in str(raised.value)
