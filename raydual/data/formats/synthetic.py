"""Images drawn from a seed: shapes of one named category on a background, and others beside.

Image i is a function of the configuration, seed included, and i alone; how many images are
asked for decides only which split it is in.
"""

import colorsys
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from raydual.data.formats.splits import DEFAULT_FRACTIONS, quotas
from raydual.data.schema import SPLITS, Row

DRAWING = 1
"""Of how things are drawn; raised whenever the same configuration gives other images."""

SUPERSAMPLE = 4
DENSEST = 0.5
"""The share of the image above which discs can hardly be placed at random any more."""
CELL = 8
"""The least pixels of side per object that are asked for, so that every object can be seen."""


def _ring(corners: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """Corners (corners, 2) around the origin, at `radii` in turn."""
    angles = np.arange(corners) * 2 * np.pi / corners
    radius = np.resize(radii, corners)
    return np.stack([np.sin(angles) * radius, -np.cos(angles) * radius], axis=1)


_ARM = 0.32
_CROSS = [(-_ARM, -0.95), (_ARM, -0.95), (_ARM, -_ARM), (0.95, -_ARM), (0.95, _ARM), (_ARM, _ARM)]

SHAPES: dict[str, np.ndarray] = {
    "circle": _ring(48),
    "square": _ring(4),
    "triangle": _ring(3),
    "star": _ring(10, (1.0, 0.45)),
    "cross": np.array([*_CROSS, *(-np.array(_CROSS))]),
}
"""Outlines (corners, 2) around the centre of mass at the origin, within a radius of 1."""


class SynthConfig(BaseModel):
    """What is drawn. Sizes are diameters, as fractions of the image's side."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(2400, ge=3)
    seed: int = Field(0, ge=0)
    image_size: int = Field(192, ge=32, le=4096)
    min_objects: int = Field(1, ge=0)
    max_objects: int = Field(8, ge=1)
    min_size: float = Field(0.08, gt=0, le=0.5)
    max_size: float = Field(0.2, gt=0, le=0.5)
    overlap: float = Field(0.0, ge=0, le=0.8)
    background: Literal["plain", "gradient", "texture"] = "texture"
    distractors: int = Field(0, ge=0)
    categories: tuple[str, ...] = ("circle", "square", "triangle", "star")
    splits: tuple[float, float, float] = DEFAULT_FRACTIONS

    @field_validator("categories")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in SHAPES]
        if unknown or not names or len(set(names)) != len(names):
            raise ValueError(f"expected different names among {', '.join(SHAPES)}")
        return names

    @field_validator("splits")
    @classmethod
    def _whole(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
            raise ValueError("expected fractions of train, val and test that add up to 1")
        return fractions

    @model_validator(mode="after")
    def _drawable(self) -> "SynthConfig":
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} > max_objects {self.max_objects}")
        if self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size} > max_size {self.max_size}")
        if self.distractors and len(self.categories) < 2:
            raise ValueError("distractors need at least two categories")
        most = (self.image_size // CELL) ** 2
        if self.max_objects + self.distractors > most:
            raise ValueError(
                f"max_objects + distractors is {self.max_objects + self.distractors}, at most "
                f"{most} can be told apart at image_size {self.image_size}"
            )
        return self


@dataclass(frozen=True)
class Drawing:
    """One image, RGB, with the centres (N, 2) in pixels of the objects of its category."""

    image: Image.Image
    category: str
    points: np.ndarray


def rows(config: SynthConfig) -> Iterator[Row]:
    """All images as rows, JPEG, in order of their index."""
    for index, split in enumerate(splits_of(config)):
        drawing = draw(config, index)
        buffer = io.BytesIO()
        drawing.image.save(buffer, "JPEG", quality=90)
        side = config.image_size
        row_id = name_of(config, index)
        yield Row(row_id, split, drawing.category, buffer.getvalue(), side, side, drawing.points)


def name_of(config: SynthConfig, index: int) -> str:
    """The id of an image."""
    return f"synth-{config.seed}-{index:06d}"


def splits_of(config: SynthConfig) -> list[str]:
    """The split of each image: the first are for training, the last for testing."""
    sizes = quotas(config.images, config.splits)
    return [split for split, size in zip(SPLITS, sizes, strict=True) for _ in range(size)]


def draw(config: SynthConfig, index: int) -> Drawing:
    """Draw one image: a count, uniform within its limits, of one category, and distractors."""
    rng = np.random.default_rng([config.seed, index])
    category = str(rng.choice(config.categories))
    others = [name for name in config.categories if name != category]
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    distractors = int(rng.integers(config.distractors + 1))
    shapes = [category] * count + [str(rng.choice(others)) for _ in range(distractors)]
    centres, radii = _place(rng, len(shapes), config)
    base = rng.uniform(165, 235) + rng.uniform(-15, 15, 3)
    canvas = _background(rng, base, config)
    for i in rng.permutation(len(shapes)):
        outline = SHAPES[shapes[i]] * radii[i] @ _rotation(rng.uniform(0, 2 * np.pi))
        _paint(canvas, centres[i], radii[i], outline, _colour(rng))
    image = Image.fromarray(canvas.astype(np.uint8))
    return Drawing(image, category, centres[:count])


def _place(
    rng: np.random.Generator, count: int, config: SynthConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (count, 2) and radii (count,) in pixels, no closer than the overlap allows.

    Where they do not fit, all become smaller, until they do: the count is always exact.
    """
    side = config.image_size
    radii = rng.uniform(config.min_size, config.max_size, count) * side / 2
    covered = np.pi * np.sum((radii * (1 - config.overlap)) ** 2) / side**2
    radii *= min(1, math.sqrt(DENSEST / max(covered, 1e-9)))
    while True:
        centres = np.empty((count, 2))
        for i, radius in enumerate(radii):
            margin = radius + 2
            tries = rng.uniform(margin, side - margin, (40, 2))
            gaps = np.linalg.norm(tries[:, None] - centres[None, :i], axis=2)
            needed = (radii[:i] + radius) * (1 - config.overlap) + (config.overlap == 0)
            free = np.flatnonzero((gaps >= needed).all(axis=1))
            if not len(free):
                break
            centres[i] = tries[free[0]]
        else:
            return centres, radii
        radii = radii * 0.93


def _background(rng: np.random.Generator, base: np.ndarray, config: SynthConfig) -> np.ndarray:
    """Float32 (side, side, 3) in 0..255."""
    side = config.image_size
    canvas = np.empty((side, side, 3), dtype=np.float32)
    canvas[:] = base
    if config.background == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        ramp = np.linspace(-0.5, 0.5, side)
        slope = math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]
        canvas += slope[:, :, None] * rng.uniform(-40, 40, 3)
    elif config.background == "texture":
        cells = int(rng.integers(4, 20))
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        strength = np.float32(rng.uniform(0.1, 0.35))
        canvas += (np.asarray(smooth) - np.float32(128)) * strength
        canvas += rng.integers(-12, 13, (side, side, 1), dtype=np.int8).astype(np.float32)
    return canvas.clip(0, 255, out=canvas)


def _paint(
    canvas: np.ndarray, centre: np.ndarray, radius: float, outline: np.ndarray, colour: np.ndarray
) -> None:
    """Fill an outline (corners, 2) around `centre`, its edges smooth."""
    left, top = np.floor(centre - radius - 1).astype(int)
    side = math.ceil(2 * radius) + 3
    corners = (outline + centre - (left, top)) * SUPERSAMPLE
    mask = Image.new("L", (side * SUPERSAMPLE, side * SUPERSAMPLE))
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners.tolist()], fill=255)
    cover = np.asarray(mask.reduce(SUPERSAMPLE), dtype=np.float32)[:, :, None] / 255
    patch = canvas[top : top + side, left : left + side]
    cover = cover[: patch.shape[0], : patch.shape[1]]
    patch += cover * (colour.astype(np.float32) - patch)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A strong colour (3,) that stands out from the pale background, and is not a mark's green."""
    hue, saturation, value = rng.uniform((0.45, 0.65, 0.3), (1.25, 1, 0.9))
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))
