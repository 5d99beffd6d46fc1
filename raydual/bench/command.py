"""`raydual bench`: measure each row in a process of its own, one after the other, and print."""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from raydual.bench.ending import end, exits_on_sigterm
from raydual.bench.rows import Row, base_config, images_needed, rows
from raydual.bench.tables import print_report, report
from raydual.config import with_values
from raydual.config_tree import Config
from raydual.data.formats import synthetic
from raydual.data.schema import shards, write_dataset
from raydual.data.storage import absolute
from raydual.errors import ConfigError, RaydualError, TrainingError
from raydual.version import __version__

SYNTHETIC = "synthetic"
ONCE = "machine"
"""The table that is measured once: what it says does not depend on the load."""


def bench(
    config: Config, device: str, iterations: int, rounds: int, only: Sequence[str]
) -> dict[str, Any]:
    """Measure rows side by side; return the report (see `tables.report`).

    rounds: how often each row is measured, in turn with the others.

    Raises:
        RaydualError: the device, the data, the trunk or a name in `only` cannot be used.
        TrainingError: a row could not be measured.
    """
    chosen = rows(only, device)
    plan = [(n, row) for n in range(rounds) for row in chosen if n == 0 or row.table != ONCE]
    started = time.perf_counter()
    with (
        exits_on_sigterm(),
        tempfile.TemporaryDirectory(prefix="raydual-bench-") as scratch,
        _bar() as bar,
    ):
        task = bar.add_task("drawing images", total=len(plan) + 1)
        config = base_config(config, device, iterations, scratch)
        config = with_values(config, {"data.path": dataset(config, iterations, Path(scratch))})
        found: dict[Row, list[dict[str, Any]]] = {row: [] for row in chosen}
        for number, row in plan:
            about = row.table if row.table == ONCE else f"{row.table}: {row.name}"
            bar.update(task, advance=1, description=about)
            folder = Path(scratch) / f"{number}-{chosen.index(row)}"
            found[row].append(measure(row, config, device, folder))
        bar.update(task, advance=1)
    settings = {
        "code": code(),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "trunk": config.model.trunk,
        "image_size": config.data.image_size,
        "batch_size": config.train.batch_size,
        "lora_r": config.model.lora.r,
        "device": device,
        "iterations": iterations,
        "rounds": rounds,
        "seconds": time.perf_counter() - started,
    }
    return report(settings, {row: median(parts) for row, parts in found.items()})


def measure(row: Row, config: Config, device: str, folder: Path) -> dict[str, Any]:
    """Measure a row in a process of its own, which keeps its run in the folder.

    Raises:
        ConfigError, TrainingError: what the process could not use, or why it ended.
    """
    folder.mkdir(parents=True)
    values = {"run.storage": str(folder), **row.values}
    job: dict[str, Any] = {
        "kind": row.kind,
        "config": with_values(config, values).model_dump(),
        "device": device,
        "cores": row.cores,
        "workers": row.workers,
        "out": str(folder / "figures.json"),
        "started": time.time(),
    }
    (folder / "job.json").write_text(json.dumps(job))
    # the cluster to measure is this machine
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "raydual.bench.worker", str(folder / "job.json")],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate()
    except BaseException:
        end(process)
        raise
    out = Path(job["out"])
    result: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    if "error" in result:
        kind: type[RaydualError] = ConfigError if result["exit_code"] == 2 else TrainingError
        raise kind(f"{row.name}: {result['error']}")
    if process.returncode or not result:
        lines = said.strip().splitlines() or ["it said nothing"]
        raise TrainingError(f"{row.name} ended with exit code {process.returncode}: {lines[-1]}")
    return result


def show(found: dict[str, Any], as_json: bool, out: Path | None) -> None:
    """Print the report as tables or as JSON, and write its JSON into a file where one is given."""
    text = json.dumps(found, indent=1)
    if out is not None:
        out.write_text(text + "\n")
    if as_json:
        print(text)
    else:
        print_report(found, Console(width=None if sys.stdout.isatty() else 120, highlight=False))


def median(parts: Sequence[Any]) -> Any:
    """Return the medians of what several rounds gave, number by number."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: median([part[key] for part in parts if key in part]) for key in first}
    if isinstance(first, int | float) and not isinstance(first, bool):
        return first if len(parts) == 1 else statistics.median(parts)
    return first


def check_out(out: Path | None) -> None:
    """Find before anything is measured whether the file can be written.

    Raises:
        ConfigError: its folder is not there, or it is a folder.
    """
    if out is not None and (not out.absolute().parent.is_dir() or out.is_dir()):
        raise ConfigError(f"--out: got {out}; expected a file in a folder that is there")


def code() -> str:
    """Return the version, and the commit where this is a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # no git
        return __version__
    return f"{__version__} ({done.stdout.strip() or 'unknown commit'})"


def dataset(config: Config, iterations: int, scratch: Path) -> str:
    """Return the path of the data; images are drawn where none are given.

    Raises:
        DataError: a split is missing.
    """
    if config.data.path != SYNTHETIC:
        path = absolute(config.data.path)
        for split in ("train", "val"):
            shards(path, split)
        return path
    images = images_needed(config, iterations)
    drawing = synthetic.SynthConfig(images=images, splits=(0.9, 0.05, 0.05))
    write_dataset(synthetic.rows(drawing), scratch / "data", source="bench")
    return str(scratch / "data")


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
