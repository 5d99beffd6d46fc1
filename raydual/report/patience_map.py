"""What each pair of patiences costs and gives: the numbers of the heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from raydual.report.numbers import is_finite, short

Outcome = Mapping[str, Any]
Grid = list[list[float | None]]
"""A row a patience of the second task, a column a patience of the first; None: not known."""


def patience_map(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the heat map of a search, None where it has not tried several pairs.

    Of a pair it says by task how much larger the best loss is than the reference (0: as good),
    and which share of the largest cost it has. Where patiences are read off every trial's history
    a trial is its own reference; else the whole search is.

    summary: as `raydual.tuning.results.summary` returns it.

    Returns `x`, `y`: the patiences of the first and the second task. `all`: a Grid by task and
    one of `cost`, medians over trials. `trials`: the same for each trial, by its name; empty
    where a trial has one pair only. `count`: over how many trials the medians go.
    """
    keys = [f"{task}.patience" for task in summary["tasks"][:2]]
    outcomes = [o for t in summary["trials"] for o in t["outcomes"] if all(k in o for k in keys)]
    x, y = (sorted({o[key] for o in outcomes}) for key in keys)
    if len(x) * len(y) < 2:
        return None
    measures = dict(zip([*summary["tasks"], "cost"], summary["objectives"], strict=True))
    own = summary["patience"] == "replay"
    trials = {t["trial"]: t["outcomes"] for t in summary["trials"] if t["outcomes"]}
    grids, whole = {}, []
    for name, found in trials.items():
        ended = [o for o in found if o["ended"]]
        if not ended:
            continue
        shares = _shares(ended, found if own else outcomes, measures)
        grids[name] = {m: _grid(values, keys, x, y) for m, values in shares.items()}
        whole += [grids[name]] if len(ended) == len(found) else []
    return {
        "x": x,
        "y": y,
        "all": {m: _median([grids[m] for grids in whole], len(y), len(x)) for m in measures},
        "trials": grids if own else {},
        "count": len(whole),
    }


def _shares(
    ended: Sequence[Outcome], reference: Sequence[Outcome], measures: Mapping[str, str]
) -> dict[str, list[tuple[Outcome, float | None]]]:
    """Return each outcome's place against a reference: excess of a loss, share of a cost."""
    found = {}
    for measure, name in measures.items():
        known = [o[name] for o in reference if is_finite(o.get(name))]
        base = (max if measure == "cost" else min)(known, default=0.0)
        less = 0.0 if measure == "cost" else 1.0
        found[measure] = [
            (o, o[name] / base - less if base > 0 and is_finite(o.get(name)) else None)
            for o in ended
        ]
    return found


def _grid(
    values: Sequence[tuple[Outcome, float | None]],
    keys: Sequence[str],
    x: Sequence[int],
    y: Sequence[int],
) -> Grid:
    at = {tuple(o[key] for key in keys): short(value) for o, value in values}
    return [[at.get((column, row)) for column in x] for row in y]


def _median(grids: Sequence[Grid], rows: int, columns: int) -> Grid:
    cells = [
        [[g[r][c] for g in grids if g[r][c] is not None] for c in range(columns)]
        for r in range(rows)
    ]
    return [[short(median(cell)) if cell else None for cell in row] for row in cells]  # type: ignore[type-var]
