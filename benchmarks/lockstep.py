"""Counting in lock-step against one by one: the same results, how much faster.

python benchmarks/lockstep.py    # a minute on two idle cores

The tiny trunk with random weights, kept from ever being done, counts 64 drawn images to 20
objects each, both ways in turn, three times; the fastest time of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from raydual import Counted, Counter, DualTaskCounter, load
from raydual.data.formats.synthetic import SynthConfig, rows
from raydual.data.images import decode_image

IMAGES, OBJECTS, REPEATS = 64, 20, 3


def model(image_size: int) -> Counter:
    """Return a counter that never sees an end."""
    counter = DualTaskCounter.from_config(load(None, [f"data.image_size={image_size}"])).eval()
    with torch.no_grad():
        counter.heads["done"].done_head[-1].bias.fill_(-50)
    return Counter(coord=counter, done=counter)


def timed(count: Callable[[], list[Counted]]) -> tuple[float, list[Counted]]:
    """Return how long a count took in seconds, and its results."""
    start = time.perf_counter()
    results = count()
    return time.perf_counter() - start, results


def measure(image_size: int, images: list[Image.Image]) -> None:
    """Print a row of the table."""
    counter = model(image_size)
    limits = {"max_objects": OBJECTS, "repeat_radius": 0}
    counter.count_batch(images[:4], **limits)  # warms up
    alone, together = [], []
    for _ in range(REPEATS):
        alone.append(timed(lambda: [counter.count(image, **limits) for image in images]))
        together.append(timed(lambda: counter.count_batch(images, **limits)))
    pairs = list(zip(alone[-1][1], together[-1][1], strict=True))
    counts = all(a.count == b.count == OBJECTS for a, b in pairs)
    apart = max(float(np.abs(a.points - b.points).max()) for a, b in pairs)
    slow, fast = (min(seconds for seconds, _ in runs) for runs in (alone, together))
    print(
        f"| {image_size} px | {slow:.2f} s | {fast:.2f} s | {slow / fast:.1f} "
        f"| {'the same' if counts else 'DIFFERENT'} | {apart:.0e} px |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    drawing = SynthConfig(images=IMAGES, min_objects=OBJECTS, max_objects=OBJECTS)
    images = [decode_image(row.image) for row in rows(drawing)]
    print(f"{IMAGES} images of {OBJECTS} objects, CPU, {torch.get_num_threads()} threads\n")
    print("| model sees | one by one | lock-step | times as fast | counts | points apart |")
    print("| --- | --- | --- | --- | --- | --- |")
    for image_size in (48, 64, 96):
        measure(image_size, images)


if __name__ == "__main__":
    main()
