"""From a source in some format to a dataset: select, split, read the images, write."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from raydual.data.formats import FORMATS
from raydual.data.formats.source import Picture, Source
from raydual.data.formats.splits import DEFAULT_FRACTIONS, assign_splits
from raydual.data.images import MOST_BYTES, CorruptImageError, decode_image, header_size
from raydual.data.manifest import Manifest
from raydual.data.schema import SPLITS, Row, placement, write_dataset
from raydual.data.storage import read_regular, refuse_occupied
from raydual.errors import DataError

EDGE = 2 / 384
"""Points at most so far outside, in longest sides of the image, are moved onto its edge."""


@dataclass(frozen=True)
class Selection:
    """What of a source is wanted; None takes all.

    category: keep this category only; images without it become rows without points.
    min_objects, max_objects: limits, inclusive, on the objects of a row.
    resplit: fractions of train, val and test, in place of the splits of the source.
    """

    category: str | None = None
    min_objects: int | None = None
    max_objects: int | None = None
    resplit: tuple[float, float, float] | None = None


@dataclass
class Entry:
    """A picture that was selected, with points in its frame by row id and category."""

    picture: Picture
    split: str | None
    rows: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """What an import wrote and did not write: reason to names; and what is worth knowing."""

    manifest: Manifest
    left_out: dict[str, list[str]]
    notes: list[str]


def import_dataset(
    format_name: str,
    src: str | Path,
    out: str | Path,
    selection: Selection,
    progress: Callable[[list[Entry]], Iterable[Entry]] = iter,
) -> Imported:
    """Read a source in one of `FORMATS` and write it as a new dataset.

    `progress` passes on what it is given, one entry an image, and may show how far that is.

    Raises:
        DataError: the source or the selection cannot be used, or `out` is taken.
    """
    source = read_source(format_name, src)
    refuse_occupied(out)
    entries = select(source, selection)
    entries, notes = _split(source, entries, selection)
    entries.sort(key=lambda entry: placement(entry.picture.id))
    rows = (row for entry in progress(entries) for row in _rows(entry, source))
    name = f"{format_name} {Path(src).resolve().name}"
    manifest = write_dataset(rows, out, source=name, left_out=source.left_out)
    empty = [split for split in SPLITS[:2] if not manifest.splits[split].images]
    if empty:
        notes.append(
            f"{' and '.join(empty)} is empty, training needs both train and val: "
            "import again with --resplit 0.8,0.1,0.1"
        )
    left_out = {reason: names for reason, names in source.left_out.items() if names}
    return Imported(manifest, left_out, notes)


def read_source(format_name: str, src: str | Path) -> Source:
    """The pictures of a source, no image opened yet.

    Raises:
        DataError: an unknown format, nothing at `src`, or it is not in that format.
    """
    if format_name not in FORMATS:
        raise DataError(f"format {format_name!r}: choose one of {', '.join(FORMATS)}")
    folder = Path(src).expanduser()
    if not folder.exists():
        raise DataError(f"{src} is not there; name the folder that holds the annotations")
    return FORMATS[format_name](folder)


def select(source: Source, selection: Selection) -> list[Entry]:
    """The pictures and categories wanted; the others are added to `source.left_out`.

    Raises:
        DataError: the category does not occur in the source.
    """
    categories = source.categories()
    only = selection.category or (categories[0] if len(categories) == 1 else None)
    if only is not None and only not in categories:
        raise DataError(
            f"category {only!r} does not occur; choose one of "
            f"{', '.join(name[:40] for name in categories[:20])}"
        )
    several = any(len(picture.objects) > 1 for picture in source.pictures)
    entries = []
    for picture in source.pictures:
        entry = Entry(picture, picture.split)
        for category, points in _labelled(source, picture, only).items():
            reason = _unwanted(len(points), selection)
            row_id = f"{picture.id}:{category}" if several and not only else picture.id
            if reason:
                source.leave_out(reason, row_id)
            else:
                entry.rows[row_id, category] = points
        if entry.rows:
            entries.append(entry)
    return entries


def _labelled(source: Source, picture: Picture, only: str | None) -> dict[str, np.ndarray]:
    """The categories of a picture that give a row each."""
    if only is None:
        if not picture.objects:
            source.leave_out("image without any annotation", picture.id)
        return picture.objects
    if only in picture.objects:
        return {only: picture.objects[only]}
    if source.exhaustive or not picture.objects:
        return {only: np.empty((0, 2))}
    source.leave_out(f"image not labelled for {only}", picture.id)
    return {}


def _unwanted(count: int, selection: Selection) -> str | None:
    low, high = selection.min_objects, selection.max_objects
    if low is not None and count < low:
        return f"fewer than {low} objects"
    if high is not None and count > high:
        return f"more than {high} objects"
    return None


def _split(
    source: Source, entries: list[Entry], selection: Selection
) -> tuple[list[Entry], list[str]]:
    """The entries with their splits, and what to tell about it."""
    has_splits = any(picture.split for picture in source.pictures)
    if has_splits and selection.resplit is None:
        none = [entry.picture.id for entry in entries if entry.split is None]
        if none:
            source.left_out["image in no split"] = none
        return [entry for entry in entries if entry.split], []
    fractions = selection.resplit or DEFAULT_FRACTIONS
    splits = assign_splits([entry.picture.id for entry in entries], fractions)
    for entry in entries:
        entry.split = splits[entry.picture.id]
    shares = ",".join(f"{fraction:g}" for fraction in fractions)
    why = "as asked" if has_splits else "the source has no splits"
    return entries, [f"split {shares} into train, val and test, photo by photo ({why})"]


def _rows(entry: Entry, source: Source) -> Iterator[Row]:
    """The rows of one picture; none, and a name left out, where it cannot be decoded."""
    picture = entry.picture
    try:
        data = read_regular(picture.file, MOST_BYTES)
        width, height = decode_image(data).size
    except (CorruptImageError, OSError) as error:
        source.leave_out("corrupt image", f"{picture.file.name}: {error}")
        return
    for (row_id, category), points in entry.rows.items():
        placed = to_image(points, picture.frame, data, (width, height))
        on_edge = placed.clip(0, (width, height))
        near = (np.abs(on_edge - placed) <= EDGE * max(width, height)).all(axis=1)
        moved = near & (on_edge != placed).any(axis=1)
        source.leave_out("point just outside, moved onto the edge", *[row_id] * int(moved.sum()))
        placed = np.where(moved[:, None], on_edge, placed)
        yield Row(row_id, str(entry.split), category, data, width, height, placed)


def to_image(
    points: np.ndarray,
    frame: tuple[float | None, float] | None,
    data: bytes,
    size: tuple[int, int],
) -> np.ndarray:
    """Points (N, 2) of a declared frame in pixels of the upright image of `size`.

    A frame that has the size of the file before its EXIF orientation is turned with the image;
    any other is scaled to the image.
    """
    width, height = size
    if frame is None or frame == size:
        return points
    if frame[0] is None:
        return points * (height / frame[1])
    stored_width, stored_height, orientation = header_size(data)
    if frame == (stored_width, stored_height):
        x, y = points[:, 0], points[:, 1]
        turned = {
            5: (y, x),
            6: (stored_height - y, x),
            7: (stored_height - y, stored_width - x),
            8: (y, stored_width - x),
        }
        return np.stack(turned[orientation], axis=1)
    return points * np.array([width / frame[0], height / frame[1]])
