"""What stands between a search's folder and Ray Tune: proposals in, what became of them out."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import ray.tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from raydual.tuning.files import SearchFolder, TrialRecord
from raydual.tuning.space import Search
from raydual.tuning.study import Study
from raydual.tuning.table import SearchTable

HEARTBEAT_S = 5.0


class _NotRestored:
    """Ray pickles what a Tuner is given, for `Tuner.restore`; a search is resumed otherwise."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Proposals(_NotRestored, Searcher):
    """First the trials of an interrupted search, then what the study proposes."""

    def __init__(
        self,
        folder: SearchFolder,
        search: Search,
        study: Study,
        left: list[TrialRecord],
        new: int,
    ) -> None:
        super().__init__()
        self._folder, self._search, self._study = folder, search, study
        self._left, self._new = list(left), new

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the values of a trial, and its name as `trial`."""
        if self._left:
            record = self._left.pop(0)
        elif self._new:
            self._new -= 1
            trial, drawn = self._study.ask()
            record = TrialRecord(f"{trial:04d}", self._search.settings(drawn), "waiting", None)
            self._folder.save_trial(record)
        else:
            return Searcher.FINISHED
        return {"trial": record.name, **record.values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `Watch` tells the study."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is in sqlite, the trials in their folders."""


class Watch(_NotRestored, ray.tune.Callback):
    """Writes down where each trial is, tells the study, shows the table."""

    def __init__(self, folder: SearchFolder, study: Study, table: SearchTable) -> None:
        self._folder, self._study, self._table = folder, study, table
        self._beat = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Say from time to time that the driver is alive."""
        self._table.refresh()
        if time.monotonic() - self._beat > HEARTBEAT_S:
            self._beat = time.monotonic()
            self._folder.save_driver("running")

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial begins, or goes on."""
        self._note(trial, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any
    ) -> None:
        """A trial has finished an epoch."""
        self._table.show(_record(trial, "running"), result)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial has come to its end, of itself or by the trial scheduler."""
        result = trial.last_result or {}
        reason = result.get("failed")
        state = "failed" if reason else "finished" if result.get("ended") else "stopped"
        self._note(trial, state, reason)
        self._study.tell(int(trial.config["trial"]), {} if reason else result)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial was lost with its process, or raised something unforeseen."""
        error = _error_of(trial)
        lost = isinstance(error, RayActorError)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        self._note(trial, "lost" if lost else "failed", (lines or ["no reason given"])[-1][:300])
        if not lost:
            self._study.tell(int(trial.config["trial"]), {})

    def _note(self, trial: Trial, state: str, reason: str | None = None) -> None:
        record = _record(trial, state, reason)
        self._folder.save_trial(record)
        self._table.show(record, trial.last_result or {})


def _error_of(trial: Trial) -> Exception | str:
    """Return what ended a trial: Ray writes it here, but looks for it in storage, too early."""
    if trial.pickled_error_file is not None:
        error: Exception = pickle.loads(  # noqa: S301 - of Ray, in its session
            Path(trial.pickled_error_file).read_bytes()
        )
        return error
    return Path(trial.error_file).read_text() if trial.error_file else ""


def _record(trial: Trial, state: str, reason: str | None = None) -> TrialRecord:
    values = {key: value for key, value in trial.config.items() if key != "trial"}
    return TrialRecord(trial.config["trial"], values, state, reason)
