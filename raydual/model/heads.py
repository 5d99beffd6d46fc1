"""Heads: from the trunk's last hidden state to a position or a logit, in float32.

Every head takes the hidden states of the readout tokens `<x> <y> <done>`, (B, 3, D), of the image
tokens in raster order, (B, rows * columns, D), and of the category, (B, D). The category is given
apart because a trunk trained from nothing needs long to carry it over to a hundred image tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

X, Y, DONE = 0, 1, 2
PLACE_STD = 0.02


class Places(NamedTuple):
    """Where objects may be, (B, n, 2), in the order in which they are to be tried.

    chances: (B, n), by which places are chosen. sure: (B, n), the probability that an object
    without a mark lies in the place's cell.
    """

    positions: Tensor
    chances: Tensor
    sure: Tensor


class Position(NamedTuple):
    """Where the next object is.

    position: (B, 2), x and y in [-1, 1] of the canvas: what is read out.
    scores: (B, cells) logits, one a grid cell; None from a head without a grid.
    positions: (B, cells, 2): what each cell would answer; None likewise.
    left: (B, cells) logits that an object without a mark lies in a cell; None likewise.
    """

    position: Tensor
    scores: Tensor | None = None
    positions: Tensor | None = None
    left: Tensor | None = None

    def ranked(self) -> Places:
        """Return all positions, the likeliest next one first.

        A head without a grid has one, of likelihood 1.
        """
        if self.scores is None or self.positions is None or self.left is None:
            one = torch.ones_like(self.position[:, :1])
            return Places(self.position[:, None], one, one)
        chances, order = self.scores.softmax(dim=1).sort(dim=1, descending=True, stable=True)
        positions = self.positions.gather(1, order[:, :, None].expand(-1, -1, 2))
        return Places(positions, chances, self.left.sigmoid().gather(1, order))

    def peaks(self, grid: tuple[int, int]) -> Places:
        """Return the positions of all cells, the surest first; of a head with a grid.

        A cell that is less sure than one of the eight around it has a chance of 0.

        grid: rows and columns.
        """
        assert self.positions is not None
        assert self.left is not None
        sure = self.left.sigmoid()
        highest = F.max_pool2d(sure.unflatten(1, grid)[:, None], 3, 1, 1).flatten(1)
        chances, order = torch.where(sure >= highest, sure, 0.0).sort(
            dim=1, descending=True, stable=True
        )
        positions = self.positions.gather(1, order[:, :, None].expand(-1, -1, 2))
        return Places(positions, chances, chances)


class LeftHead(nn.Module):
    """Says of each cell whether an object of the category without a mark lies in it.

    It starts undecided: with a bias towards the many empty cells, the focal loss that teaches it
    hardly sees at first what lies in the others.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.asked = nn.Linear(2 * hidden_size, 2 * hidden_size)
        self.cell = nn.Linear(hidden_size, 2 * hidden_size)
        self.score = nn.Linear(2 * hidden_size, 1)
        nn.init.zeros_(self.score.bias)

    def forward(self, readout: Tensor, cells: Tensor, category: Tensor) -> Tensor:
        """(B, D), (B, cells, D), (B, D) -> logits (B, cells)."""
        asked = self.asked(torch.cat([readout, category], dim=1).float())
        return self.score(F.gelu(self.cell(cells.float()) + asked[:, None])).squeeze(2)


