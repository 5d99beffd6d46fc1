"""Read the rows of a plan and make them samples: decoded, letterboxed, ordered.

Light on purpose: what is here also runs in Ray Data's workers, which must not load torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from raydual.data.augment import augment
from raydual.data.images import CorruptImageError, decode_image
from raydual.data.letterbox import REFERENCE_SIDE, Letterbox
from raydual.data.ordering import ORDERS
from raydual.data.patience import patiently
from raydual.data.plan import Unit
from raydual.data.schema import Row, open_shard, rows_of
from raydual.data.shard_checks import refuse_nulls

SHUFFLE_ROWS = 256


@dataclass(frozen=True)
class Sample:
    """One row as the model will see it.

    pixels: uint8 (side, side, 3), black where the image could not be decoded.
    points: float64 (N, 2) in [-1, 1], in the order of counting.
    error: why the row cannot be used; None for a good one.
    size: width and height of the image in pixels, as it was put on the canvas; (1, 1) of one that
    cannot be decoded.
    view: number of this reading of the row within the epoch, from 0.
    features: what a frozen tower makes of the image; its pixels are black then, for nobody asks
    for them. bfloat16 values are held as uint16.
    """

    id: str
    category: str
    pixels: np.ndarray
    points: np.ndarray
    error: str | None = None
    size: tuple[int, int] = (1, 1)
    view: int = 0
    features: np.ndarray | None = None

    @property
    def key(self) -> str:
        """What random choices about this sample depend on: its row, and its view."""
        return f"{self.id}#{self.view}" if self.view else self.id

    def in_view(self, view: int) -> Sample:
        """Return the sample as that of another view."""
        return replace(self, view=view)

    @property
    def letterbox(self) -> Letterbox:
        """How the stored image lies on the canvas."""
        return Letterbox(*self.size, self.pixels.shape[0])


class Kept(Protocol):
    """What has the samples of a unit with their features; see `KeptFeatures`."""

    def read(self, unit: Unit, side: int) -> list[Sample]:
        """Return the samples of a unit in its order."""
        ...


@dataclass(frozen=True)
class Preparation:
    """How a row becomes a sample: the side of the canvas and the order of counting.

    augment: seed and epoch of the views to train on (see `augment`); None for the image as it is.
    kept: where features lie that are read in the place of images; None to read images.
    """

    image_size: int
    order: str
    augment: tuple[int, int] | None = None
    kept: Kept | None = None


def load_unit(unit: Unit, preparation: Preparation) -> list[Sample]:
    """Read one unit and return its samples in the unit's order.

    Only the unit's row group is read. A corrupt image gives a sample with `error` set.

    Raises:
        DataError: the shard, or the file with its features, cannot be read.
    """
    if preparation.kept is not None:
        return preparation.kept.read(unit, preparation.image_size)
    columns = ["id", "category", "image", "points"]

    def read() -> pa.Table:
        with open_shard(unit.shard) as parquet:
            table = parquet.read_row_group(unit.row_group, columns=columns).take(list(unit.rows))
        refuse_nulls(table)
        return table

    return [_sample(row, unit.view, preparation) for row in rows_of(patiently(read))]


def _sample(row: Row, view: int, preparation: Preparation) -> Sample:
    side = preparation.image_size
    try:
        image = decode_image(row.image)
        if not np.isfinite(row.points).all():
            raise CorruptImageError("a point is not finite")
        if (row.points < -1).any() or (row.points > np.add(image.size, 1)).any():
            raise CorruptImageError("a point lies outside the image")
    except CorruptImageError as error:
        black = np.zeros((side, side, 3), dtype=np.uint8)
        return Sample(row.id, row.category, black, np.zeros((0, 2)), str(error), view=view)
    points = row.points
    if preparation.augment is not None:
        name = f"{row.id}#{view}" if view else row.id
        image, points = augment(image, points, *preparation.augment, name)
    box = Letterbox(*image.size, side)
    points = box.to_canvas(points)
    order = ORDERS[preparation.order]((points + 1) / 2 * REFERENCE_SIDE)
    return Sample(row.id, row.category, box.apply(image), points[order], None, image.size, view)


def load_here(
    units: Sequence[Unit], preparation: Preparation, threads: int = 2
) -> Iterator[Sample]:
    """Yield the samples of the units in order, decoded a few units ahead by threads."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[list[Sample]]] = deque()
        for unit in units:
            ahead.append(pool.submit(load_unit, unit, preparation))
            if len(ahead) > threads:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def random_order(count: int, seed: Sequence[int]) -> list[int]:
    """Return the positions 0..count-1 in a random order; the seed decides alone.

    Each next one is drawn from a window of 256, so that as many samples have to be kept at most.
    """
    rng = np.random.default_rng(seed)
    order: list[int] = []
    window: list[int] = []
    for position in range(count):
        window.append(position)
        if len(window) == SHUFFLE_ROWS:
            order.append(_take_out(window, rng))
    while window:
        order.append(_take_out(window, rng))
    return order


def arranged(samples: Iterable[Sample], order: Sequence[int]) -> Iterator[Sample]:
    """Yield samples by their positions in `order`; they come in the order of these positions."""
    coming = zip(sorted(order), samples, strict=True)
    waiting: dict[int, Sample] = {}
    for position in order:
        while position not in waiting:
            at, sample = next(coming)
            waiting[at] = sample
        yield waiting.pop(position)


def _take_out(window: list[int], rng: np.random.Generator) -> int:
    i = int(rng.integers(len(window)))
    window[i], window[-1] = window[-1], window[i]
    return window.pop()


def batched(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield lists of `size` samples; the last may be shorter."""
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
