"""Counting with many marks a look beside one by one: errors, looks and time.

python benchmarks/looks.py RUN DATASET [SPLIT [IMAGES]]

Both count the same images in lock-step, in turns, on as many threads as torch takes; times are the
lower ones of two rounds.
"""

from __future__ import annotations

import sys
import time
from itertools import islice

import numpy as np
import torch

from raydual.counting.closed_loop import Counter
from raydual.counting.count_figures import count_figures
from raydual.counting.localisation import localisation_figures
from raydual.counting.one_count import Counted
from raydual.counting.ratios import intervals
from raydual.data.images import decode_image
from raydual.data.ordering import to_reference
from raydual.data.schema import Row, read_rows

WAYS = (1, "all")


def row(name: str, rows: list[Row], counts: list[Counted], seconds: float) -> str:
    """Return a line of the table."""
    true = np.array([len(r.points) for r in rows])
    counted = np.array([c.count for c in counts])
    mae = count_figures(true, counted)["mae"]
    low, high = intervals({"mae": mae})["mae"] or (np.nan, np.nan)
    places = [to_reference(r.points, r.width, r.height) for r in rows]
    found = [to_reference(c.points, r.width, r.height) for r, c in zip(rows, counts, strict=True)]
    f1 = localisation_figures(places, found)["f1@10px"].value
    looks = np.mean([len(c.done) for c in counts])
    exact = (true == counted).mean()
    return (
        f"| {name} | {mae.value:.3f} [{low:.3f}, {high:.3f}] | {exact:.1%} | {f1:.3f} | "
        f"{looks:.1f} | {seconds:.1f} s |"
    )


def main(run: str, dataset: str, split: str = "test", images: str = "400") -> None:
    """Print the table, and how many times as fast many marks a look are."""
    rows = list(islice(read_rows(dataset, split), int(images)))
    pictures = [decode_image(r.image) for r in rows]
    names = [r.category for r in rows]
    counters = {way: Counter.from_run(run, per_look=way) for way in WAYS}
    counts: dict[object, list[Counted]] = {}
    seconds: dict[object, float] = {}
    for _ in range(2):
        for way, counter in counters.items():
            started = time.perf_counter()
            counts[way] = counter.count_batch(pictures, names)
            took = time.perf_counter() - started
            seconds[way] = min(took, seconds.get(way, took))
    print(f"{run}, {len(rows)} images of {dataset}, {torch.get_num_threads()} threads\n")
    print("| marks a look | MAE | exact | F1 at 10 px | looks an image | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way in WAYS:
        print(row(str(way), rows, counts[way], seconds[way]))
    print(f"\n{seconds[1] / seconds['all']:.2f} times as fast")


if __name__ == "__main__":
    main(*sys.argv[1:5])
