"""Patience read off one training's history, against a training for every pair of patiences.

    python benchmarks/replay.py

Learning rates are on a grid, so that both see the same configurations. Cost is counted in epochs
here: two trainings of one configuration take the same epochs, but never the same seconds.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from raydual.config import load, with_values
from raydual.config_tree import Config
from raydual.data.formats.synthetic import SynthConfig, rows
from raydual.data.schema import write_dataset
from raydual.training.run import run_here
from raydual.training.run_folder import RunFolder
from raydual.tuning.results import front, outcomes_of
from raydual.tuning.space import Search, build_search

PATIENCES = [1, 2, 3, 5]
RATES = [(1e-3, 1e-3), (3e-3, 1e-3), (1e-3, 3e-3)]


def main() -> None:
    """Train both ways and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        base = _config(Path(scratch))
        choice = {"choice": PATIENCES}
        space = {"coord.lr": {"choice": [1.0]}, "coord.patience": choice, "done.patience": choice}
        replay = build_search({"space": space, "searcher": "grid"})
        sample = build_search({"space": space, "searcher": "grid", "patience": "sample"})
        replayed, replayed_epochs = [], 0
        sampled, sampled_epochs = [], 0
        for rates in RATES:
            longest = max(PATIENCES)
            found, epochs = _train(base, replay, rates, longest, longest)
            replayed, replayed_epochs = replayed + found, replayed_epochs + epochs
            for coord, done in itertools.product(PATIENCES, PATIENCES):
                found, epochs = _train(base, sample, rates, coord, done)
                sampled, sampled_epochs = sampled + found, sampled_epochs + epochs
    same = front(replayed) == front(sampled)
    print(f"| {len(RATES)} pairs of rates, {len(PATIENCES)} patiences a task | replay | sampling |")
    print("| --- | --- | --- |")
    print(f"| trainings | {len(RATES)} | {len(RATES) * len(PATIENCES) ** 2} |")
    print(f"| epochs trained | {replayed_epochs} | {sampled_epochs} |")
    print(f"| share of the training | {replayed_epochs / sampled_epochs:.3f} | 1 |")
    print(f"| points on the front | {len(front(replayed))} | {len(front(sampled))} |")
    print(f"| the same front, in every digit | {'yes' if same else 'NO'} | |")


def _config(folder: Path) -> Config:
    drawing = SynthConfig(images=300, image_size=64, splits=(0.7, 0.3, 0.0))
    write_dataset(rows(drawing), folder / "data", source="benchmark")
    return load(
        None,
        [
            f"data.path={folder / 'data'}", f"run.storage={folder}", "scale.num_workers=0",
            "data.image_size=48", "train.batch_size=8", "train.max_iterations=10",
            "train.epochs=30", "coord.lr_schedule=constant", "done.lr_schedule=constant",
            "coord.warmup=10", "done.warmup=10", "log.images=0", "log.wandb=disabled",
        ],
    )  # fmt: skip


def _train(
    base: Config, search: Search, rates: tuple[float, float], coord: int, done: int
) -> tuple[list[dict[str, Any]], int]:
    """Train one configuration; return its outcomes, cost in epochs, and its epochs."""
    name = f"r{rates[0]}-{rates[1]}"
    config = with_values(
        base,
        {
            "run.name": f"{name}-{search.patience}-{coord}-{done}",
            "coord.lr": rates[0], "done.lr": rates[1],
            "coord.patience": coord, "done.patience": done,
        },
    )  # fmt: skip
    run_here(config, lambda event: None)
    history = RunFolder(config.run.storage, str(config.run.name)).history()
    found = outcomes_of(history, name, config, search)
    return [outcome | {"cost": float(outcome["epoch"])} for outcome in found], len(history)


if __name__ == "__main__":
    main()
