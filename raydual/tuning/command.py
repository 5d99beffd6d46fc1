"""`raydual tune`: start or resume a search, show it, print what it found."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

import typer

from raydual.config import with_values
from raydual.config_tree import Config
from raydual.tuning.begin import new_search, resumed_search
from raydual.tuning.checks import load_search
from raydual.tuning.files import SearchFolder
from raydual.tuning.space import Search, split_key
from raydual.tuning.table import SearchTable, print_results

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended."""


def start_search(file: Path, overrides: Sequence[str]) -> bool:
    """Run a new search; return whether any trial came to its end.

    Raises:
        RaydualError: what is wrong, before the first trial.
    """
    search, config = load_search(file, overrides)
    if config.run.name is None:
        name = f"{file.stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        config = with_values(config, {"run.name": name})
    folder, config = new_search(search, config)
    return _run(folder, search, config)


def resume_search(path: str, overrides: Sequence[str]) -> bool:
    """Go on with a search; return whether any trial has come to its end.

    Raises:
        RaydualError: what is wrong, before any trial goes on.
    """
    return _run(*resumed_search(path, overrides))


def _run(folder: SearchFolder, search: Search, config: Config) -> bool:
    from raydual.tuning.search import run_search

    keys = [part for key in search.sampled for part in split_key(key)]
    with SearchTable(search.trials, keys) as table:
        for record in folder.trials():
            history = folder.history(record.name, config.scale.max_workers)
            table.recall(record, history[-1] if history else {})
        try:
            found = run_search(folder, search, config, table)
        except KeyboardInterrupt:
            table.console.print(
                f"Interrupted. Go on with: raydual tune --resume {_shown(folder)}", markup=False
            )
            raise typer.Exit(INTERRUPTED) from None
    print_results(table.console, found)
    path = _shown(folder)
    lost = [record.name for record in folder.trials() if record.open]
    if lost:
        table.console.print(
            f"Lost with their process: {', '.join(lost)}. Go on with: raydual tune --resume {path}",
            markup=False,
        )
    table.console.print(f"Results are in {path}; look at them: raydual report {path}", markup=False)
    return bool(found["front"])


def _shown(folder: SearchFolder) -> str:
    """Return the folder's path, from here if it lies below."""
    if "://" in folder.path or not folder.path.startswith(f"{os.getcwd()}/"):
        return folder.path
    return os.path.relpath(folder.path)
