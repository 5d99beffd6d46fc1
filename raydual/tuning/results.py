"""What a search found: outcomes, the Pareto front, its knee; and the files that keep them."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydual.config import value_of, with_values
from raydual.config_tree import Config
from raydual.tasks import TASKS
from raydual.training.run_folder import CHECKPOINTS
from raydual.tuning.files import SearchFolder, TrialRecord
from raydual.tuning.replay import ending, pairs
from raydual.tuning.space import PATIENCES, Search, most_epochs, split_key

OBJECTIVES = (*(task.best for task in TASKS), "cost")
"""All to be minimised, none ever added to another."""

MUTATED = """\
# The population changed the learning rates of this trial while it trained. These are the last
# ones; those of every epoch are in results.parquet, as train/lr_coord and train/lr_done.
"""

Outcome = dict[str, Any]
"""A trial under one pair of patiences: trial, the patiences, epoch, OBJECTIVES, ended."""


def is_search(path: str) -> bool:
    """Whether a folder holds a search."""
    return SearchFolder(path).exists


def summary(path: str) -> dict[str, Any]:
    """Return the content of results.json, from the folder as it is now.

    Numbers that are not finite become None.

    Raises:
        ConfigError: there is no search in the folder.
    """
    folder = SearchFolder(path)
    search, config = folder.settings()
    state = folder.state()
    records = [_as_it_is(record, state) for record in folder.trials()]
    trials = [_trial(folder, record, search, config) for record in records]
    outcomes = [o for trial in trials for o in trial["outcomes"]]
    best = front(outcomes)
    found: dict[str, Any] = {
        "name": folder.name,
        "path": folder.path,
        "state": state,
        "searcher": search.searcher,
        "trial_scheduler": search.trial_scheduler,
        "patience": search.patience,
        "num_samples": search.trials,
        "epochs": most_epochs(search, config),
        "tasks": [task.name for task in TASKS],
        "objectives": list(OBJECTIVES),
        "parameters": _parameters(search),
        "trials": trials,
        "front": best,
    }
    found |= {f"best_{task.name}": best_by(best, task.best) for task in TASKS}
    return finite(found | {"knee": knee(best)})


def front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that no other one dominates, by the first objective.

    An outcome dominates another if it is nowhere worse and somewhere better (Pareto). Of equal
    ones the first is kept: that with the smallest patience. One that was cut short of its end is
    left out: training it again would not end there.
    """
    ended = [o for o in outcomes if o["ended"]]
    known = [o for o in ended if all(o.get(name) is not None for name in OBJECTIVES)]
    points = _points(known)
    first = np.unique(points, axis=0, return_index=True)[1].tolist() if known else []
    counts = dominators(points)
    kept = [known[i] for i in first if counts[i] == 0]
    return sorted(kept, key=lambda o: [o[name] for name in OBJECTIVES])


def dominators(points: np.ndarray) -> np.ndarray:
    """Count, for each of (N, M) points to be minimised, the points that dominate it; (N,) int.

    The rank of MOGA (Fonseca and Fleming, 1993): 0 on the front.
    """
    return np.array(
        [int(((points <= p).all(1) & (points < p).any(1)).sum()) for p in points], dtype=int
    )


