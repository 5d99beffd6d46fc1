"""What the page of a single run shows, as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from raydual.config_tree import Config, TaskSection
from raydual.report.diagnosis import diagnose
from raydual.report.numbers import is_finite, short
from raydual.report.pictures import pictures
from raydual.tasks import TASKS
from raydual.training.early_stopping import EarlyStopping
from raydual.training.run_folder import CONFIG_FILE, RunFolder

History = Sequence[Mapping[str, Any]]
SHOWN = ("train/lr_", "train/grad_norm_", "train/grad_cosine", "val/px_median", "val/done_accuracy")
"""The metrics on the page beside the losses, by the beginning of their names."""


def run_data(folder: RunFolder) -> dict[str, Any]:
    """Return the page of a run, finished or not.

    Raises:
        ConfigError: metrics.jsonl or config.yaml is not what a training writes.
    """
    history = folder.history()
    text = (folder.read(CONFIG_FILE) or b"").decode(errors="replace")
    config = folder.config() or Config()
    tasks = [task.name for task in TASKS]
    local = folder.local()
    losses = [f"{split}/loss_{task}" for task in tasks for split in ("train", "val")]
    names = dict.fromkeys(name for line in history for name in line if name.startswith(SHOWN))
    return {
        "kind": "run",
        "name": folder.name,
        "path": folder.path,
        "tasks": tasks,
        "max_epochs": config.train.epochs if text else None,
        "epochs": [line["epoch"] for line in history],
        "metrics": {n: [short(line.get(n)) for line in history] for n in (*losses, *sorted(names))},
        "stops": {
            t.name: stops(history, t.name, t.settings(config), config.train.forgotten)
            for t in TASKS
        },
        "diagnosis": asdict(diagnose(history, tasks)),
        "pictures": pictures(local / "samples") if local else [],
        "config": text,
    }


def stops(
    history: History, task: str, settings: TaskSection, forgotten: int = 0
) -> dict[str, int | None]:
    """Return where a task's training stops to pay.

    forgotten: the number of first epochs that do not count, see `train.best_after`.

    best: the epoch of its best checkpoint. exhausted: the one in which its patience was used up.
    Each is None where it has not come to that.
    """
    stopper = EarlyStopping(settings.patience, settings.min_delta, forgotten)
    best, exhausted = None, None
    for line in history:
        loss = line.get(f"val/loss_{task}")
        if stopper.update(loss if is_finite(loss) else math.nan):
            best, exhausted = line["epoch"], None
        elif stopper.exhausted and exhausted is None:
            exhausted = line["epoch"]
    return {"best": best, "exhausted": exhausted}
