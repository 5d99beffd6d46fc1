"""The live table of a search."""

from __future__ import annotations

import io

from rich.console import Console

from raydual.tuning.files import TrialRecord
from raydual.tuning.table import SearchTable


def test_a_resumed_search_shows_what_was_there() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=110, height=30, color_system=None)
    reason = "done: its loss is not finite in iteration 3 of epoch 1, with a learning rate of 1e30"
    with SearchTable(3, ["coord.lr"], console) as table:
        table.recall(TrialRecord("0000", {"coord.lr": 1e-3}, "failed", reason), {})
        table.recall(TrialRecord("0001", {"coord.lr": 2e-3}, "lost", "its node"), {"epoch": 4})
        table.show(TrialRecord("0001", {"coord.lr": 2e-3}, "running", None), {"epoch": 5})
        before = screen.getvalue()
        table.show(TrialRecord("0001", {"coord.lr": 2e-3}, "finished", None), {"epoch": 6})
    assert "failed: done: its loss is not finite" in before
    assert "…" in before
    assert "1/3" in before
    assert "running" in before
    assert "2/3" in screen.getvalue()[len(before) :]
