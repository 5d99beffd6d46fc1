"""A search on disk: its settings, its driver's state, its trials.

runs/NAME/
  search.yaml                the search file as given, and the configuration it starts from
  driver.json                whether the driver runs, and when it last said so
  study.db                   Optuna's study
  trials/0003/               a run folder, and trial.json: values, state, reason
  results.parquet            a row an epoch of a trial
  results.json               everything the report shows
  best_coord.yaml, ...       configurations for `raydual train --config`
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from socket import gethostname
from typing import Any

import psutil
import pyarrow.fs as pafs
import yaml

from raydual.config import build, parse
from raydual.config_tree import Config
from raydual.data.storage import join, open_filesystem
from raydual.errors import ConfigError
from raydual.training.run_folder import RunFolder
from raydual.tuning.replay import with_costs
from raydual.tuning.space import Search, build_search

SEARCH_FILE = "search.yaml"
DRIVER_FILE = "driver.json"
TRIAL_FILE = "trial.json"
STUDY_FILE = "study.db"
SILENT_S = 60.0
"""A driver on another host that has not been heard of for so long is gone."""

CLOCK_S = 5.0
"""How far the start of a process may move when the clock of its host is set."""


@dataclass(frozen=True)
class TrialRecord:
    """What trial.json says.

    values: the configuration's dotted keys, as trained. state: `waiting`, `running`, `finished`,
    `stopped` (by the trial scheduler), `failed` (by an error of its own) or `lost` (with its
    process or node).
    """

    name: str
    values: dict[str, Any]
    state: str
    reason: str | None

    @property
    def open(self) -> bool:
        """Whether it goes on when the search is resumed."""
        return self.state in ("waiting", "running", "lost")


class SearchFolder:
    """Reads and writes the folder of one search, local or in a bucket."""

    def __init__(self, path: str) -> None:
        self.folder = RunFolder.at(path)
        self.path, self.name = self.folder.path, self.folder.name
        self.trials_path = join(self.path, "trials")

    @property
    def exists(self) -> bool:
        """Whether there is a search here."""
        return self.folder.read(SEARCH_FILE) is not None

    def save_settings(self, search: Search, config: Config) -> None:
        """Write search.yaml.

        Raises:
            ConfigError: the folder cannot be written.
        """
        tree = {
            "search": search.model_dump(exclude_none=True),
            "config": config.model_dump(),
        }
        self.folder.write(SEARCH_FILE, yaml.safe_dump(tree, sort_keys=False).encode())

    def settings(self) -> tuple[Search, Config]:
        """Read search.yaml.

        Raises:
            ConfigError: there is none, or it is not what `save_settings` writes.
        """
        content = self.folder.read(SEARCH_FILE)
        if content is None:
            raise ConfigError(f"{self.path} is no search: it has no {SEARCH_FILE}")
        tree = parse(content.decode(errors="replace"), f"{self.path}/{SEARCH_FILE}")
        try:
            return build_search(tree["search"]), build(tree["config"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self.path}/{SEARCH_FILE} is damaged: {error!r}") from None

    def save_driver(self, state: str) -> None:
        """Say that the driver is `running`, `interrupted` or `finished`."""
        content = {
            "state": state,
            "time": time.time(),
            "host": gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }
        self.folder.write(DRIVER_FILE, json.dumps(content).encode())

    def state(self) -> str:
        """Return the driver's state; one that is gone is `interrupted`.

        Raises:
            ConfigError: driver.json is not what `save_driver` writes.
        """
        try:
            content = json.loads(self.folder.read(DRIVER_FILE) or b'{"state": "interrupted"}')
            if content["state"] != "running":
                return str(content["state"])
            if content["host"] == gethostname():
                gone = not _runs(content["pid"], content["started"])
            else:
                gone = time.time() - content["time"] > SILENT_S
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{self.path}/{DRIVER_FILE} is damaged ({error!r}); remove it if nothing searches"
            ) from None
        return "interrupted" if gone else "running"

    def trial(self, name: str) -> RunFolder:
        """Return the run folder of a trial."""
        return RunFolder(self.trials_path, name)

    def save_trial(self, record: TrialRecord) -> None:
        """Write a trial's trial.json."""
        content = {"values": record.values, "state": record.state, "reason": record.reason}
        self.trial(record.name).write(TRIAL_FILE, json.dumps(content, indent=1).encode())

    def trials(self) -> list[TrialRecord]:
        """Return all trials, by name."""
        filesystem, root = open_filesystem(self.trials_path)
        entries = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))
        names = sorted(e.base_name for e in entries if e.type == pafs.FileType.Directory)
        records = []
        for name in names:
            if (record := read_record(self.trial(name))) is not None:
                records.append(record)
        return records

    def history(self, name: str, workers: int) -> list[dict[str, Any]]:
        """Return a trial's epochs so far, with their costs; see `with_costs`."""
        return with_costs(self.trial(name).history(), workers)


def read_record(trial: RunFolder) -> TrialRecord | None:
    """Return what trial.json says in the folder of a trial; None in that of a run.

    Raises:
        ConfigError: it is not what `SearchFolder.save_trial` writes.
    """
    content = trial.read(TRIAL_FILE)
    try:
        return None if content is None else TrialRecord(name=trial.name, **json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{trial.path}/{TRIAL_FILE} is damaged ({error!r}); correct it, or move the folder away"
        ) from None


def _runs(pid: int, started: float) -> bool:
    """Whether that process runs; a later one that was given its number is another."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < CLOCK_S
    except psutil.NoSuchProcess:
        return False
