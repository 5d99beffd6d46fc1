"""`raydual doctor`: look at everything a training needs, and say whether it would do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydual.config import DEFAULT_PRESET, load, read_yaml
from raydual.doctor import here
from raydual.doctor.check import Check
from raydual.errors import ConfigError

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def examine(
    file: Path | None, overrides: Sequence[str], preset: str | None, cluster_file: Path | None
) -> list[Check]:
    """Look at everything that a training, or the search of a search file, needs.

    Raises:
        ConfigError: the configuration, the search file or the cluster file is wrong.
    """
    searched = file is not None and "space" in read_yaml(file)
    if searched and preset is not None:
        raise ConfigError("--preset: a search file names its own; give base.preset in the file")
    config = None if searched else load(file, overrides, preset or DEFAULT_PRESET)
    versions = here.versions()
    if versions.verdict == "fail":
        return [versions]  # nothing else can be relied on to load
    from raydual.doctor.everything import look
    from raydual.doctor.growth import read_cluster_file

    search = None
    if config is None:
        from raydual.tuning.checks import load_search
        from raydual.tuning.resources import with_resources

        assert file is not None
        search, config = load_search(file, overrides)
        config = with_resources(search, config)
    growth = read_cluster_file(cluster_file) if cluster_file else None
    with Console(stderr=True).status("Looking"):
        return [versions, *look(config, search, growth)]


def show(checks: Sequence[Check], as_json: bool) -> bool:
    """Print what was found; return whether it would do."""
    fits = all(check.verdict != "fail" for check in checks)
    if as_json:
        found = [dataclasses.asdict(check) for check in checks]
        print(json.dumps({"fits": fits, "checks": found}, indent=1))
        return fits
    table = Table("check", "found", "", box=None, pad_edge=False)
    for check in checks:
        colour = COLOURS[check.verdict]
        table.add_row(check.name, escape(check.found), f"[{colour}]{check.verdict}[/]")
    console = Console()
    console.print(table)
    for check in checks:
        if check.remedy:
            text = f"{check.verdict}: {check.name}: {check.remedy}"
            console.print(text, style=COLOURS[check.verdict], markup=False, highlight=False)
    console.print("Fit for training." if fits else "Not fit: see what failed.")
    return fits
