"""Marks without paint: learned vectors on the image tokens where the marked objects lie."""

from __future__ import annotations

import torch
from torch import Tensor

from raydual.losses import cell_of

NUM_VECTORS = 2


def spread(marks: Tensor, marked: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return what each cell has of the marks, (B, rows * columns, `NUM_VECTORS`) float32.

    First the share of marks spread over the four nearest cells by bilinear weights, so that a
    mark keeps its position within a cell; what would lie outside the grid is dropped. Then the
    number of marks inside the cell.

    marks: (B, M, 2) in [-1, 1]; marked: (B, M) bool. grid: rows and columns.
    """
    rows, columns = grid
    sides = torch.tensor([columns, rows], device=marks.device)
    place = (marks + 1) / 2 * sides - 0.5
    corner = place.floor()
    part = place - corner
    shares = torch.zeros(len(marks), rows * columns, NUM_VECTORS, device=marks.device)
    for right in (0, 1):
        for below in (0, 1):
            step = torch.tensor([right, below], device=marks.device)
            cell = corner + step
            weight = (1 - step + (2 * step - 1) * part).prod(dim=-1)
            inside = ((cell >= 0) & (cell < sides)).all(dim=-1) & marked
            column, row = cell.long().clamp(min=0).unbind(-1)
            index = row.clamp(max=rows - 1) * columns + column.clamp(max=columns - 1)
            shares[:, :, 0].scatter_add_(1, index, weight * inside)
    shares[:, :, 1].scatter_add_(1, cell_of(marks, grid), marked.float())
    return shares
