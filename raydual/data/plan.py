"""Which rows a rank reads in an epoch, and in which order: a pure function of the seed.

The plan is made of units, the eligible rows of one Parquet row group. It depends on nothing
that varies between two runs of one configuration, so a resumed run reads what an undisturbed
one would have read, and validation can spread every row over the ranks without losing any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from raydual.data.schema import open_shard, shards
from raydual.data.shard_checks import refuse_nulls
from raydual.errors import DataError


@dataclass(frozen=True)
class Unit:
    """Some rows of one row group of one shard, in the order in which they are to be read.

    view: how often an epoch has the rows before, in other views of their images.
    """

    shard: str
    row_group: int
    rows: tuple[int, ...]
    view: int = 0


def read_index(
    path: str,
    split: str,
    *,
    category: str | None = None,
    min_objects: int = 0,
    max_objects: int | None = None,
    need_objects: bool = False,
) -> list[Unit]:
    """List the eligible rows of a split, reading the category and points columns only.

    need_objects: whether at least one of the images has to have an object.

    Raises:
        DataError: the dataset or the split is missing or damaged, has no row of the category, or
            none within the limits; the message lists what there is.
    """
    units: list[Unit] = []
    categories: set[str] = set()
    of_category = objects = 0
    for shard in shards(path, split):
        with open_shard(shard) as parquet:
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=["category", "points"])
                refuse_nulls(table)
                names = np.array(table["category"].to_pylist(), dtype=object)
                counts = pc.list_value_length(table["points"]).to_numpy(zero_copy_only=False)
                categories.update(names.tolist())
                wanted = names == category if category is not None else np.ones(len(names), bool)
                of_category += int(wanted.sum())
                wanted = wanted & (counts >= min_objects)
                if max_objects is not None:
                    wanted = wanted & (counts <= max_objects)
                objects += int(counts[wanted].sum())
                if wanted.any():
                    units.append(Unit(shard, group, tuple(np.flatnonzero(wanted).tolist())))
    if not of_category:
        there = ", ".join(sorted(categories)[:20]) or "none"
        raise DataError(f"{path}: no {category!r} in its {split} split; categories there: {there}")
    if not units:
        limits = f"min_objects={min_objects}, max_objects={max_objects}"
        raise DataError(
            f"{path}: none of {of_category} rows of the {split} split is within {limits}"
        )
    if need_objects and not objects:
        raise DataError(
            f"{path}: no image of the {split} split has an object; coordinates need at least one"
        )
    return units


def num_rows(units: Sequence[Unit]) -> int:
    """Return the number of rows that the units hold together."""
    return sum(len(unit.rows) for unit in units)


def repeated(units: Sequence[Unit], times: int) -> list[Unit]:
    """Return the units several times over, each time as another view."""
    return [replace(unit, view=view) for view in range(times) for unit in units]


def shuffled(units: Sequence[Unit], *, seed: int, epoch: int) -> list[Unit]:
    """Return the rows of one epoch: row groups in a random order, and the rows within each."""
    rng = np.random.default_rng((seed, epoch, 0x7EA1))
    mixed = []
    for i in rng.permutation(len(units)):
        rows = rng.permutation(np.array(units[i].rows))
        mixed.append(replace(units[i], rows=tuple(rows.tolist())))
    return mixed


def val_plan(units: Sequence[Unit], *, rank: int, world_size: int, max_rows: int) -> list[Unit]:
    """Return what one rank validates on: a contiguous share.

    The shares of all ranks hold each of the first `max_rows` rows once.
    """
    total = min(max_rows, num_rows(units))
    return slice_rows(units, rank * total // world_size, (rank + 1) * total // world_size)


def slice_rows(units: Sequence[Unit], start: int, stop: int) -> list[Unit]:
    """Return rows start..stop of the concatenation of the units."""
    part, position = [], 0
    for unit in units:
        rows = unit.rows[max(0, start - position) : max(0, stop - position)]
        if rows:
            part.append(replace(unit, rows=rows))
        position += len(unit.rows)
    return part


def rows_at(units: Sequence[Unit], positions: Sequence[int]) -> list[Unit]:
    """Return the rows at increasing positions of the concatenation of the units."""
    part, start = [], 0
    wanted = np.array(positions, dtype=int)
    for unit in units:
        inside = wanted[(wanted >= start) & (wanted < start + len(unit.rows))] - start
        if len(inside):
            rows = tuple(np.array(unit.rows)[inside].tolist())
            part.append(replace(unit, rows=rows))
        start += len(unit.rows)
    return part