class PointingHead(nn.Module):
    """A query from readout tokens and category scores every image token; the strongest answers.

    A cell's score says how likely it holds an object without a mark and, among those that do, how
    early that one comes. A cell's key knows its place in the grid, which a trunk with relative
    positions would first have to learn. Each cell predicts an offset from its own centre, at most
    one cell's side in x and in y. The position is that of the strongest cell: an average over
    cells would land between two objects that are equally next.

    places: whether keys know their place, as an order of counting needs. Where any object may be
    next, places would only be learned by heart.
    """

    def __init__(self, hidden_size: int, grid: tuple[int, int], places: bool = True) -> None:
        super().__init__()
        self.query = _mlp(3 * hidden_size, hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.left = LeftHead(hidden_size)
        self.place = None
        if places:
            self.place = nn.Parameter(torch.randn(grid[0] * grid[1], hidden_size) * PLACE_STD)
        self.offset = nn.Sequential(nn.GELU(), nn.Linear(hidden_size, 2))
        self.scale = 1 / math.sqrt(hidden_size)
        rows, columns = grid
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        steps = torch.tensor([2 / columns, 2 / rows])
        centres = (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * steps - 1
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("steps", steps, persistent=False)

    def forward(self, readouts: Tensor, cells: Tensor, category: Tensor) -> Position:
        """(B, 3, D), (B, cells, D), (B, D) -> the position read out, all scores and positions."""
        asked = [readouts[:, X], readouts[:, Y], category]
        query = self.query(torch.cat(asked, dim=1).float())
        keys = self.key(cells.float())
        if self.place is not None:
            keys = keys + self.place
        left = self.left(readouts[:, X], cells, category)
        scores = torch.einsum("bd,bcd->bc", query, keys) * self.scale + F.logsigmoid(left)
        offsets = self.offset(keys + query[:, None]).tanh()
        positions = (self.centres + offsets * self.steps).clamp(-1, 1)
        best = scores.argmax(dim=1)
        position = positions[torch.arange(len(best), device=best.device), best]
        return Position(position, scores, positions, left)


class MLPCoordHead(nn.Module):
    """Two MLPs, x from the hidden state of `<x>` and y from that of `<y>`."""

    def __init__(self, hidden_size: int, grid: tuple[int, int], places: bool = True) -> None:
        super().__init__()
        self.x_head = _mlp(hidden_size, hidden_size, 1)
        self.y_head = _mlp(hidden_size, hidden_size, 1)

    def forward(self, readouts: Tensor, cells: Tensor, category: Tensor) -> Position:
        """(B, 3, D), ignored, ignored -> positions (B, 2) within [-1, 1]."""
        x, y = self.x_head(readouts[:, X].float()), self.y_head(readouts[:, Y].float())
        return Position(torch.cat([x, y], dim=1).tanh())


class Verdict(NamedTuple):
    """Whether every object is marked.

    logit: (B,) that it is so. left: (B, cells) logits that an object without a mark lies in a cell.
    """

    logit: Tensor
    left: Tensor


class DoneHead(nn.Module):
    """Nothing is left: an MLP on the hidden state of `<done>`, less what any cell still holds.

    Done is a negated OR over the image: one object without a mark, wherever it is, decides. So
    each cell says, beside readout and category, whether it holds one, and the soft maximum of
    that over the cells is subtracted from what the readout alone says.
    """

    def __init__(self, hidden_size: int, grid: tuple[int, int]) -> None:
        super().__init__()
        answer = nn.Linear(hidden_size, 1)
        # about what is subtracted at first, so that training starts undecided
        nn.init.constant_(answer.bias, math.log(grid[0] * grid[1]))
        self.done_head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.GELU(), answer)
        self.left = LeftHead(hidden_size)

    def forward(self, readouts: Tensor, cells: Tensor, category: Tensor) -> Verdict:
        """(B, 3, D), (B, cells, D), (B, D) -> the verdict, and what it is made of."""
        left = self.left(readouts[:, DONE], cells, category)
        alone = self.done_head(readouts[:, DONE].float()).squeeze(1)
        return Verdict(alone - left.logsumexp(dim=1), left)


COORD_HEADS: dict[str, type[nn.Module]] = {"pointing": PointingHead, "mlp": MLPCoordHead}


def take_over(head: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Start from the weights of a trained head; one of another kind leaves the head as it is.

    saved: its `state_dict`. Where it was of another grid, its places are resampled; where the
    head has no places, they are left out.
    """
    own = head.state_dict()
    saved = {name: value for name, value in saved.items() if name in own or name != "place"}
    if own.keys() != saved.keys():
        return
    fitted = {n: _resampled(v, len(own[n])) if n == "place" else v for n, v in saved.items()}
    if all(fitted[name].shape == value.shape for name, value in own.items()):
        head.load_state_dict(fitted)


def _resampled(places: Tensor, cells: int) -> Tensor:
    """(n * n, D) of a square grid -> (cells, D) of another one, linear in between."""
    old, new = math.isqrt(len(places)), math.isqrt(cells)
    grid = places.T.unflatten(1, (old, old))[None]
    return F.interpolate(grid, (new, new), mode="bilinear")[0].flatten(1).T.contiguous()


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
