"""Other views of a training image, its points with it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from raydual.data.randomness import example_rng

SMALLEST_CROP = 0.6
"""A crop keeps at least this share of the width, and of the height."""

SMALLEST_SCALE = 0.6
"""An image is made smaller to this share of its canvas at the least, in half of the views."""

COLOURS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
CHANGE = 1.35
"""Each of `COLOURS` is changed by a factor from 1 / CHANGE to CHANGE."""


def flip(image: Image.Image, points: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Mirror an image left to right; points (N, 2) in its pixels go with it."""
    mirrored = points * (-1, 1) + (image.width, 0)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored


def crop(
    image: Image.Image, points: np.ndarray, box: tuple[int, int, int, int]
) -> tuple[Image.Image, np.ndarray]:
    """Cut out left, top, right, bottom in pixels; points (N, 2) outside are removed."""
    inside = ((points >= box[:2]) & (points <= box[2:])).all(axis=1)
    return image.crop(box), points[inside] - box[:2]


def shrink(
    image: Image.Image, points: np.ndarray, scale: float, place: np.ndarray
) -> tuple[Image.Image, np.ndarray]:
    """Lay an image on a black one, of which its sides are the share `scale`.

    place: (2,) in [0, 1], from the left or upper edge to the other one.
    """
    size = np.rint(np.array(image.size) / scale).astype(int)
    left, top = np.floor(place * (size - image.size + 1)).astype(int).tolist()
    larger = Image.new(image.mode, tuple(size.tolist()))
    larger.paste(image, (left, top))
    return larger, points + np.array([left, top])


def recolour(image: Image.Image, factors: np.ndarray) -> Image.Image:
    """Change brightness, contrast and colour by factors (3,); 1 leaves them as they are."""
    for enhance, factor in zip(COLOURS, factors.tolist(), strict=True):
        image = enhance(image).enhance(factor)
    return image


def augment(
    image: Image.Image, points: np.ndarray, seed: int, epoch: int, row: str
) -> tuple[Image.Image, np.ndarray]:
    """Return the view of an RGB image that one epoch trains on, and the points (N, 2) in it.

    Mirrored in half of the epochs, cropped to `SMALLEST_CROP` or more of its width and of its
    height, anywhere, changed in its colours, and in half of the epochs made smaller. A crop that
    would leave none of its objects is not made. A function of (seed, epoch, row id): all tasks,
    which share the decoded image, see one view of it.
    """
    rng = example_rng(seed, epoch, row, "augment")
    mirror, *share = rng.random() < 0.5, *rng.uniform(SMALLEST_CROP, 1, 2)
    place = rng.random(2)
    factors = CHANGE ** rng.uniform(-1, 1, 3)
    smaller, scale, corner = rng.random() < 0.5, rng.uniform(SMALLEST_SCALE, 1), rng.random(2)
    if mirror:
        image, points = flip(image, points)
    size = np.maximum(1, np.rint(np.array(image.size) * share)).astype(int)
    left, top = np.floor(place * (np.array(image.size) - size + 1)).astype(int).tolist()
    width, height = size.tolist()
    cropped, kept = crop(image, points, (left, top, left + width, top + height))
    if len(kept) or not len(points):
        image, points = cropped, kept
    image = recolour(image, factors)
    return shrink(image, points, scale, corner) if smaller else (image, points)
