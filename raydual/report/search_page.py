"""What the page of a search shows, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raydual.report.importance import importance
from raydual.report.numbers import is_finite, short
from raydual.report.patience_map import patience_map

PICKS = "knee"


def search_data(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the page of a search, running or not.

    summary: as `raydual.tuning.results.summary` returns it.

    Of the trials' epochs only the losses are kept, with four digits. Outcomes of a trial that end
    in the same epoch are one, with all their pairs of patiences. `picks`: the index of an outcome
    by what it is best at.
    """
    tasks = list(summary["tasks"])
    outcomes = _outcomes(summary)
    about = [
        "name",
        "path",
        "state",
        "searcher",
        "trial_scheduler",
        "patience",
        "num_samples",
        "epochs",
        "tasks",
        "parameters",
    ]
    return {
        "kind": "search",
        **{key: summary[key] for key in about},
        "trials": [_trial(trial, summary) for trial in summary["trials"]],
        "outcomes": outcomes,
        "picks": _picks(summary, outcomes, [*(f"best_{task}" for task in tasks), PICKS]),
        "heat": patience_map(summary),
        "importance": importance(summary),
    }


def _trial(trial: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    tasks, objectives = summary["tasks"], summary["objectives"]
    epochs = trial["epochs"]
    curves: dict[str, Any] = {
        split: {task: [short(e.get(f"{split}/loss_{task}")) for e in epochs] for task in tasks}
        for split in ("train", "val")
    }
    return {
        "name": trial["trial"],
        "state": trial["state"],
        "reason": trial["reason"],
        "values": [short(trial["values"].get(p["key"])) for p in summary["parameters"]],
        "best": {t: short(trial[name]) for t, name in zip(tasks, objectives, strict=False)},
        "cost": short(trial["cost"]),
        "config": trial["config"],
        "epochs": [e["epoch"] for e in epochs],
        **curves,
        "best_epoch": {task: _best_epoch(epochs, f"val/loss_{task}") for task in tasks},
    }


def _best_epoch(epochs: Sequence[Mapping[str, Any]], name: str) -> int | None:
    finite = [(e[name], e["epoch"]) for e in epochs if is_finite(e.get(name))]
    return min(finite)[1] if finite else None


def _outcomes(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    tasks, objectives = summary["tasks"], summary["objectives"]
    front = {_key(o, tasks) for o in summary["front"]}
    found: dict[tuple[str, int, bool], dict[str, Any]] = {}
    for trial in summary["trials"]:
        for o in trial["outcomes"]:
            place = (o["trial"], o["epoch"], o["ended"])
            merged = found.setdefault(
                place,
                {
                    "trial": o["trial"],
                    "epoch": o["epoch"],
                    "ended": o["ended"],
                    "best": {t: short(o[n]) for t, n in zip(tasks, objectives, strict=False)},
                    "cost": short(o["cost"]),
                    "pairs": [],
                    "front": False,
                },
            )
            merged["pairs"].append([o.get(f"{task}.patience") for task in tasks])
            merged["front"] |= _key(o, tasks) in front
    return list(found.values())


def _picks(
    summary: Mapping[str, Any], outcomes: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, int]:
    places = {(o["trial"], o["epoch"], o["ended"]): i for i, o in enumerate(outcomes)}
    chosen = {name: summary[name] for name in names if summary[name] is not None}
    return {name: places[o["trial"], o["epoch"], o["ended"]] for name, o in chosen.items()}


def _key(outcome: Mapping[str, Any], tasks: Sequence[str]) -> tuple[Any, ...]:
    return (outcome["trial"], *(outcome.get(f"{task}.patience") for task in tasks))