def _points(outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.array([[o[name] for name in OBJECTIVES] for o in outcomes], dtype=float)


def best_by(outcomes: Sequence[Outcome], objective: str) -> Outcome | None:
    """Return the outcome with the smallest objective, the cheapest of equal ones."""
    return min(outcomes, key=lambda o: (o[objective], o["cost"]), default=None)


def knee(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the outcome of a front nearest to the ideal point.

    Each objective is scaled to [0, 1] over the front; the ideal point has the best of each
    (compromise programming, Zeleny 1973).
    """
    if not outcomes:
        return None
    points = _points(outcomes)
    low, high = points.min(0), points.max(0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    return outcomes[int(np.linalg.norm(scaled, axis=1).argmin())]


def write_results(folder: SearchFolder) -> dict[str, Any]:
    """Write results.json, results.parquet and a configuration for each chosen outcome.

    Returns the content of results.json.

    Raises:
        ConfigError: the folder cannot be written.
    """
    search, config = folder.settings()
    found = summary(folder.path)
    folder.folder.write("results.json", json.dumps(found, allow_nan=False).encode())
    table = pa.Table.from_pylist(_rows(found))
    with tempfile.TemporaryDirectory() as scratch:
        pq.write_table(table, Path(scratch) / "results.parquet")
        folder.folder.write("results.parquet", (Path(scratch) / "results.parquet").read_bytes())
    values = {trial["trial"]: trial["values"] for trial in found["trials"]}
    for name in (*(f"best_{task.name}" for task in TASKS), "knee"):
        if (outcome := found[name]) is not None:
            patience = {key: outcome[key] for key in PATIENCES.values()}
            chosen = with_values(config, values[outcome["trial"]] | patience)
            chosen = with_values(chosen, {"run.name": None, "run.resume": False})
            note = MUTATED if search.trial_scheduler == "pbt" else ""
            folder.folder.write(f"{name}.yaml", f"{note}{chosen.to_yaml()}".encode())
    return found


def drop_checkpoints(folder: SearchFolder, found: dict[str, Any]) -> None:
    """Delete the checkpoints of the trials that have ended and are not on the front."""
    kept = {outcome["trial"] for outcome in found["front"]}
    kept |= {record.name for record in folder.trials() if record.open}
    for trial in found["trials"]:
        if trial["trial"] not in kept:
            run = folder.trial(trial["trial"])
            for name in CHECKPOINTS:
                run.remove(name)


def outcomes_of(
    history: Sequence[dict[str, Any]], name: str, config: Config, search: Search
) -> list[Outcome]:
    """Return what a trial gave under each pair of patiences to be read off its history."""
    sections = {task.name: task.settings(config) for task in TASKS}
    own = {name: section.patience for name, section in sections.items()}
    replayed = {
        task: search.replayed[key] for task, key in PATIENCES.items() if key in search.replayed
    }
    found = []
    for patience in pairs(replayed, own):
        end = ending(
            history,
            patience,
            {name: section.min_delta for name, section in sections.items()},
            stop=config.train.stop,
            epochs=config.train.epochs,
            workers=config.scale.max_workers,
            forgotten=config.train.forgotten,
        )
        if end is not None:
            found.append(
                {"trial": name}
                | {PATIENCES[task]: value for task, value in patience.items()}
                | {"epoch": end.epoch}
                | {task.best: end.bests.get(task.name) for task in TASKS}
                | {"cost": end.cost, "ended": end.ended}
            )
    return found


def finite(value: Any) -> Any:
    """Return a tree of plain values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def trial_config(record: TrialRecord, config: Config, trials_path: str) -> Config:
    """Return the configuration of a trial."""
    own = {"run.name": record.name, "run.storage": trials_path}
    return with_values(config, record.values | own)


def _as_it_is(record: TrialRecord, driver: str) -> TrialRecord:
    """Return a trial's record; one at work is interrupted with its driver."""
    if record.state == "running" and driver == "interrupted":
        return replace(record, state=driver)
    return record


def _trial(
    folder: SearchFolder, record: TrialRecord, search: Search, base: Config
) -> dict[str, Any]:
    config = trial_config(record, base, folder.trials_path)
    history = folder.history(record.name, config.scale.max_workers)
    outcomes = outcomes_of(history, record.name, config, search)
    last = history[-1] if history else {}
    return {
        "trial": record.name,
        "state": record.state,
        "reason": record.reason,
        "values": {key: value_of(config, key) for key in _keys(search)},
        "config": config.to_yaml(),
        "epochs": history,
        **{task.best: last.get(task.best) for task in TASKS},
        "cost": last.get("cost"),
        "outcomes": outcomes,
    }


def _keys(search: Search) -> list[str]:
    return [part for key in search.space for part in split_key(key)]


def _parameters(search: Search) -> list[dict[str, Any]]:
    found = []
    for key, domain in search.space.items():
        for i, part in enumerate(split_key(key)):
            values = domain.values
            if "," in key and values is not None:
                values = list(dict.fromkeys(choice[i] for choice in values))
            found.append({"key": part, "log": domain.loguniform is not None, "values": values})
    return found


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row an epoch of each trial; one without epochs for a trial that has none."""
    rows = []
    for trial in found["trials"]:
        about = {"trial": trial["trial"], "state": trial["state"], "reason": trial["reason"]}
        about |= trial["values"]
        rows += [about | epoch for epoch in trial["epochs"] or [{}]]
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]
