"""Draw the marks of the objects already counted onto the canvas."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GREEN = (30, 200, 60)
DISC_RADIUS = 14 / 384
DOT_RADIUS = 7 / 384
HEAT_RADIUS = 16 / 384
_SUPERSAMPLING = 4


def draw_marks(canvas: np.ndarray, points: np.ndarray, style: str, alpha: float) -> np.ndarray:
    """Return a copy of the canvas with the first k objects marked.

    canvas: uint8 (side, side, 3). points: (k, 2) in [-1, 1], in the order of counting; a mark
    partly outside is cut off. style: a key of `STYLES`. alpha: opacity in [0, 1].
    """
    marked = canvas.copy()
    for number, point in enumerate(np.asarray(points), start=1):
        draw_mark(marked, point, number, style, alpha)
    return marked


def draw_mark(canvas: np.ndarray, point: np.ndarray, number: int, style: str, alpha: float) -> None:
    """Mark one more object (2,) on the canvas itself; `number` counts from 1."""
    side = canvas.shape[0]
    color, opacity = STYLES[style](side, number)
    x, y = (np.asarray(point) + 1) / 2 * side
    _blend(canvas, color, opacity * alpha, x, y)


def _blend(canvas: np.ndarray, color: np.ndarray, opacity: np.ndarray, x: float, y: float) -> None:
    side, size = canvas.shape[0], color.shape[0]
    left, top = round(float(x) - size / 2), round(float(y) - size / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, side), min(top + size, side)
    if x0 >= x1 or y0 >= y1:
        return
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    under = canvas[y0:y1, x0:x1].astype(np.float32)
    blended = under + (color[part] - under) * opacity[part]
    canvas[y0:y1, x0:x1] = np.rint(blended).astype(np.uint8)


@lru_cache(maxsize=4096)
def _numbered_disc(side: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour (size, size, 3) and opacity (size, size, 1) of a disc with its number on it."""
    radius = max(2.0, DISC_RADIUS * side)
    size = 2 * int(np.ceil(radius)) + 1
    big = size * _SUPERSAMPLING
    color = Image.new("RGB", (big, big), GREEN)
    text = str(number)
    font = ImageFont.load_default(size=big * (0.72 if len(text) == 1 else 1.05 / len(text)))
    ImageDraw.Draw(color).text((big / 2, big / 2), text, "white", font=font, anchor="mm")
    small = color.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32), _disc(size, radius)


@lru_cache(maxsize=16)
def _dot(side: int, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    radius = max(1.5, DOT_RADIUS * side)
    size = 2 * int(np.ceil(radius)) + 1
    return _flat(size), _disc(size, radius)


@lru_cache(maxsize=16)
def _heat(side: int, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    sigma = max(1.0, HEAT_RADIUS * side)
    size = 2 * int(np.ceil(2.5 * sigma)) + 1
    return _flat(size), np.exp(-(_distance(size) ** 2) / (2 * sigma**2))


def _flat(size: int) -> np.ndarray:
    return np.full((size, size, 3), GREEN, dtype=np.float32)


def _disc(size: int, radius: float) -> np.ndarray:
    return np.clip(radius + 0.5 - _distance(size), 0, 1)


def _distance(size: int) -> np.ndarray:
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    return np.hypot(axis[:, None], axis[None, :])[..., None]


STYLES: dict[str, Callable[[int, int], tuple[np.ndarray, np.ndarray]]] = {
    "numbers": _numbered_disc,
    "dots": lambda side, number: _dot(side),
    "heatmap": lambda side, number: _heat(side),
}
