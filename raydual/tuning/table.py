"""A search in the terminal: one live table while it runs, the front at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raydual.tasks import TASKS
from raydual.training.events import Event, Note, Step
from raydual.tuning.files import TrialRecord
from raydual.tuning.results import Outcome
from raydual.tuning.space import PATIENCES

COLOURS = {"running": "cyan", "finished": "green", "stopped": "yellow"}
REFRESH_S = 0.5
WIDTH = 120
"""Of what is written to a file or a pipe."""
REASON = 60
"""The most characters of a state with its reason."""

BESTS = [f"best {task.name}" for task in TASKS]


class SearchTable:
    """The live table; where there is no terminal, a line for each trial that has ended."""

    def __init__(self, total: int, keys: Sequence[str], console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self._keys = list(keys)
        self._rows: dict[str, tuple[TrialRecord, Mapping[str, Any]]] = {}
        self._bar = Progress(
            TextColumn("Trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._task = self._bar.add_task("", total=total)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._drawn = 0.0

    def __enter__(self) -> SearchTable:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Print a note, or show how far the preparation of the search has come."""
        if isinstance(event, Note):
            self.console.print(event.text, markup=False)
        elif isinstance(event, Step) and self.console.is_terminal:
            progress = ProgressBar(event.total, event.done, width=40)
            label = f"{event.label} {event.done}/{event.total}"
            self._live.update(Group(label, progress), refresh=True)

    def show(self, record: TrialRecord, metrics: Mapping[str, Any]) -> None:
        """Show where a trial is; metrics: what it reported last."""
        known = self._rows.get(record.name)
        self._rows[record.name] = (record, metrics or (known[1] if known else {}))
        ended = not record.open
        if ended and not (known and not known[0].open):
            self._bar.advance(self._task)
            if not self.console.is_terminal:
                self.console.print(self._line(record), markup=False)
        self.refresh(now=ended)

    def recall(self, record: TrialRecord, metrics: Mapping[str, Any]) -> None:
        """Take in a trial of before a search was interrupted; metrics: of its last epoch."""
        self._rows[record.name] = (record, metrics)
        if not record.open:
            self._bar.advance(self._task)

    def refresh(self, *, now: bool = False) -> None:
        """Draw the table again, at most twice a second unless asked to."""
        if self.console.is_terminal and (now or time.monotonic() - self._drawn > REFRESH_S):
            self._drawn = time.monotonic()
            self._live.update(Group(self._table(), self._bar), refresh=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("trial", *self._keys, "epoch", *BESTS, "state"):
            table.add_column(heading, justify="left" if heading in ("trial", "state") else "right")
        for record, metrics in self._visible():
            state = f"{record.state}: {record.reason}" if record.reason else record.state
            shown = Text(state, COLOURS.get(record.state, "red"))
            shown.truncate(REASON, overflow="ellipsis")
            table.add_row(*map(Text, self._cells(record, metrics)), shown)
        return table

    def _visible(self) -> list[tuple[TrialRecord, Mapping[str, Any]]]:
        """Return what fits the terminal: the trials at work, and the last of the others."""
        room = max(4, self.console.height - 6)
        rows = list(self._rows.values())
        working = [row for row in rows if row[0].state == "running"]
        others = [row for row in rows if row[0].state != "running"]
        shown = others[-max(1, room - len(working)) :] + working[:room]
        return sorted(shown, key=lambda row: row[0].name)

    def _cells(self, record: TrialRecord, metrics: Mapping[str, Any]) -> list[str]:
        values = [number(record.values.get(key)) for key in self._keys]
        bests = [number(metrics.get(task.best)) for task in TASKS]
        return [record.name, *values, str(metrics.get("epoch", "")), *bests]

    def _line(self, record: TrialRecord) -> str:
        metrics = self._rows[record.name][1]
        values = " ".join(f"{key}={number(record.values.get(key))}" for key in self._keys)
        bests = " ".join(f"{t.best}={number(metrics.get(t.best))}" for t in TASKS)
        reason = f" ({record.reason})" if record.reason else ""
        return (
            f"Trial {record.name}: {values}  epoch {metrics.get('epoch', 0)} {bests} "
            f"cost={number(metrics.get('cost'))} s  {record.state}{reason}"
        )


def print_results(console: Console, found: Mapping[str, Any]) -> None:
    """Print the Pareto front, and which of it is best by what; or why there is none."""
    chosen: list[tuple[str, Outcome | None]] = [
        *((f"best {task.name}", found[f"best_{task.name}"]) for task in TASKS),
        ("knee", found["knee"]),
    ]
    searched = [p["key"] for p in found["parameters"] if p["key"] not in PATIENCES.values()]
    values = {trial["trial"]: trial["values"] for trial in found["trials"]}
    if not found["front"]:
        console.print("No trial has come to its end: there is no front yet")
        return
    console.print(f"Pareto front, {len(found['front'])} outcomes of {len(values)} trials:")
    table = Table(box=None, pad_edge=False)
    for heading in ("trial", *searched, "patience", "epoch", *BESTS, "cost, s", ""):
        table.add_column(heading, justify="left" if heading in ("trial", "") else "right")
    for outcome in found["front"]:
        table.add_row(
            outcome["trial"],
            *(Text(number(values[outcome["trial"]][key])) for key in searched),
            "/".join(str(outcome[key]) for key in PATIENCES.values()),
            str(outcome["epoch"]),
            *(number(outcome[task.best]) for task in TASKS),
            f"{outcome['cost']:.1f}",
            ", ".join(name for name, one in chosen if one == outcome),
        )
    console.print(table)


def number(value: Any) -> str:
    """Return a value with four significant digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
