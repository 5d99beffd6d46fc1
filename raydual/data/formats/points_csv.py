"""CSV of points, one line an object: the simplest way to bring one's own data.

    image,x,y,category,split
    photos/1.jpg,102.5,88,apple,train
    photos/2.jpg,,,apple,val            no apple in this image

`image` is relative to the CSV file; `x` and `y` are pixels of the image, turned upright as its
EXIF orientation says. `category` (without it: object) and `split` are optional. Of several
categories, those that an image does not name count as not labelled in it, not as absent.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from raydual.data.formats.source import (
    FARTHEST,
    MISSING,
    SPLIT_NAMES,
    Picture,
    Source,
    as_points,
    inside,
    read_text,
    shorten,
    unique_ids,
)
from raydual.errors import DataError

COLUMNS = ("image", "x", "y", "category", "split")


def read(src: Path) -> Source:
    """The pictures of a CSV file, or of the points.csv in a folder.

    Raises:
        DataError: a column is missing, a value is wrong, or an image leads out of the folder.
    """
    file = src / "points.csv" if src.is_dir() else src
    objects: dict[str, dict[str, list[tuple[float, float]]]] = {}
    splits: dict[str, str | None] = {}
    for where, line in _lines(file):
        name = line.get("image", "").strip()
        if not name:
            raise DataError(f"{where}: no image; expected its path relative to the CSV file")
        split = _split(line.get("split", ""), where)
        if splits.setdefault(name, split) != split:
            raise DataError(f"{where}: {name} is in split {splits[name]} above and {split} here")
        point = _point(line["x"], line["y"], where)
        found = objects.setdefault(name, {})
        category = line.get("category", "object").strip()
        if category:
            found.setdefault(category, []).extend(point)
        elif point:
            raise DataError(f"{where}: a point without category; expected one, as in other lines")
    source = Source([], exhaustive=False)
    ids = unique_ids(objects)
    for name, found in objects.items():
        image = inside(file.parent, name, f"{file}")
        if not image.is_file():
            source.leave_out(MISSING, name)
            continue
        points = {category: as_points(pairs) for category, pairs in found.items()}
        source.pictures.append(Picture(ids[name], image, points, splits[name]))
    return source


def _lines(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line as column to text, with where it is."""
    reader = csv.DictReader(read_text(file).splitlines(), restval="", strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        missing = [name for name in COLUMNS[:3] if name not in header]
        unknown = [name for name in header if name not in COLUMNS]
        if missing or unknown:
            raise DataError(
                f"{file} has the columns {shorten(','.join(header))}, expected image,x,y and "
                "optionally category,split, with commas between"
            )
        reader.fieldnames = header
        for line in reader:
            where = f"{file}, line {reader.line_num}"
            if None in line:
                raise DataError(f"{where}: more values than the {len(header)} columns")
            yield where, line
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}") from error


def _point(x: str, y: str, where: str) -> list[tuple[float, float]]:
    """One point, or none where both are empty."""
    if not x.strip() and not y.strip():
        return []
    try:
        point = (float(x), float(y))
    except ValueError:
        point = (math.nan, math.nan)
    if not all(abs(value) < FARTHEST for value in point):
        raise DataError(
            f"{where}: x,y is {shorten(x)},{shorten(y)}, expected two numbers in pixels, or both "
            "empty for an image without objects"
        )
    return [point]


def _split(text: str, where: str) -> str | None:
    name = text.strip().lower()
    if name and name not in SPLIT_NAMES:
        raise DataError(f"{where}: split {shorten(text)}, expected train, val or test")
    return SPLIT_NAMES.get(name)
