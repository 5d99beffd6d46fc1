"""Losses of the two tasks, one value an example, in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR, FAR = 0.05, 0.1
CELL_WEIGHT = 0.05
LEFT_WEIGHT = 0.2


def three_stage_loss(distance: Tensor) -> Tensor:
    """Return the distance loss: steep close in, linear far out, increasing throughout.

    `10 d²` for d < 0.05, `d² + 0.0225` for d < 0.1, `0.2 d + 0.0125` beyond, for the L1 distance
    d >= 0 in units of the canvas (its side is 2). Continuous: 0.025 at 0.05 and 0.0325 at 0.1.
    Any shape in, the same shape out.
    """
    near = 10 * distance**2
    middle = distance**2 + 0.0225
    far = 0.2 * distance + 0.0125
    return torch.where(distance < NEAR, near, torch.where(distance < FAR, middle, far))


def distance_loss(position: Tensor, target: Tensor) -> Tensor:
    """Return `three_stage_loss` of |dx| + |dy| for positions (..., 2) in [-1, 1]; shape (...)."""
    return three_stage_loss((position.float() - target.float()).abs().sum(-1))


def cell_of(target: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the raster index of the grid cell that holds each target.

    target: (..., 2), x and y in [-1, 1]; a target on the right or lower edge of the canvas belongs
    to the last column or row. grid: (rows, columns). Returns integers in [0, rows * columns).
    """
    rows, columns = grid
    column = ((target[..., 0] + 1) / 2 * columns).long().clamp(0, columns - 1)
    row = ((target[..., 1] + 1) / 2 * rows).long().clamp(0, rows - 1)
    return row * columns + column


def pointing_loss(
    scores: Tensor, positions: Tensor, target: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Return the training loss of the pointing head, shape (B,).

    The distance loss of the position that the target's own cell predicts, plus 0.05 times the
    cross-entropy of that cell among all cells.

    scores: (B, cells) logits; positions: (B, cells, 2) in the canvas' units; target: (B, 2).
    """
    cell = cell_of(target, grid)
    own = positions.gather(1, cell[:, None, None].expand(-1, 1, 2)).squeeze(1)
    return distance_loss(own, target) + CELL_WEIGHT * F.cross_entropy(
        scores.float(), cell, reduction="none"
    )


def every_object_loss(
    scores: Tensor, positions: Tensor, objects: Tensor, mask: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Return the training loss of the pointing head where any object may be next, shape (B,).

    The sum of two terms. The first is the mean distance loss over the objects, each with the
    position that its own cell predicts. The second is 0.05 times `-log p`, where p is the sum of
    softmax(scores) over the cells that hold an object. The loss is 0 without objects.

    scores: (B, cells) logits; positions: (B, cells, 2); objects: (B, L, 2) in [-1, 1], padded;
    mask: (B, L) bool, which are real.
    """
    own = positions.gather(1, cell_of(objects, grid)[:, :, None].expand(-1, -1, 2))
    number = mask.sum(dim=1)
    distances = torch.where(mask, distance_loss(own, objects), 0.0).sum(dim=1)
    scores = scores.float()
    held = cells_of(objects, mask, grid) > 0
    right = scores.masked_fill(~held, -torch.inf).logsumexp(dim=1)
    wrong = torch.where(number > 0, scores.logsumexp(dim=1) - right, 0.0)
    return distances / number.clamp(min=1) + CELL_WEIGHT * wrong


def cells_of(points: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return 1 for the cells that hold a point and 0 for the others, (B, cells) float32.

    points: (B, L, 2) in [-1, 1], padded; mask: (B, L) bool, which are real; grid: see `cell_of`.
    """
    empty = torch.zeros(len(points), grid[0] * grid[1], device=points.device)
    return empty.scatter_reduce(1, cell_of(points, grid), mask.float(), "amax")


def left_loss(scores: Tensor, held: Tensor) -> Tensor:
    """Return what teaches the done head where something is left, shape (B,).

    The focal loss (Lin et al. 2017, without its class weight, exponent 2) of each cell, summed
    over the cells, times 0.2: of the many cells that hold nothing, those that look as if they did
    count.

    scores: (B, cells) logits; held: (B, cells) in {0, 1}, see `cells_of`.
    """
    scores = scores.float()
    wrong = (held - scores.sigmoid()).abs()
    each = F.binary_cross_entropy_with_logits(scores, held, reduction="none")
    return LEFT_WEIGHT * (wrong**2 * each).sum(dim=1)


def done_loss(logit: Tensor, label: Tensor) -> Tensor:
    """Return the binary cross-entropy of logits (B,) against labels (B,) in {0, 1}; shape (B,)."""
    return F.binary_cross_entropy_with_logits(logit.float(), label.float(), reduction="none")
