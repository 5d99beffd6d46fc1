"""Fit an image of any shape into the model's square canvas, and its points with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

REFERENCE_SIDE = 384
"""Side of the canvas in the pixels that figures are quoted in, whatever the model's own."""


@dataclass(frozen=True)
class Letterbox:
    """The map from the pixels of one image to the square canvas that the model sees.

    The aspect ratio is kept (to the rounding of the shorter side to whole pixels); the image
    lies at the top left, what is left over on the right or below is black. Coordinates are
    continuous: an image spans [0, width] x [0, height], the canvas [-1, 1] x [-1, 1].
    """

    width: int
    height: int
    side: int

    @property
    def fitted(self) -> tuple[int, int]:
        """Width and height of the image on the canvas, in pixels of the canvas, at least 1."""
        scale = self.side / max(self.width, self.height)
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    @property
    def _units_per_pixel(self) -> np.ndarray:
        return 2 * np.array(self.fitted) / (self.side * np.array([self.width, self.height]))

    def to_canvas(self, points: np.ndarray) -> np.ndarray:
        """Map points (N, 2) in pixels of the image to [-1, 1], float64."""
        return np.asarray(points, dtype=np.float64).reshape(-1, 2) * self._units_per_pixel - 1

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Map points (N, 2) in [-1, 1] back to pixels of the image, float64."""
        return (np.asarray(points, dtype=np.float64).reshape(-1, 2) + 1) / self._units_per_pixel

    def clip(self, points: np.ndarray) -> np.ndarray:
        """Move points (N, 2) in [-1, 1] that lie on the padding onto the edge of the image."""
        return np.clip(points, -1, 2 * np.array(self.fitted) / self.side - 1)

    def apply(self, image: Image.Image) -> np.ndarray:
        """Return the canvas, uint8 (side, side, 3), with the RGB image resized onto it."""
        canvas = np.zeros((self.side, self.side, 3), dtype=np.uint8)
        width, height = self.fitted
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        canvas[:height, :width] = np.asarray(image)
        return canvas
