"""What a page shows, in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_words(data: Mapping[str, Any]) -> list[str]:
    """Return the best outcomes of a search, or the diagnosis of a run.

    data: as `raydual.report.page.gather` returns it.
    """
    if data["kind"] == "search":
        return _picks(data)
    said = data["diagnosis"]
    points = [*(finding["text"] for finding in said["findings"]), said["evidence"]]
    return [said["headline"], *(f"- {point}" for point in points if point)]


def _picks(data: Mapping[str, Any]) -> list[str]:
    if not data["picks"]:
        return ["No trial has come to its end: there is no Pareto front yet"]
    values = {trial["name"]: trial["values"] for trial in data["trials"]}
    keys = [parameter["key"] for parameter in data["parameters"]]
    patiences = [f"{task}.patience" for task in data["tasks"]]
    lines = []
    for name, index in data["picks"].items():
        outcome = data["outcomes"][index]
        patience = dict(zip(patiences, outcome["pairs"][0], strict=True))
        chosen = dict(zip(keys, values[outcome["trial"]], strict=True)) | patience
        losses = ", ".join(f"{task} {loss:g}" for task, loss in outcome["best"].items())
        settings = " ".join(f"{key}={_value(value)}" for key, value in chosen.items())
        label = name.replace("best_", "Best ").replace("knee", "Knee").ljust(len("Best coord"))
        lines.append(
            f"{label}  trial {outcome['trial']}: {losses}, {outcome['cost']:g} worker-seconds; "
            f"{settings}"
        )
    return lines


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
