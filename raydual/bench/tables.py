"""What was measured, as tables: one mapping for JSON, and the same for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from raydual.bench.rows import LOOP, Row
from raydual.bench.stopwatch import ALONE

FIXED = (*ALONE, "processor")
"""Phases that come before the passes of the tasks; "rest" comes after them."""


def report(settings: Mapping[str, Any], found: Mapping[Row, Any]) -> dict[str, Any]:
    """Put together what the rows gave: settings, machine, loop, ratios, data, scaling.

    Every rate is per second, every memory in GiB, `ms` in milliseconds an iteration.
    """
    by_table: dict[str, dict[str, Any]] = {"loop": {}, "data": {}, "scaling": {}}
    machine: dict[str, Any] = {}
    for row, figures in found.items():
        if row.table == "machine":
            machine = dict(figures)
        else:
            by_table[row.table][row.name] = figures
    for name, figures in by_table["loop"].items():
        passes = "mixed" if name == "mixed" else "dual"
        per_s = machine["iteration_flops"][passes] * figures["iterations_per_s"]
        figures["model_flops_per_s"] = per_s
        figures["share_of_ceiling"] = per_s / machine["ceiling_flops_per_s"]
    return {
        "settings": dict(settings),
        **machine,
        "loop": by_table["loop"],
        "ratios": ratios(by_table, settings["device"]),
        "data": by_table["data"],
        "scaling": by_table["scaling"],
    }


def ratios(tables: Mapping[str, Mapping[str, Any]], device: str) -> dict[str, float]:
    """Return how rows compare, as far as they were measured."""
    loop, scaling, data = tables["loop"], list(tables["scaling"].values()), tables["data"]
    memory = "device_peak_gib" if device == "cuda" else "host_peak_gib"
    found: dict[str, float] = {}

    def compare(name: str, one: str, other: str, key: str, factor: float = 1.0) -> None:
        if one in loop and other in loop and loop[other][key]:
            found[name] = factor * loop[one][key] / loop[other][key]

    compare("dual over reference, iterations/s", "dual", "reference", "iterations_per_s")
    compare("dual over reference, peak memory", "dual", "reference", memory)
    compare("ray over dual, iterations/s", "ray", "dual", "iterations_per_s")
    compare("dual over mixed, passes/s", "dual", "mixed", "iterations_per_s", 2.0)
    compare("dual over mixed, peak memory", "dual", "mixed", memory)
    compare("dual over independent, peak memory", "dual", "independent", memory)
    if "dual" in loop:
        ours = loop["dual"]
        found["dual, waiting for data"] = ours["ms"]["waiting for data"] / ours["ms_iteration"]
    if len(data) == 2:
        torchs, rays = data.values()
        key = "later_rows_per_core_s"
        found["stream over DataLoader, rows per core-second"] = rays[key] / torchs[key]
    if len(scaling) == 2:
        one, two = (figures["images_per_s"] for figures in scaling)
        found["2 workers over 1, images/s"] = two / one
    return found


def print_report(found: Mapping[str, Any], console: Console) -> None:
    """Print the report as Markdown tables."""
    console.print(*headings(found), sep="\n", soft_wrap=True)
    for table in (loop_table, ratio_table, data_table, scaling_table):
        if (made := table(found)) is not None:
            console.print(made)


def headings(found: Mapping[str, Any]) -> list[str]:
    """Return the lines above the tables: what was measured, on what."""
    settings, machine = found["settings"], found["machine"]
    where = machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}"
    flops = found["iteration_flops"]
    return [
        f"{settings['date']}, {where}; raydual {settings['code']}, python {machine['python']}, "
        f"torch {machine['torch']}, ray {machine['ray']}, transformers {machine['transformers']}",
        f"trunk {settings['trunk']}, {settings['image_size']} px, batch {settings['batch_size']}, "
        f"LoRA rank {settings['lora_r']}, {found['dtype']}, {machine['threads']} thread(s)",
        f"3 epochs of {settings['iterations']} iterations a row, {settings['rounds']} round(s), "
        f"{settings['seconds']:.0f} s in all",
        f"matrix product: {found['ceiling_flops_per_s'] / 1e9:,.1f} GFLOP/s; an iteration: "
        f"{flops['dual'] / 1e9:,.2f} GFLOP in two passes, {flops['mixed'] / 1e9:,.2f} in one",
    ]


def phases(loop: Mapping[str, Any]) -> list[str]:
    """Return the phases of all rows in the order in which they come."""
    seen = {name: None for figures in loop.values() for name in figures["ms"]}
    passes = [name for name in seen if name not in (*FIXED, "rest")]
    passes.sort(key=lambda name: name.startswith("mixed"))
    return [*(name for name in FIXED if name in seen), *passes, "rest"]


def loop_table(found: Mapping[str, Any]) -> Table | None:
    """Return the loops side by side, a column each."""
    loop = found["loop"]
    if not loop:
        return None
    names = [name for name in LOOP if name in loop]
    table = _table("loop", *names)

    def add(label: str, key: str, form: str, factor: float = 1) -> None:
        table.add_row(label, *(format(loop[name][key] * factor, form) for name in names))

    add("iterations/s", "iterations_per_s", ".2f")
    add("images/s", "images_per_s", ".1f")
    if "reference" in loop:
        base = loop["reference"]["iterations_per_s"]
        times = (f"{loop[name]['iterations_per_s'] / base:.2f}" for name in names)
        table.add_row("times the reference", *times)
    add("model GFLOP/s", "model_flops_per_s", ",.1f", 1e-9)
    add("share of the matrix product", "share_of_ceiling", ".1%")
    add("ms an iteration", "ms_iteration", ".2f")
    for phase in phases(loop):
        parts = (loop[name]["ms"].get(phase) for name in names)
        table.add_row(f"  {phase}", *("" if ms is None else f"{ms:.2f}" for ms in parts))
    add("peak host memory, GiB", "host_peak_gib", ".2f")
    add("  of it since the model, GiB", "host_growth_gib", ".2f")
    if found["settings"]["device"] == "cuda":
        add("peak device memory, GiB", "device_peak_gib", ".2f")
    add("process start to first iteration, s", "start_up_s", ".1f")
    add("first batch of later epochs, ms", "first_batch_s", ".1f", 1000)
    add("validation an epoch, s", "validation_s", ".2f")
    add("checkpoint and logs an epoch, s", "saving_s", ".2f")
    return table


def ratio_table(found: Mapping[str, Any]) -> Table | None:
    """Return how the rows compare."""
    if not found["ratios"]:
        return None
    table = _table("ratio", "")
    for name, value in found["ratios"].items():
        table.add_row(name, f"{value:.1%}" if "waiting" in name else f"{value:.2f}")
    return table


def data_table(found: Mapping[str, Any]) -> Table | None:
    """Return rows per second from Parquet to finished batches, without a model."""
    if not found["data"]:
        return None
    table = _table("data, no model", "rows/s, first epoch", "later", "rows/core-s, first", "later")
    for name, figures in found["data"].items():
        table.add_row(name, *(f"{value:,.0f}" for value in _rates(figures)))
    return table


def scaling_table(found: Mapping[str, Any]) -> Table | None:
    """Return the same training by one worker and by two."""
    if not found["scaling"]:
        return None
    table = _table("scaling", "iterations/s x workers", "images/s", "ms an iteration", "ratio")
    workers = {name: int(name.split()[0]) for name in found["scaling"]}
    first = next(iter(found["scaling"].values()))["images_per_s"]
    for name, figures in found["scaling"].items():
        each = (figures["iterations_per_s"] * workers[name], figures["images_per_s"])
        table.add_row(
            name,
            *(f"{value:.1f}" for value in (*each, figures["ms_iteration"])),
            f"{figures['images_per_s'] / first:.2f}",
        )
    return table


def _rates(figures: Mapping[str, float]) -> list[float]:
    units = ("rows_per_s", "rows_per_core_s")
    return [figures[f"{when}_{unit}"] for unit in units for when in ("first", "later")]


def _table(*columns: str) -> Table:
    table = Table(box=box.MARKDOWN, pad_edge=True)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table
