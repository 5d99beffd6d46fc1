"""The sample pictures of a run, small enough to be carried in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from PIL import Image

MOST = 4
WIDTH = 960
QUALITY = 80
T = TypeVar("T")


def pictures(folder: Path) -> list[dict[str, str | int]]:
    """Return up to four of a run's sample pictures, latest first, earlier ones spread evenly.

    folder: the run's samples/, which may be missing. Each has its `epoch` and `src`, a data URI
    of a JPEG at most 960 px wide. A picture that cannot be read is left out.
    """
    files = sorted(folder.glob("epoch_[0-9]*.png"))
    found: list[dict[str, str | int]] = []
    for file in spread(files[::-1], MOST):
        try:
            src = _embedded(file, file.stat().st_mtime_ns)
        except OSError:
            continue
        found.append({"epoch": int(file.stem.split("_")[1]), "src": src})
    return found


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, the first and the last among them, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


@lru_cache(maxsize=64)
def _embedded(file: Path, changed_ns: int) -> str:
    """Return a data URI; the time of the file's last change is there for the cache."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
