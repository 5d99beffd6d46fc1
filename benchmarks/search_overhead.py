"""What a search costs beyond its trainings: 8 one-worker trials of 3 short epochs, on 2 cores.

    python benchmarks/search_overhead.py

The overhead is the wall time of the whole command minus the sum of all epochs over the number
of trials at a time: starting Ray, starting trials, Tune, the results.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from raydual.data.formats.synthetic import SynthConfig, rows
from raydual.data.schema import write_dataset
from raydual.tuning.results import summary

TRIALS, AT_A_TIME = 8, 2


def main() -> None:
    """Run the search in a process of its own, as a user would, and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawing = SynthConfig(images=600, image_size=96, splits=(0.8, 0.2, 0.0))
        write_dataset(rows(drawing), folder / "data", source="benchmark")
        overrides = {
            "data.path": str(folder / "data"), "scale.num_workers": 1, "scale.cpus_per_worker": 1,
            "train.epochs": 3, "train.max_iterations": 20, "log.images": 4,
        }  # fmt: skip
        space = {"coord.lr": {"loguniform": [1e-4, 1e-3]}, "done.lr": {"loguniform": [1e-4, 1e-3]}}
        search = {
            "base": {"overrides": overrides}, "space": space,
            "num_samples": TRIALS, "concurrency": AT_A_TIME,
        }  # fmt: skip
        (folder / "search.yaml").write_text(yaml.safe_dump(search))
        command = ["-m", "raydual", "tune", str(folder / "search.yaml"), "run.name=s"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *command, f"run.storage={folder}"], check=True, capture_output=True
        )
        wall = time.perf_counter() - started
        trials = summary(str(folder / "s"))["trials"]
    epochs = sum(trial["cost"] for trial in trials)
    overhead = wall - epochs / AT_A_TIME
    print(f"| {TRIALS} trials x 3 epochs, {AT_A_TIME} at a time | s |")
    print("| --- | --- |")
    print(f"| the whole command | {wall:.1f} |")
    print(f"| its epochs, over {AT_A_TIME} | {epochs / AT_A_TIME:.1f} |")
    print(f"| overhead | {overhead:.1f} |")
    print(f"| overhead a trial (at most 3) | {overhead / TRIALS:.2f} |")


if __name__ == "__main__":
    main()
