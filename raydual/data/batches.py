"""The batches of one rank: plan, samples, examples, one batch an objective."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from raydual.config_tree import Config
from raydual.data.examples import VAL_EPOCH, Batch, Encoder, collate
from raydual.data.features import KeptFeatures
from raydual.data.itinerary import Leg, extent, unread
from raydual.data.loading import Preparation, Sample, arranged, batched
from raydual.data.plan import (
    Unit,
    num_rows,
    read_index,
    repeated,
    rows_at,
    shuffled,
    slice_rows,
    val_plan,
)
from raydual.data.prefetch import Prefetched
from raydual.data.schema import open_shard, shards
from raydual.tasks import SEPARATE, Objective, objectives

T = TypeVar("T")
Source = Callable[[Sequence[Unit], Preparation], Iterable[Sample]]
"""What reads the rows of a plan, in its order: in this process or by Ray Data."""

KEEP_BYTES = 2**28
"""Validation samples are decoded once and kept, where their pixels take no more than this."""


class BatchStream:
    """Batches of one rank, the same whichever source the samples come from.

    kept: features that training and validation read in the place of images; see `data.views`.

    Raises, when made:
        DataError: the dataset or a split is missing or has no row that the configuration wants,
            or there are fewer training rows than workers.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        source: Source,
        rank: int = 0,
        world_size: int = 1,
        kept: KeptFeatures | None = None,
    ) -> None:
        self.config = config
        self.encoder = encoder
        self._source = source
        self.rank, self.world_size = rank, world_size
        self._images = Preparation(config.data.image_size, config.data.order)
        self._preparation = replace(self._images, kept=kept)
        # a validation has no views, only other marks
        self._val_preparation = replace(self._images, kept=kept and replace(kept, views=1))
        units, self._val_images = read_splits(config)
        self._train_units = repeated(units, passes(config, num_rows(units)))
        self._val_units = repeated(self._val_images, config.train.val_marks)
        self._val_kept: list[Sample] | None = None

    @property
    def leg(self) -> Leg:
        """The ranks and their batches now, at the beginning of an epoch."""
        train = self.config.train
        return Leg(self.world_size, train.batch_size * train.accumulate)

    @property
    def train_rows(self) -> int:
        """Rows of an epoch: those that the configuration wants, as often as it has them."""
        return num_rows(self._train_units)

    def extent(self, legs: Sequence[Leg]) -> tuple[int, int]:
        """Return the rows and the iterations of an epoch that is trained in legs."""
        return extent(self.train_rows, legs, self.config.train.max_iterations)

    @property
    def iterations(self) -> int:
        """Iterations of an epoch that is not interrupted: equal on every rank."""
        return self.extent([self.leg])[1]

    @property
    def val_rows(self) -> int:
        """Rows of a validation, of all ranks: each as often as it is asked about."""
        train = self.config.train
        limit = train.max_val_batches and train.max_val_batches * train.batch_size
        return min(num_rows(self._val_units), limit or num_rows(self._val_units))

    def train(
        self, epoch: int, legs: Sequence[Leg] | None = None
    ) -> Prefetched[list[dict[str, Batch]]]:
        """Start reading an epoch; an item is an iteration: `train.accumulate` batches a name.

        legs: of an epoch to go on with, the last one under way; what they have read is not read
        again. None for one from its beginning.
        """
        plan = shuffled(self._train_units, seed=self.config.seed, epoch=epoch)
        preparation = self._preparation
        if self.config.data.augment and preparation.kept is None:
            preparation = replace(preparation, augment=(self.config.seed, epoch))
        order = unread(
            self.train_rows,
            legs or [self.leg],
            self.config.train.max_iterations,
            rank=self.rank,
            seed=(self.config.seed, epoch),
        )
        samples = arranged(self._source(rows_at(plan, sorted(order)), preparation), order)
        batches = self._collated(samples, objectives(self.config), epoch)
        return Prefetched(_lists(batches, self.config.train.accumulate))

    def val(self) -> Prefetched[dict[str, Batch]]:
        """Start reading the validation split: always the same marks, each row once."""
        return Prefetched(self._collated(self._val_samples(), SEPARATE, VAL_EPOCH))

    def first_val_batch(self, objective: Objective, count: int) -> Batch:
        """Return this rank's first `count` validation rows as one batch, of images."""
        plan = slice_rows(self._val_plan(self._val_images, self.val_rows), 0, count)
        return self._collate(list(self._source(plan, self._images)), objective, VAL_EPOCH)

    def first_val_samples(self, count: int) -> list[Sample]:
        """Return this rank's share of the first `count` validation rows, as images."""
        plan = self._val_plan(self._val_images, min(count, self.val_rows))
        return list(self._source(plan, self._images))

    def _val_plan(self, units: Sequence[Unit], rows: int) -> list[Unit]:
        return val_plan(units, rank=self.rank, world_size=self.world_size, max_rows=rows)

    def _val_samples(self) -> Iterable[Sample]:
        if self._val_kept is not None:
            return self._val_kept
        plan = self._val_plan(self._val_units, self.val_rows)
        samples = self._source(plan, self._val_preparation)
        if num_rows(plan) * 3 * self._preparation.image_size**2 <= KEEP_BYTES:
            samples = self._val_kept = list(samples)
        return samples

    def _collated(
        self, samples: Iterable[Sample], goals: Sequence[Objective], epoch: int
    ) -> Iterator[dict[str, Batch]]:
        for part in batched(samples, self.config.train.batch_size):
            yield {o.name: self._collate(part, o, epoch) for o in goals}

    def _collate(self, samples: Sequence[Sample], objective: Objective, epoch: int) -> Batch:
        return collate(samples, objective, self.encoder, self.config, epoch)


def read_splits(config: Config) -> tuple[list[Unit], list[Unit]]:
    """List the rows of the training and validation splits that the configuration wants."""
    data = config.data
    train, val = (
        read_index(
            data.path,
            split,
            category=data.category,
            min_objects=data.min_objects,
            max_objects=data.max_objects,
            need_objects=True,
        )
        for split in ("train", "val")
    )
    return train, val


def passes(config: Config, rows: int) -> int:
    """Return how often an epoch goes over the training rows, each time in other views.

    As often as there are views of an image, and often enough for `train.min_iterations`.
    """
    train = config.train
    batch = train.batch_size * train.accumulate * max(1, config.scale.max_workers)
    enough = -(-train.min_iterations * batch // rows)
    views = max(1, config.data.views)
    return max(views, enough)


def trained_categories(config: Config) -> tuple[str, ...]:
    """What the rows of the training split show, sorted: `data.category` alone where it is set."""
    if config.data.category is not None:
        return (config.data.category,)
    names: set[str] = set()
    for shard in shards(config.data.path, "train"):
        with open_shard(shard) as parquet:
            column = parquet.read(columns=["category"])["category"]
            names.update(column.unique().to_pylist())
    return tuple(sorted(names))


def _lists(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part
