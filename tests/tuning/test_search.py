"""Searches on a real Ray cluster: stops, failures, interruptions, populations, nested trainers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
import yaml

from raydual.config import load
from raydual.config_tree import Config
from raydual.errors import ConfigError
from raydual.tasks import TASKS
from raydual.training.run import run_here
from raydual.training.run_folder import RunFolder
from raydual.tuning.begin import new_search, resumed_search
from raydual.tuning.files import SearchFolder, TrialRecord
from raydual.tuning.results import summary
from raydual.tuning.search import run_search
from raydual.tuning.space import build_search
from raydual.tuning.table import SearchTable
from raydual.tuning.trainable import TrialRunner

LR = {"coord.lr": {"loguniform": [1e-4, 1e-2]}, "done.lr": {"loguniform": [1e-4, 1e-2]}}
ONE = ("scale.num_workers=1", "scale.cpus_per_worker=1", "log.images=0", "train.max_val_batches=3")


def searched(config: Config, **keys: object) -> tuple[SearchFolder, dict]:
    search = build_search({"space": LR, "searcher": "random", **keys})
    folder, config = new_search(search, config)
    table = SearchTable(search.trials, list(search.sampled))
    return folder, run_search(folder, search, config, table)


def states(found: dict) -> dict[str, str]:
    return {trial["trial"]: trial["state"] for trial in found["trials"]}


def test_a_search_ends_in_a_front_files_and_configurations(
    cluster: None, small: Callable, tmp_path: Path
) -> None:
    space = LR | {"coord.patience": {"choice": [1, 2]}, "done.patience": {"choice": [1, 3]}}
    folder, found = searched(small(*ONE, "train.epochs=3"), num_samples=3, space=space)
    path = Path(folder.path)
    assert states(found) == dict.fromkeys(("0000", "0001", "0002"), "finished")
    assert found == json.loads((path / "results.json").read_text())
    assert len(found["trials"][0]["outcomes"]) == 4
    rows = pq.read_table(path / "results.parquet").to_pylist()
    assert {(row["trial"], row["epoch"]) for row in rows} == {
        (trial["trial"], epoch["epoch"]) for trial in found["trials"] for epoch in trial["epochs"]
    }
    assert all(row["coord.lr"] and row["val/loss_coord"] and row["val/loss_done"] for row in rows)
    on_front = {outcome["trial"] for outcome in found["front"]}
    for name in states(found):
        for task in ("coord", "done"):
            kept = folder.trial(name).has_checkpoint(f"best_{task}_checkpoint")
            assert kept == (name in on_front)
    study = f"sqlite:///{path}/study.db"
    import optuna

    trials = optuna.load_study(study_name=folder.name, storage=study).trials
    assert [t.values is not None and len(t.values) for t in trials] == [3, 3, 3]

    # the exported configuration trains to the very same bests, and ends where the replay says
    best = found["best_coord"]
    config = load(path / "best_coord.yaml", [f"run.storage={tmp_path}", "run.name=again",
                                             "scale.num_workers=0"])  # fmt: skip
    run_here(config, lambda event: None)
    last = RunFolder(str(tmp_path), "again").history()[-1]
    assert last["epoch"] == best["epoch"]
    assert last["val/best_loss_coord"] == pytest.approx(best["val/best_loss_coord"], rel=1e-5)


def with_a_better_trial(folder: SearchFolder) -> None:
    """Put a trial there that was trained before, and is better than any that follows."""
    folder.save_trial(TrialRecord("better", {"coord.lr": 1e-3}, "finished", None))
    for epoch in range(1, 5):
        line = {"train/seconds": 1.0, "val/seconds": 1.0}
        for task in TASKS:
            line |= {task.monitor: 1e-6, task.best: 1e-6}
        folder.trial("better").record(epoch, line)


@pytest.mark.parametrize("scheduler", ["asha-all", "asha-any"])
def test_stops_leave_room_for_the_next_trials(
    cluster: None, small: Callable, scheduler: str
) -> None:
    search = build_search(
        {"space": {"coord.lr": {"choice": [1e-4 * i for i in range(1, 8)]}},
         "searcher": "grid", "trial_scheduler": scheduler, "concurrency": 1}
    )  # fmt: skip
    folder, config = new_search(search, small(*ONE, "train.epochs=4"))
    with_a_better_trial(folder)
    found = run_search(folder, search, config, SearchTable(7, ["coord.lr"]))
    ended = states(found)
    assert ended.pop("better") == "finished"
    assert list(ended.values()) == ["stopped"] * 6
    assert max(len(trial["epochs"]) for trial in found["trials"] if trial["trial"] in ended) < 4


def test_trials_of_several_workers_stop_and_leave_nothing_behind(
    cluster: None, small: Callable
) -> None:
    search = build_search(
        {"space": {"train.epochs": {"choice": [4, 1, 2]}}, "searcher": "grid",
         "trial_scheduler": "asha", "halving": {"metric": "val/loss_coord"}, "concurrency": 1}
    )  # fmt: skip
    workers = ("scale.num_workers=2", "scale.cpus_per_worker=0.3")
    config = small(*workers, "log.images=0", "train.max_val_batches=3")
    folder, config = new_search(search, config)
    with_a_better_trial(folder)
    found = run_search(folder, search, config, SearchTable(3, ["train.epochs"]))
    # the second has found room, and too few epochs to be stopped
    assert states(found) == {"better": "finished", "0000": "stopped", "0001": "finished"}
    assert [len(trial["epochs"]) for trial in found["trials"]] == [1, 1, 4]
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2.0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources().get("CPU") == 2.0


def test_a_trial_that_diverges_costs_only_itself(cluster: None, small: Callable) -> None:
    space = {"coord.lr": {"choice": [1e30, 1e-3, 1e-4]}}
    config = small(*ONE, "train.epochs=2", "coord.warmup=0")
    _, found = searched(config, space=space, searcher="grid", concurrency=1)
    assert states(found) == {"0000": "failed", "0001": "finished", "0002": "finished"}
    assert "is not finite" in found["trials"][0]["reason"]
    assert found["trials"][0]["outcomes"] == []
    assert {outcome["trial"] for outcome in found["front"]} <= {"0001", "0002"}


def test_a_trial_lost_with_its_process_keeps_its_checkpoints_and_goes_on(
    cluster: None, small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrialRunner.step

    def dies_in_the_second_epoch(self: TrialRunner) -> dict:
        if self._folder.history():
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self)

    monkeypatch.setattr(TrialRunner, "step", dies_in_the_second_epoch)
    config = small(*ONE, "train.epochs=4", "coord.patience=4")
    folder, _ = searched(config, num_samples=1)
    monkeypatch.undo()
    (record,) = folder.trials()
    assert record.state == "lost"
    assert "died" in str(record.reason) or "dead" in str(record.reason)
    assert folder.state() == "interrupted"
    assert folder.trial(record.name).has_checkpoint("latest_checkpoint")
    before = folder.trial(record.name).history()
    resumed, search, config = resumed_search(folder.path, [])
    run_search(resumed, search, config, SearchTable(1, list(search.sampled)))
    (record,) = folder.trials()
    assert (record.state, folder.state()) == ("finished", "finished")
    assert folder.trial(record.name).history()[: len(before)] == before


def test_a_trial_that_raises_gives_its_reason(
    cluster: None, small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object) -> None:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(TrialRunner, "step", fails)
    folder, found = searched(small(*ONE), num_samples=1)
    (record,) = folder.trials()
    assert (record.state, found["front"]) == ("failed", [])
    assert record.reason == "RuntimeError: out of memory, say"


def test_a_population_changes_both_learning_rates(cluster: None, small: Callable) -> None:
    config = small(
        *ONE, "train.epochs=5", "coord.patience=9", "done.patience=9", "coord.warmup=0",
        "done.warmup=0", "coord.lr_schedule=constant", "done.lr_schedule=constant",
    )  # fmt: skip
    folder, found = searched(config, trial_scheduler="pbt", num_samples=3)
    assert set(states(found).values()) == {"finished"}
    assert all(len(trial["epochs"]) == 5 for trial in found["trials"])
    histories = [folder.trial(trial["trial"]).history() for trial in found["trials"]]
    for task in TASKS:
        rates = [{line[f"train/lr_{task.name}"] for line in history} for history in histories]
        assert any(len(seen) > 1 for seen in rates), rates


def test_a_killed_search_goes_on(small: Callable, tmp_path: Path) -> None:
    """A driver killed with SIGKILL, and resumed at once."""
    config = small(*ONE)
    base = {
        "data.path": config.data.path, "data.image_size": 48, "train.batch_size": 4,
        "train.max_iterations": 3, "train.max_val_batches": 3, "train.epochs": 8,
        "scale.num_workers": 1, "scale.cpus_per_worker": 1, "log.images": 0,
        "log.wandb": "disabled", "coord.patience": 50, "done.patience": 50,
    }  # fmt: skip
    file = tmp_path / "search.yaml"
    file.write_text(yaml.safe_dump({"base": {"overrides": base}, "space": LR, "num_samples": 3}))
    command = [sys.executable, "-m", "raydual", "tune", str(file), "run.name=s"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    driver = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    folder = SearchFolder(str(tmp_path / "runs" / "s"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(folder.trials()) >= 2 and len(folder.trial("0001").history()) >= 2:
            break
        time.sleep(0.2)
    with pytest.raises(ConfigError, match=r"the driver .* runs"):
        resumed_search(folder.path, [])
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {r.name: folder.trial(r.name).history() for r in folder.trials()}
    assert summary(folder.path)["state"] == "interrupted"

    done = subprocess.run(
        [sys.executable, "-m", "raydual", "tune", "--resume", "runs/s"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = summary(folder.path)
    assert states(found) == dict.fromkeys(("0000", "0001", "0002"), "finished")
    assert found["state"] == "finished"
    assert "Pareto front" in done.stdout
    for name, lines in before.items():
        after = folder.trial(name).history()
        assert len(after) == 8
        whole = max(0, len(lines) - 1)  # the last epoch may have been cut before its checkpoint
        assert after[:whole] == lines[:whole], "a resumed trial went on, not from nothing"
