"""`raydual count`: count files, print what was found, write pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from raydual.counting.annotate import MARKED, annotate, fit, save_gif
from raydual.counting.closed_loop import Counter, Picture
from raydual.counting.find import find_images
from raydual.counting.looks import PerLook
from raydual.counting.one_count import Counted
from raydual.counting.output import FORMS, Entry
from raydual.counting.subject import Subject
from raydual.data.images import MOST_BYTES, CorruptImageError, decode_image
from raydual.data.storage import read_regular
from raydual.errors import ConfigError, printable


@dataclass(frozen=True)
class CountOptions:
    """What is asked of a count besides the images.

    out: folder for the pictures; None writes none. form: a key of `FORMS`. See `Counter` for
    the rest.
    """

    category: str | None
    per_look: PerLook | None
    max_objects: int
    repeat_radius: float
    out: Path | None
    gif: bool
    form: str


def count_files(names: Sequence[str], model: str, options: CountOptions) -> bool:
    """Count the images meant by `names`, print the results and write the pictures.

    Only the results go to the standard output. Files that cannot be read are named on the
    standard error and left out, and pictures that cannot be written are named there. Returns
    whether there was none of these.

    Raises:
        CheckpointError: the run or checkpoint `model` cannot be used.
        ConfigError: as `find_images`, the results cannot be printed, or the category is not
            given where several were trained on.
    """
    files = find_images(names)
    subject = Subject.at(model, options.per_look)
    _check_category(subject.categories, options.category)
    counter = subject.load("cuda" if torch.cuda.is_available() else "cpu")
    _make_folder(options.out)
    if (note := subject.note()) is not None:
        typer.echo(note, err=True)
    job = _Job(files, counter, options)
    entries = job.run()
    _print(FORMS[options.form](entries))
    if options.out is not None and entries and options.form == "table":
        typer.echo(f"Pictures are in {options.out}")
    return len(entries) == len(files) and not job.undrawn


class _Job:
    """One call: files in, entries out, in the order of the files."""

    def __init__(self, files: Sequence[Path], counter: Counter, options: CountOptions) -> None:
        self._files, self._counter, self._options = files, counter, options
        self._category = counter.coord.category_or_default(options.category)
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._read: list[Path] = []
        self._shown: dict[int, tuple[Image.Image, np.ndarray]] = {}
        self._taken: set[Path] = set()
        self._skipped = 0
        self.undrawn = 0

    def run(self) -> list[Entry]:
        """Count every file that can be read, with a progress bar."""
        options = self._options
        entries: dict[int, Entry] = {}
        hidden = not self._console.is_terminal
        with Progress(console=self._console, transient=True, disable=hidden) as bar:
            task = bar.add_task("Counting", total=len(self._files))
            counts = self._counter.count_stream(
                self._pictures(), options.max_objects, options.repeat_radius
            )
            for index, counted in counts:
                file = self._read[index]
                picture = None if options.out is None else self._draw(index, counted, options.out)
                entries[index] = Entry(file, self._category, counted, picture)
                bar.update(task, completed=len(entries) + self._skipped)
        return [entries[index] for index in range(len(entries))]

    def _pictures(self) -> Iterator[Picture]:
        for file in self._files:
            try:
                image = decode_image(read_regular(file, MOST_BYTES))
            except (OSError, CorruptImageError) as error:
                reason = (isinstance(error, OSError) and error.strerror) or error
                self._console.print(printable(f"{file}: skipped, {reason}"), markup=False)
                self._skipped += 1
                continue
            if self._options.out is not None:
                self._shown[len(self._read)] = fit(image), np.array(image.size)
            self._read.append(file)
            yield image, self._category

    def _draw(self, index: int, counted: Counted, out: Path) -> Path | None:
        """Draw what was counted; return the picture's path, None where it cannot be written."""
        image, size = self._shown.pop(index)
        points = counted.points * image.size / size
        path = self._free(out / f"{self._read[index].stem}{MARKED}.png")
        try:
            annotate(image, points, counted, self._category).save(path)
            if self._options.gif:
                save_gif(path.with_suffix(".gif"), image, points, counted, self._category)
        except OSError as error:
            self._console.print(printable(f"cannot write {path}: {error.strerror}"), markup=False)
            self.undrawn += 1
            return None
        return path

    def _free(self, path: Path) -> Path:
        """Return the path, with a number where another file of this call has its name."""
        stem = path.name.removesuffix(f"{MARKED}.png")
        number = 2
        while path in self._taken:
            path = path.with_name(f"{stem}-{number}{MARKED}.png")
            number += 1
        self._taken.add(path)
        return path


def _print(results: str) -> None:
    try:
        typer.echo(results)
    except BrokenPipeError:
        raise  # of a reader that has seen enough, as `head`
    except OSError as error:
        raise ConfigError(f"cannot print the results: {error.strerror}") from None


def _make_folder(out: Path | None) -> None:
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write pictures to {out}: {error.strerror}; choose another --out"
        ) from None


def _check_category(known: Sequence[str], category: str | None) -> None:
    some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    if category is None and len(known) > 1:
        raise ConfigError(f"--category is needed: the model was trained to count {some}")
    if category is not None and known and category not in known:
        typer.echo(
            f"note: {category!r} was not trained on; there were: {printable(some)}", err=True
        )
