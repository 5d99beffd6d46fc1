"""How a search begins, or goes on: its folder, and what is wrong with it, before Ray is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from raydual.config import load, with_values
from raydual.config_tree import Config
from raydual.data.storage import join
from raydual.errors import ConfigError
from raydual.training.launch import TRUST, with_absolute_paths
from raydual.tuning.checks import check_space
from raydual.tuning.files import SILENT_S, TRIAL_FILE, SearchFolder
from raydual.tuning.resources import with_resources
from raydual.tuning.space import Search, build_search, split_key


def new_search(search: Search, config: Config) -> tuple[SearchFolder, Config]:
    """Return the folder of a search, `config.run.name` under `config.run.storage`, still empty.

    The configuration comes back with absolute paths, and with what the search says of resources.

    Raises:
        ConfigError: there is something in that folder already, or a share of a GPU is wrong.
    """
    config = with_absolute_paths(with_resources(search, config))
    folder = SearchFolder(join(config.run.storage, str(config.run.name)))
    if folder.folder.exists():
        raise ConfigError(
            f"{folder.path} is there already; go on with `raydual tune --resume {folder.path}`, "
            "or take another run.name"
        )
    return folder, config


def resumed_search(path: str, overrides: Sequence[str]) -> tuple[SearchFolder, Search, Config]:
    """Return a search to go on with; overrides: `num_samples`, `concurrency`, or `TRUST`.

    It trusts code that comes with a trunk only if the overrides do.

    Raises:
        ConfigError: there is no search there, its driver still runs, another key is given, or a
            trial has a value that is not of the search space.
    """
    folder = SearchFolder(path)
    search, config = folder.settings()
    for override in overrides:
        key = override.partition("=")[0]
        if key not in ("num_samples", "concurrency", TRUST):
            raise ConfigError(
                f"{key}: only num_samples and concurrency can change in a search that goes on; "
                "start another search"
            )
    trust = [override for override in overrides if override.startswith(TRUST)]
    config = load(None, trust, base=with_values(config, {TRUST: False}).to_yaml())
    overrides = [override for override in overrides if override not in trust]
    _check_trials(folder, search)
    if folder.state() == "running":
        raise ConfigError(
            f"the driver of {folder.path} runs, or ended on another machine less than "
            f"{SILENT_S:g} s ago; end it, or wait"
        )
    search = build_search(search.model_dump(exclude_none=True), overrides)
    return folder, check_space(search, config), config


def _check_trials(folder: SearchFolder, search: Search) -> None:
    """Find trials that would change what the search does not: whoever made the folder wrote them.

    Raises:
        ConfigError: there is one.
    """
    known = {part for key in search.space for part in split_key(key)}
    for record in folder.trials():
        for key in record.values:
            if key not in known:
                raise ConfigError(
                    f"{folder.trial(record.name).path}/{TRIAL_FILE} has a value for {key}, which "
                    "is not in the search space; remove it, or move the folder away"
                )
