"""The images that were counted worst, drawn with what was found and what was missed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from raydual.counting.localisation import Matching, match
from raydual.counting.predictions import Prediction

RADIUS = 20.0
"""How far a mark may lie from its object in these pictures, in pixels of 384."""

SIDE = 480
FOUND, MISSED, WRONG, TWICE = (40, 200, 90), (235, 40, 60), (255, 176, 0), (190, 60, 255)
COLORS = {"found": FOUND, "missed": MISSED, "no object there": WRONG, "marked twice": TWICE}


def matching_of(prediction: Prediction) -> Matching:
    """Match one image's marks to its objects, within `RADIUS`."""
    return match(*prediction.reference_points, RADIUS)


def worst(predictions: Sequence[Prediction], most: int) -> list[int]:
    """Return the places of up to `most` images in the list, the worst first.

    By how far the count is off, then by how many objects were missed and marks lie wrong. Images
    that were counted right, every mark on its object, and those that could not be read are left
    out.
    """
    ranked = []
    for place, prediction in enumerate(predictions):
        if prediction.error is None:
            off = abs(prediction.count - prediction.true_count)
            matched = len(matching_of(prediction).pairs)
            astray = prediction.count + prediction.true_count - 2 * matched
            if astray:
                ranked.append((-off, -astray, place))
    return [place for *_, place in sorted(ranked)[:most]]


def draw(image: Image.Image, prediction: Prediction) -> Image.Image:
    """Draw an image, its longest side `SIDE` pixels, with its objects and marks.

    A ring is an object: green where it was found, with a line to its mark, red where it was
    missed. A cross is a mark on nothing: yellow, or violet on an object that has another mark.
    """
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    matching = matching_of(prediction)
    objects, marks = prediction.true_points * scale, prediction.points * scale
    radius = float(np.clip(60 / np.sqrt(len(objects) + 1), 4, 9))
    found = dict(matching.pairs.tolist())
    for i, place in enumerate(objects):
        _ring(pen, place, radius, FOUND if i in found else MISSED)
    for i, mark in found.items():
        pen.line((*objects[i], *marks[mark]), FOUND, 2)
    for i in set(range(len(marks))) - set(found.values()):
        _cross(pen, marks[i], radius * 0.8, TWICE if i in matching.duplicates else WRONG)
    return picture


def _ring(
    pen: ImageDraw.ImageDraw, place: np.ndarray, radius: float, color: tuple[int, int, int]
) -> None:
    for grow, width, shade in ((1, 5, (0, 0, 0)), (0, 3, color)):
        r = radius + grow
        pen.ellipse((place[0] - r, place[1] - r, place[0] + r, place[1] + r), None, shade, width)


def _cross(
    pen: ImageDraw.ImageDraw, place: np.ndarray, radius: float, color: tuple[int, int, int]
) -> None:
    x, y = place
    for grow, width, shade in ((1.5, 6, (0, 0, 0)), (0, 3, color)):
        r = radius + grow
        pen.line((x - r, y - r, x + r, y + r), shade, width)
        pen.line((x - r, y + r, x + r, y - r), shade, width)
