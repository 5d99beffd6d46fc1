"""An epoch on kept features beside one that runs the frozen tower.

python benchmarks/kept.py DATASET [key=value ...]    # over the preset photo

Trains each way twice, in turns, for three epochs of one view of each image, in this process. Prints
the median time an image over the six epochs, in ms.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from raydual.config import load
from raydual.training.launch import launch

ONE_VIEW = ("data.augment=false", "train.min_iterations=1", "train.calibrate=false")
HERE = ("scale.num_workers=0", "train.batch_size=8", "log.wandb=disabled", "log.images=0")


def main(dataset: str, *own: str) -> None:
    """Print the milliseconds an image both ways, and their ratio."""
    each: dict[str, list[float]] = {"kept": [], "computed": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            for way, views in (("kept", 1), ("computed", 0)):
                where = (f"data.path={dataset}", f"run.storage={folder}", f"run.name={way}{turn}")
                settings = (*ONE_VIEW, *HERE, *where, f"data.views={views}", "train.epochs=3")
                config = load(None, [*settings, *own], preset="photo")
                launch(config, lambda event: None)
                lines = (Path(folder) / f"{way}{turn}" / "metrics.jsonl").read_text().splitlines()
                epochs = [json.loads(line) for line in lines]
                each[way] += [1000 / e["train/samples_per_s"] for e in epochs]
    ms = {way: statistics.median(times) for way, times in each.items()}
    print(f"{dataset}, {torch.get_num_threads()} threads: {ms['kept']:.1f} ms an image on kept")
    print(
        f"features, {ms['computed']:.1f} ms with the tower: {ms['computed'] / ms['kept']:.2f} times"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
