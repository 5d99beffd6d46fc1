"""Searches and runs on disk, as a training would have left them, without training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raydual.config import load
from raydual.tuning.files import SearchFolder, TrialRecord
from raydual.tuning.results import trial_config
from raydual.tuning.space import build_search

PATIENCES = [2, 3, 5, 8]
SPACE = {
    "coord.lr": {"loguniform": [1e-5, 1e-2]},
    "done.lr": {"loguniform": [1e-5, 1e-2]},
    "coord.patience": {"choice": PATIENCES},
    "done.patience": {"choice": PATIENCES},
}


def line(epoch: int, coord: float, done: float, **more: Any) -> dict[str, Any]:
    """Return an epoch of metrics.jsonl; training losses a tenth below those of validation."""
    return {
        "epoch": epoch,
        "train/loss_coord": 0.9 * coord,
        "train/loss_done": 0.9 * done,
        "val/loss_coord": coord,
        "val/loss_done": done,
        "train/lr_coord": 1e-4,
        "train/lr_done": 3e-4,
        "train/grad_norm_coord": 0.8,
        "train/grad_norm_done": 2.0,
        "train/grad_cosine": 0.06,
        "train/seconds": 3.0,
        "val/seconds": 1.0,
        "val/px_median": 100 * coord,
        "val/done_accuracy": 1 - done / 2,
    } | more


def with_bests(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add val/best_loss_* to each line, the least of the finite losses so far."""
    bests: dict[str, float] = {}
    lines = []
    for one in history:
        for task in ("coord", "done"):
            loss = one[f"val/loss_{task}"]
            if math.isfinite(loss):
                key = f"val/best_loss_{task}"
                bests[key] = min(loss, bests.get(key, math.inf))
        lines.append({**one, **bests})
    return lines


def curve(lr: float, best_lr: float, epochs: int, noise: np.ndarray, start: float) -> np.ndarray:
    """Return a falling loss: lower and faster near the best learning rate, rising far above it."""
    off = math.log10(lr / best_lr)
    floor = start * (0.08 + 0.1 * min(off**2, 5))
    speed = 0.45 / (1 + off**2)
    t = np.arange(1, epochs + 1)
    rise = 0.004 * start * np.clip(t - 12, 0, None) * max(off, 0)
    return (floor + (start - floor) * np.exp(-speed * t) + rise) * (1 + 0.03 * noise)


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in history)
    (folder / "metrics.jsonl").write_text(text)


def write_run(folder: Path, history: Sequence[Mapping[str, Any]], *overrides: str) -> Path:
    """Write a run with a configuration and a history."""
    config = load(None, [f"run.name={folder.name}", f"run.storage={folder.parent}", *overrides])
    write_history(folder, history)
    (folder / "config.yaml").write_text(config.to_yaml())
    return folder


def new_search(path: Path, *, epochs: int = 30, **settings: Any) -> SearchFolder:
    """Write search.yaml of a search without trials that has finished."""
    search = build_search({"space": SPACE} | settings)
    folder = SearchFolder(str(path))
    config = load(None, [f"train.epochs={epochs}", "scale.num_workers=0", "run.name=s"])
    folder.save_settings(search, config)
    folder.save_driver("finished")
    return folder


def add_trial(
    folder: SearchFolder,
    name: str,
    values: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]] = (),
    state: str = "finished",
    reason: str | None = None,
) -> None:
    """Add a trial; its history is given without val/best_loss_*."""
    _, config = folder.settings()
    record = TrialRecord(name, dict(values), state, reason)
    folder.save_trial(record)
    text = trial_config(record, config, folder.trials_path).to_yaml()
    folder.trial(name).write("config.yaml", text.encode())
    if history:
        write_history(Path(folder.trials_path) / name, with_bests(history))


def drawn_search(path: Path, trials: int, *, epochs: int = 30, seed: int = 0) -> SearchFolder:
    """Write a search over SPACE with curves like those of a training; every fifth was stopped."""
    folder = new_search(path, epochs=epochs, num_samples=trials)
    rng = np.random.default_rng(seed)
    for i in range(trials):
        lrs = 10 ** rng.uniform(-5, -2, 2)
        coord = curve(lrs[0], 4e-4, epochs, rng.normal(size=epochs), 0.25)
        done = curve(lrs[1], 8e-4, epochs, rng.normal(size=epochs), 0.69)
        stopped = i % 5 == 3
        length = max(1, epochs // 3) if stopped else epochs
        values = {"coord.lr": float(lrs[0]), "done.lr": float(lrs[1])}
        values |= {"coord.patience": 8, "done.patience": 8}
        history = [line(t + 1, float(coord[t]), float(done[t])) for t in range(length)]
        state, reason = (
            ("stopped", "behind in both tasks at epoch 10") if stopped else ("finished", None)
        )
        add_trial(folder, f"{i:04d}", values, ended_by_patience(history, 8), state, reason)
    return folder


def ended_by_patience(history: Sequence[dict[str, Any]], patience: int) -> list[dict[str, Any]]:
    """Cut a history where both tasks have used up their patience."""
    stalled, best = {"coord": 0, "done": 0}, {"coord": math.inf, "done": math.inf}
    for i, one in enumerate(history):
        for task in stalled:
            loss = one[f"val/loss_{task}"]
            stalled[task] = 0 if loss < best[task] else stalled[task] + 1
            best[task] = min(best[task], loss)
        if min(stalled.values()) >= patience:
            return list(history[: i + 1])
    return list(history)
