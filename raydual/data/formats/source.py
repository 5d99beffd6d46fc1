"""What every importer reads a source into, and the checks that they share."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raydual.data.storage import read_regular
from raydual.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""How sources call their splits, and how they are called here."""

FARTHEST = 1e9
"""Places at least so far off, in pixels, are refused."""

MISSING = "listed image is not there"
ZERO_AREA = "box without area"


@dataclass(frozen=True)
class Picture:
    """One picture of a source with its annotations; the file has not been opened.

    objects: category to points (N, 2) in pixels; a category with N = 0 is known to be absent.
    frame: width and height in pixels of the frame that the points are in, None for the file's
        own; a width of None follows the height, aspect kept.
    """

    id: str
    file: Path
    objects: dict[str, np.ndarray]
    split: str | None = None
    frame: tuple[float | None, float] | None = None


@dataclass
class Source:
    """All pictures of a source.

    exhaustive: whether a category that a picture does not name is absent from it, rather than
        not labelled.
    left_out: reason to the names of what is not among the pictures.
    """

    pictures: list[Picture]
    exhaustive: bool = True
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, *names: str) -> None:
        """Note what is not imported, and why."""
        self.left_out.setdefault(reason, []).extend(names)

    def categories(self) -> list[str]:
        """The categories that occur, sorted."""
        return sorted({name for picture in self.pictures for name in picture.objects})


def unique_ids(names: Iterable[str]) -> dict[str, str]:
    """An id for each relative image path: its stem; the whole path where stems are shared."""
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(Path(name).stem, []).append(name)
    return {
        name: stem if len(sharing) == 1 else name
        for stem, sharing in by_stem.items()
        for name in sharing
    }


def inside(folder: Path, name: str, where: str) -> Path:
    """The file `name` of a source, which may not be there.

    Raises:
        DataError: the name, with its links followed, leads out of `folder`.
    """
    try:
        file = (folder / name).resolve()
        leads_out = not file.is_relative_to(folder.resolve())
        file.is_file()  # which a name that is too long does not survive
    except (OSError, ValueError, RuntimeError):  # null bytes, endless links, names too long
        leads_out = True
    if leads_out:
        raise DataError(
            f"{where} names the image {shorten(name)}, which is outside {folder}; "
            "put the image into the folder and name it relative to that"
        )
    return file


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: it is not there, or is not UTF-8.
    """
    try:
        return read_regular(file).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            f"{file} is not there; expected it in this format, see `raydual data import --help`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: it is not there, is not JSON, or holds something other than an object.
    """
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON: {error}") from error
    return expect(content, dict, f"{file}", "an object")


def expect(value: Any, kind: type, where: str, what: str) -> Any:
    """`value` if it is of the type `kind`.

    Raises:
        DataError: it is not; says `where` it is and `what` was expected.
    """
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise DataError(f"{where} is {shorten(value)}, expected {what}")
    return value


def text(value: Any, where: str) -> str:
    """A text that is not empty and can be stored.

    Raises:
        DataError: `value` is anything else, or holds half a character: JSON can write one.
    """
    found: str = expect(value or None, str, where, "a text")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} is {shorten(found)}, expected valid Unicode") from None
    return found


def numbers(value: Any, count: int, where: str, what: str) -> list[float]:
    """`count` finite numbers.

    Raises:
        DataError: `value` is anything else.
    """
    if isinstance(value, list) and len(value) == count:
        right_types = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        if right_types and all(abs(v) < FARTHEST for v in value):
            return [float(v) for v in value]
    raise DataError(f"{where} is {shorten(value)}, expected {what}")


def shorten(value: Any) -> str:
    """A value as it looks in a message, at most 40 characters."""
    text = repr(value) if not isinstance(value, dict) else "an object"
    return text if len(text) <= 40 else text[:37] + "..."


def as_points(points: list[tuple[float, float]]) -> np.ndarray:
    """A list of x, y as (N, 2) float64, also for N = 0."""
    return np.array(points, dtype=np.float64).reshape(-1, 2)
