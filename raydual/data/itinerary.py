"""Which rows of an epoch a rank still has to read, and in which order: a pure function of the seed.

An epoch that was interrupted may go on with other workers, or with other batches. What was read
under one of them is a leg; the rows that no leg has read are dealt out anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raydual.data.loading import random_order


class Leg(NamedTuple):
    """A part of an epoch: ranks that trained together, the rows of each in an iteration.

    done: the iterations that they finished.
    """

    ranks: int
    batch: int
    done: int = 0


def extent(total: int, legs: Sequence[Leg], max_iterations: int | None) -> tuple[int, int]:
    """Return the rows, of all ranks, and the iterations of an epoch, those to come included.

    total: the rows there are; each rank gets equally many, so that fewer than ranks are left out.
    max_iterations: limits the rows, by the batches of the first leg.
    """
    share = _limited(total, legs[0], max_iterations)
    rows = left = share * legs[0].ranks
    for leg in legs:
        share = left // leg.ranks
        left -= leg.ranks * min(share, leg.done * leg.batch)
    to_come = -(-(left // legs[-1].ranks) // legs[-1].batch)
    return rows, sum(leg.done for leg in legs) + to_come


def unread(
    total: int, legs: Sequence[Leg], max_iterations: int | None, *, rank: int, seed: Sequence[int]
) -> list[int]:
    """Return the rows that a rank of the last leg reads next, in order, as positions below `total`.

    seed: of the training, and the epoch. total, max_iterations: as for `extent`.
    """
    share, whole = _limited(total, legs[0], max_iterations), total // legs[0].ranks
    rows = [r * whole + i for r in range(legs[0].ranks) for i in range(share)]
    for number, leg in enumerate(legs[:-1]):
        done = {row for r in range(leg.ranks) for row in _part(rows, leg, r, seed, number)[0]}
        rows = [row for row in rows if row not in done]
    return _part(rows, legs[-1], rank, seed, len(legs) - 1)[1]


def _limited(total: int, leg: Leg, max_iterations: int | None) -> int:
    share = total // leg.ranks
    return min(share, (max_iterations or share) * leg.batch)


def _part(
    rows: Sequence[int], leg: Leg, rank: int, seed: Sequence[int], number: int
) -> tuple[list[int], list[int]]:
    """Return what a rank has read of its equal share of the rows in a leg, and what it has not.

    number: of the leg, from 0. The few rows that cannot be dealt evenly are in no share.
    """
    share = len(rows) // leg.ranks
    order = random_order(share, (*seed, rank, number) if number else (*seed, rank))
    mine = [rows[rank * share + i] for i in order]
    return mine[: leg.done * leg.batch], mine[leg.done * leg.batch :]
