"""Code that comes with a folder runs only where the command says so, whatever the folder says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydual.config import with_values
from raydual.errors import ConfigError
from raydual.training.launch import resume_command, resumed
from raydual.tuning.begin import resumed_search
from raydual.tuning.files import SearchFolder, TrialRecord
from tests.report.searches import add_trial, new_search

TRUST = "model.trust_remote_code"


def handed_run(config: Callable, folder: Path) -> str:
    """Write a run that says of itself that it is to be trusted."""
    (folder / "latest_checkpoint").mkdir(parents=True)
    (folder / "latest_checkpoint" / "raydual.json").write_text("{}")
    (folder / "config.yaml").write_text(config(f"{TRUST}=true", "seed=7").to_yaml())
    return str(folder)


def test_a_run_is_not_trusted_for_saying_so(small: Callable, tmp_path: Path) -> None:
    run = handed_run(small, tmp_path / "r")
    config = resumed(run, None, [])
    assert config.seed == 7
    assert not config.model.trust_remote_code
    trusted = resumed(run, None, [f"{TRUST}=true"])
    assert trusted.model.trust_remote_code
    assert resume_command(config, "r") == "raydual train --resume r"
    assert resume_command(trusted, "r") == f"raydual train --resume r {TRUST}=true"


def handed_search(folder: Path) -> SearchFolder:
    made = new_search(folder)
    search, config = made.settings()
    made.save_settings(search, with_values(config, {TRUST: True, "seed": 7}))
    return made


def test_a_search_is_not_trusted_for_saying_so(tmp_path: Path) -> None:
    folder = handed_search(tmp_path / "s")
    _, _, config = resumed_search(folder.path, [])
    assert config.seed == 7
    assert not config.model.trust_remote_code
    _, search, config = resumed_search(folder.path, [f"{TRUST}=true", "num_samples=99"])
    assert config.model.trust_remote_code
    assert search.trials == 99


@pytest.mark.parametrize("key", [TRUST, "run.storage", "model.trunk"])
def test_a_trial_changes_only_what_is_searched(tmp_path: Path, key: str) -> None:
    folder = handed_search(tmp_path / "s")
    add_trial(folder, "0000", {"coord.lr": 1e-4, "done.lr": 1e-4}, state="running")
    resumed_search(folder.path, [])
    folder.save_trial(TrialRecord("0001", {"coord.lr": 1e-4, key: "x"}, "waiting", None))
    with pytest.raises(ConfigError, match=f"trial.json has a value for {key}"):
        resumed_search(folder.path, [])
