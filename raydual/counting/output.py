"""What `raydual count` prints: a table to read, or JSON or CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydual.counting.one_count import Counted
from raydual.errors import printable


@dataclass(frozen=True)
class Entry:
    """One counted file; picture: where its annotated copy lies, if one was written."""

    file: Path
    category: str
    counted: Counted
    picture: Path | None


def as_table(entries: Sequence[Entry]) -> str:
    """Return a table with a row an image, as wide as its content."""
    table = Table("image", box=box.SIMPLE)
    table.add_column("count", justify="right")
    table.add_column("done", justify="right")
    table.add_column("stopped")
    table.add_column("looks", justify="right")
    for entry in entries:
        counted = entry.counted
        done = f"{counted.done[-1]:.0%}" if counted.done else ""
        looks = f"{len(counted.done):,}"
        name = escape(printable(str(entry.file)))
        table.add_row(name, f"{counted.count:,}", done, counted.stopped, looks)
    total = sum(entry.counted.count for entry in entries)
    table.add_row(f"{len(entries)} image{'s' * (len(entries) != 1)}", f"{total:,}")
    text = io.StringIO()
    console = Console(file=text, width=10_000, highlight=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def as_json(entries: Sequence[Entry]) -> str:
    """Return a list with an object an image, each on a line; points in counting order."""
    lines = ",\n".join(json.dumps(_values(entry)) for entry in entries)
    return f"[{lines}]"


def as_csv(entries: Sequence[Entry]) -> str:
    """Return a row an image, with the points as `x y; x y` and `done` as it was at the end.

    `looks` and `sure` have a number a point, in the order of the points.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = ("image", "category", "count", "stopped", "done", "points", "picture", "looks", "sure")
    table.writerow(names)
    for values in map(_values, entries):
        values["done"] = values["done"][-1] if values["done"] else ""
        values["points"] = "; ".join(f"{x} {y}" for x, y in values["points"])
        values["picture"] = values["picture"] or ""
        for name in ("looks", "sure"):
            values[name] = "; ".join(map(str, values[name]))
        table.writerow(values.values())
    return text.getvalue().rstrip("\n")


FORMS: Mapping[str, Callable[[Sequence[Entry]], str]] = {
    "table": as_table,
    "json": as_json,
    "csv": as_csv,
}


def _values(entry: Entry) -> dict:
    counted = entry.counted
    return {
        "image": str(entry.file),
        "category": entry.category,
        "count": counted.count,
        "stopped": counted.stopped,
        "done": [round(chance, 6) for chance in counted.done],
        "points": counted.points.round(3).tolist(),
        "picture": None if entry.picture is None else str(entry.picture),
        "looks": counted.looks.tolist(),
        "sure": counted.sure.round(6).tolist(),
    }
