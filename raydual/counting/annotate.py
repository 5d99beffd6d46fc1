"""Pictures of a count: numbered points on the image, and the same growing frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raydual.counting.one_count import Counted

MARKED = ".counted"
"""Before the suffix of a picture written here."""

SMALLEST, LARGEST, GIF_SIDE = 768, 2048, 480
PAPER, INK = (250, 250, 250), (30, 30, 30)
MARK, NEWEST = (20, 140, 50), (214, 0, 110)
GIF_MS, FRAME_MS, LAST_FRAME_MS = 15_000, (60, 500), 2500
LOOK_MS = 1500
"""How long a frame is shown, at the most, where it has several new marks."""


def fit(image: Image.Image, smallest: int = SMALLEST, largest: int = LARGEST) -> Image.Image:
    """Resize an RGB image so that its longer side, in pixels, lies within the limits."""
    longest = max(image.size)
    wanted = min(max(longest, smallest), largest)
    if wanted == longest:
        return image
    width, height = (max(1, round(side * wanted / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def annotate(
    image: Image.Image, points: np.ndarray, counted: Counted, category: str
) -> Image.Image:
    """Draw the numbered points onto a copy of an RGB image, and the count below it.

    points: (count, 2) in pixels of `image`, which may be a smaller copy of what was counted.
    """
    sheet = _Sheet(image, counted, category)
    for number, point in enumerate(points, start=1):
        sheet.mark(number, point)
    return sheet.captioned(counted.count)


def save_gif(
    path: Path, image: Image.Image, points: np.ndarray, counted: Counted, category: str
) -> None:
    """Write an animation that repeats: no mark, then what each look found, to all of them."""
    small = fit(image, smallest=GIF_SIDE, largest=GIF_SIDE)
    places = points * np.array(small.size) / image.size
    *_, last = _frames(small, places, counted, category)
    palette = _palette(last)
    frames = (
        frame.quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in _frames(small, places, counted, category)
    )
    shortest, longest = FRAME_MS
    steps = len(np.unique(counted.looks))
    if steps < counted.count:
        longest = LOOK_MS
    each = int(np.clip(GIF_MS / (steps + 1), shortest, longest))
    durations = [each] * steps + [LAST_FRAME_MS]
    next(frames).save(path, save_all=True, append_images=frames, duration=durations, loop=0)


def _palette(picture: Image.Image) -> Image.Image:
    """Return 255 colours: those of the picture, and those of the marks, however small they are."""
    own = [*NEWEST, *MARK, 255, 255, 255]
    palette = picture.quantize(255 - len(own) // 3)
    palette.putpalette([*(palette.getpalette() or ())[: 3 * 255 - len(own)], *own])
    return palette


def _frames(
    image: Image.Image, points: np.ndarray, counted: Counted, category: str
) -> Iterator[Image.Image]:
    """Yield a picture without marks and one a look, of one size; new marks have another colour."""
    sheet = _Sheet(image, counted, category)
    yield sheet.captioned(0)
    for look in np.unique(counted.looks):
        new = [(int(i) + 1, points[i]) for i in np.flatnonzero(counted.looks == look)]
        yield sheet.captioned(new[-1][0], new)
        for number, point in new:
            sheet.mark(number, point)


class _Sheet:
    """An image with a strip below it, to be marked point by point."""

    def __init__(self, image: Image.Image, counted: Counted, category: str) -> None:
        name = " ".join(category.split())[:40]
        why = "" if counted.stopped == "done" else f" (stopped: {counted.stopped})"
        self._captions = [f"{name}: {number}" for number in range(counted.count + 1)]
        self._captions[-1] += why
        strip = max(28, max(image.size) // 28)
        self._font = ImageFont.load_default(strip * 0.65)
        width = max(image.width, round(self._font.getlength(self._captions[-1])) + 12)
        self._height = image.height
        self._picture = Image.new("RGB", (width, image.height + strip), PAPER)
        self._picture.paste(image)
        share = np.clip(0.17 / np.sqrt(counted.count + 1), 0.011, 0.028)
        self._radius = max(image.size) * float(share)

    def mark(self, number: int, point: np.ndarray) -> None:
        """Draw a numbered disc at a point (2,) in pixels."""
        _disc(self._picture, number, point, self._radius, MARK)

    def captioned(self, number: int, new: Sequence[tuple[int, np.ndarray]] = ()) -> Image.Image:
        """Return a copy that says `number`; numbered points in `new` are marked on it only."""
        copy = self._picture.copy()
        for own, point in new:
            _disc(copy, own, point, self._radius, NEWEST)
        draw = ImageDraw.Draw(copy)
        draw.rectangle((0, self._height, *copy.size), PAPER)
        draw.text((6, self._height + 3), self._captions[number], INK, self._font)
        return copy


def _disc(
    picture: Image.Image, number: int, point: np.ndarray, radius: float, color: tuple[int, int, int]
) -> None:
    x, y = point.tolist()
    draw = ImageDraw.Draw(picture)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), color, "white")
    text = str(number)
    size = radius * (1.3 if len(text) == 1 else 2.4 / len(text))
    draw.text((x, y), text, "white", ImageFont.load_default(size), anchor="mm")
