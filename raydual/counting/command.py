"""`raydual count`: count files, print a table, write pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from raydual.counting.annotate import annotate
from raydual.counting.closed_loop import Counter
from raydual.data.images import CorruptImageError, decode_image
from raydual.errors import ConfigError
from raydual.model.counter import DualTaskCounter


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
        ConfigError: `out` cannot be made.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    counter = Counter(
        *(
            DualTaskCounter.from_pretrained(folder, device)
            for folder in (checkpoint, done_checkpoint or checkpoint)
        )
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write pictures to {out}: {error.strerror}; choose another --out"
        ) from None
    console = Console(highlight=False, soft_wrap=True)
    unreadable: list[Path] = []
    taken: set[Path] = set()
    for file in track(files, "Counting", console=console, transient=True):
        try:
            image = decode_image(file.read_bytes())
        except (OSError, CorruptImageError) as error:
            console.print(f"{file}: skipped, {error}", markup=False)
            unreadable.append(file)
            continue
        counted = counter.count(image, category, max_objects)
        target = _free(out / f"{file.stem}.counted.png", taken)
        annotate(image, counted).save(target)
        points = " ".join(f"({x:.1f}, {y:.1f})" for x, y in counted.points)
        reached = "" if counted.stopped == "done" else f" (stopped at {counted.stopped})"
        console.print(f"{file}: {counted.count}{reached}  {points}", markup=False)
        console.print(f"  -> {target}", markup=False)
    return unreadable


def _free(path: Path, taken: set[Path]) -> Path:
    """Return the path, with a number where another file of this call has its name."""
    stem = path.name.removesuffix(".counted.png")
    number = 2
    while path in taken:
        path = path.with_name(f"{stem}-{number}.counted.png")
        number += 1
    taken.add(path)
    return path
