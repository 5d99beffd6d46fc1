"""Counting in lock-step against one by one: the same results, how much faster.

python benchmarks/lockstep.py    # two minutes on two idle cores

The tiny trunk with random weights, kept from ever being done, counts 64 drawn images to 20
objects each, in turn, three times; the fastest time of each way counts. Beside both, what is not in
the project: a counter a Python thread, each with a part of the images and one torch thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from raydual import Counted, Counter, DualTaskCounter, load
from raydual.data.formats.synthetic import SynthConfig, rows
from raydual.data.images import decode_image

IMAGES, OBJECTS, REPEATS = 64, 20, 3
LIMITS = {"max_objects": OBJECTS, "repeat_radius": 0}


def model(image_size: int) -> Counter:
    """Return a counter that never sees an end."""
    counter = DualTaskCounter.from_config(load(None, [f"data.image_size={image_size}"])).eval()
    with torch.no_grad():
        counter.heads["done"].done_head[-1].bias.fill_(-50)
    return Counter(coord=counter, done=counter, per_look=1)


def timed(count: Callable[[], list[Counted]]) -> tuple[float, list[Counted]]:
    """Return how long a count took in seconds, and its results."""
    start = time.perf_counter()
    results = count()
    return time.perf_counter() - start, results


def in_threads(counters: list[Counter], images: list[Image.Image]) -> list[Counted]:
    """Count a part of the images with each counter, all at once, on one torch thread each."""
    n = len(counters)
    torch.set_num_threads(1)
    with ThreadPoolExecutor(n) as pool:
        parts = list(pool.map(lambda i: counters[i].count_batch(images[i::n], **LIMITS), range(n)))
    torch.set_num_threads(n)
    return [parts[i % n][i // n] for i in range(len(images))]


def measure(image_size: int, images: list[Image.Image]) -> None:
    """Print a row of the table."""
    counters = [model(image_size) for _ in range(torch.get_num_threads())]
    counter = counters[0]
    ways: list[Callable[[], list[Counted]]] = [
        lambda: [counter.count(image, **LIMITS) for image in images],
        lambda: counter.count_batch(images, **LIMITS),
        lambda: in_threads(counters, images),
    ]
    counter.count_batch(images[:4], **LIMITS)  # warms up
    runs = [[timed(way) for way in ways] for _ in range(REPEATS)]
    alone, *others = (results for _, results in runs[-1])
    pairs = [pair for results in others for pair in zip(alone, results, strict=True)]
    counts = all(a.count == b.count == OBJECTS for a, b in pairs)
    apart = max(float(np.abs(a.points - b.points).max()) for a, b in pairs)
    slow, fast, threads = (min(run[way][0] for run in runs) for way in range(len(ways)))
    print(
        f"| {image_size} px | {slow:.2f} s | {fast:.2f} s | {slow / fast:.1f} "
        f"| {'the same' if counts else 'DIFFERENT'} | {apart:.0e} px "
        f"| {threads:.2f} s | {slow / threads:.1f} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    drawing = SynthConfig(images=IMAGES, min_objects=OBJECTS, max_objects=OBJECTS)
    images = [decode_image(row.image) for row in rows(drawing)]
    print(f"{IMAGES} images of {OBJECTS} objects, CPU, {torch.get_num_threads()} threads\n")
    print(
        "| model sees | one by one | lock-step | times as fast | counts | points apart "
        "| in threads | times as fast |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for image_size in (48, 64, 96):
        measure(image_size, images)


if __name__ == "__main__":
    main()
