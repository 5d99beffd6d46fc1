"""`raydual count`: count files, print a table, write pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from raydual.counting.closed_loop import Counter, annotate
from raydual.data.images import CorruptImageError, decode_image


def count_files(
    files: Sequence[Path],
    checkpoint: Path,
    done_checkpoint: Path | None,
    category: str,
    max_objects: int,
    out: Path,
) -> list[Path]:
    """Count each file, print counts and points, write the annotated pictures into `out`.

    Returns the files that could not be read.

    Raises:
        CheckpointError: a checkpoint cannot be used.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    counter = Counter.from_pretrained(checkpoint, done_checkpoint, device)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, soft_wrap=True)
    unreadable = []
    for file in track(files, "Counting", console=console, transient=True):
        try:
            image = decode_image(file.read_bytes())
        except (OSError, CorruptImageError) as error:
            console.print(f"{file}: skipped, {error}", markup=False)
            unreadable.append(file)
            continue
        counted = counter.count(image, category, max_objects)
        target = out / f"{file.stem}.counted.png"
        annotate(image, counted).save(target)
        points = " ".join(f"({x:.1f}, {y:.1f})" for x, y in counted.points)
        reached = "" if counted.stopped == "done" else f" (stopped at {counted.stopped})"
        console.print(f"{file}: {counted.count}{reached}  {points}", markup=False)
        console.print(f"  -> {target}", markup=False)
    return unreadable
