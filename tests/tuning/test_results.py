"""Front, bests and knee by hand; the folder of a search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydual.config import load
from raydual.errors import ConfigError
from raydual.tuning.files import SearchFolder, TrialRecord
from raydual.tuning.results import best_by, front, is_search, knee, summary, write_results
from raydual.tuning.space import build_search


def outcome(name: str, coord: float | None, done: float, cost: float, ended: bool = True) -> dict:
    losses = {"val/best_loss_coord": coord, "val/best_loss_done": done}
    return {"trial": name, **losses, "cost": cost, "ended": ended}


A, B, C = outcome("a", 0.1, 0.9, 10.0), outcome("b", 0.5, 0.5, 5.0), outcome("c", 0.9, 0.1, 10.0)
WORSE = outcome("w", 0.6, 0.5, 5.0)
CUT = outcome("cut", 0.0, 0.0, 1.0, ended=False)
LOST = outcome("lost", None, 0.0, 1.0)


def test_a_front_has_what_nothing_dominates() -> None:
    assert front([WORSE, B, CUT, C, A, LOST]) == [A, B, C]
    assert front([CUT]) == []
    assert front([A, dict(A, trial="same")]) == [A]


def test_a_cheaper_one_stays_however_bad() -> None:
    cheap = outcome("cheap", 1.0, 1.0, 1.0)
    assert front([A, cheap]) == [A, cheap]


def test_bests_and_knee() -> None:
    assert best_by([A, B, C], "val/best_loss_coord") == A
    assert best_by([A, outcome("e", 0.1, 0.9, 3.0)], "val/best_loss_coord")["trial"] == "e"
    # scaled to [0, 1]: a (0, 1, 1), b (0.5, 0.5, 0), c (1, 0, 1)
    assert knee([A, B, C]) == B
    assert knee([]) is None
    assert best_by([], "cost") is None


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    space = {"coord.lr": {"loguniform": [1e-4, 1e-2]}, "coord.patience": {"choice": [1, 2]}}
    search = build_search({"space": space, "num_samples": 2})
    made = SearchFolder(str(tmp_path / "s"))
    made.save_settings(search, load(None, ["train.epochs=3", "run.name=s", "data.path=/d"]))
    return made


def test_a_summary_of_what_is_there(folder: SearchFolder) -> None:
    folder.save_driver("running")
    values = {"coord.lr": 1e-3, "coord.patience": 2}
    folder.save_trial(TrialRecord("0000", values, "finished", None))
    folder.save_trial(TrialRecord("0001", values, "waiting", None))
    run = folder.trial("0000")
    for epoch, coord in ((1, 0.5), (2, 0.6), (3, float("nan"))):
        seconds = {"train/seconds": 1.0, "val/seconds": 1.0}
        losses = {"val/loss_coord": coord, "val/loss_done": 0.3, "val/best_loss_done": 0.3}
        run.record(epoch, losses | seconds | {"val/best_loss_coord": 0.5})
    found = write_results(folder)
    assert found == summary(folder.path)
    assert found == json.loads((Path(folder.path) / "results.json").read_text())
    assert found["state"] == "running"
    assert found["epochs"] == 3
    assert found["parameters"][0] == {"key": "coord.lr", "log": True, "values": None}
    first, second = found["trials"]
    assert [o["epoch"] for o in first["outcomes"]] == [3, 3]
    assert first["epochs"][2]["val/loss_coord"] is None
    assert first["cost"] == 12.0  # two workers
    assert (second["state"], second["outcomes"], second["cost"]) == ("waiting", [], None)
    best = load(Path(folder.path) / "best_coord.yaml")
    assert (best.coord.lr, best.coord.patience, best.run.name) == (1e-3, 1, None)


def test_a_trial_at_work_is_interrupted_with_its_driver(folder: SearchFolder) -> None:
    values = {"coord.lr": 1e-3, "coord.patience": 2}
    folder.save_trial(TrialRecord("0000", values, "running", None))
    folder.save_driver("running")
    assert summary(folder.path)["trials"][0]["state"] == "running"
    folder.save_driver("interrupted")
    assert summary(folder.path)["trials"][0]["state"] == "interrupted"
    assert folder.trials()[0].open


def test_a_population_says_that_its_learning_rates_are_the_last(folder: SearchFolder) -> None:
    search, config = folder.settings()
    folder.save_settings(search.model_copy(update={"trial_scheduler": "pbt"}), config)
    folder.save_trial(
        TrialRecord("0000", {"coord.lr": 1e-3, "coord.patience": 2}, "finished", None)
    )
    for epoch in (1, 2, 3):
        losses = dict.fromkeys(("val/loss_coord", "val/loss_done"), 0.3 / epoch)
        bests = dict.fromkeys(("val/best_loss_coord", "val/best_loss_done"), 0.3 / epoch)
        seconds = {"train/seconds": 1.0, "val/seconds": 1.0}
        folder.trial("0000").record(epoch, losses | bests | seconds)
    write_results(folder)
    knee = Path(folder.path) / "knee.yaml"
    assert knee.read_text().startswith("# The population changed the learning rates")
    assert load(knee).coord.lr == 1e-3


def test_what_is_no_search_is_said_so(tmp_path: Path) -> None:
    assert not is_search(str(tmp_path))
    with pytest.raises(ConfigError, match=r"is no search: it has no search\.yaml"):
        summary(str(tmp_path))
    (tmp_path / "search.yaml").write_text("search: 3")
    with pytest.raises(ConfigError):
        summary(str(tmp_path))
