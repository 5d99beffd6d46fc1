"""What a trunk can be given beside a prompt: features in the place of pixels, and marks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

FEATURES = "image_features"
"""What a tower made of the images, (B, ...) in the layout of `Eyes.look`."""

MARKS, MARKED = "marks", "marked"
"""(B, M, 2) float32 in [-1, 1] of the canvas, padded; and (B, M) bool, which are real."""


def mark_inputs(marks: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Return the marks of a batch, (k, 2) in [-1, 1] of the canvas each, as a trunk takes them."""
    most = max(1, max(map(len, marks)))
    places = np.zeros((len(marks), most, 2), dtype=np.float32)
    real = np.zeros((len(marks), most), dtype=bool)
    for row, points in enumerate(marks):
        places[row, : len(points)] = points
        real[row, : len(points)] = True
    return {MARKS: torch.from_numpy(places), MARKED: torch.from_numpy(real)}
