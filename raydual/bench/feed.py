"""How fast rows become batches: torch's DataLoader and the stream on Ray Data, without a model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from raydual.config_tree import Config
from raydual.data.batches import BatchStream, read_splits
from raydual.data.examples import VAL_EPOCH, Batch, Encoder, collate
from raydual.data.loading import Preparation, Sample, load_unit
from raydual.data.plan import Unit, shuffled
from raydual.model.prompt import Prompter
from raydual.tasks import Objective, objectives

WORKERS = 2
EPOCHS = 3


class NoInputs:
    """An encoder for batches whose pictures are processed later."""

    def encode(
        self, images: np.ndarray, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def text_inputs(
        self, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Return nothing."""
        return {}


class Rows(IterableDataset):
    """The rows of a plan, decoded; each of torch's workers reads every so manieth row group."""

    def __init__(
        self,
        config: Config,
        units: Sequence[Unit],
        goals: Sequence[Objective],
        epoch: int,
        encoder: Encoder | None = None,
    ) -> None:
        self.config, self._units = config, units
        self._goals, self._epoch, self._encoder = goals, epoch, encoder or NoInputs()

    def __iter__(self) -> Iterator[Sample]:
        data, epoch = self.config.data, self._epoch
        views = (self.config.seed, epoch) if data.augment and epoch != VAL_EPOCH else None
        preparation = Preparation(data.image_size, data.order, views)
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for unit in self._units[first::step]:
            yield from load_unit(unit, preparation)

    def batches(self, samples: list[Sample]) -> dict[str, Batch]:
        """Collate, in the worker; of the samples the pixels are left behind."""
        bare = [replace(s, pixels=np.zeros((0, 0, 3), dtype=np.uint8)) for s in samples]
        return {
            goal.name: replace(
                collate(samples, goal, self._encoder, self.config, self._epoch), samples=bare
            )
            for goal in self._goals
        }


def loader(rows: Rows) -> Iterator[dict[str, Batch]]:
    """Start torch's DataLoader on rows, with two workers and the settings that it comes with."""
    size = rows.config.train.batch_size
    return iter(DataLoader(rows, size, num_workers=WORKERS, collate_fn=rows.batches))


def measure(config: Config, source: str) -> dict[str, Any]:
    """Read the training split three times; `source`: "dataloader" or "stream".

    Returns rows per second, and rows per second of one busy core (the CPU time of this process and
    all below it), of the first epoch and of the mean of the later ones.
    """
    torch.set_num_threads(1)
    prompter = Prompter.from_pretrained(
        config.model.trunk,
        config.data.image_size,
        trust_remote_code=config.model.trust_remote_code,
    )
    if source == "dataloader":
        units, _ = read_splits(config)

        def read(epoch: int) -> Iterable[dict[str, Batch]]:
            plan = shuffled(units, seed=config.seed, epoch=epoch)
            return loader(Rows(config, plan, objectives(config), epoch, prompter))

        return _timed(read)
    from raydual.data.stream import load_with_ray
    from raydual.training.cluster import connected

    with connected(lambda event: None):
        stream = BatchStream(config, prompter, load_with_ray)
        return _timed(lambda epoch: (b for micro in stream.train(epoch) for b in micro))


def _timed(read: Callable[[int], Iterable[dict[str, Batch]]]) -> dict[str, Any]:
    per_s, per_core = [], []
    for epoch in range(1, EPOCHS + 1):
        before, started = cpu_seconds(), time.perf_counter()
        rows = sum(len(next(iter(by_name.values()))) for by_name in read(epoch))
        per_s.append(rows / (time.perf_counter() - started))
        per_core.append(rows / busy_seconds(before))
    return {
        "first_rows_per_s": per_s[0],
        "later_rows_per_s": sum(per_s[1:]) / (EPOCHS - 1),
        "first_rows_per_core_s": per_core[0],
        "later_rows_per_core_s": sum(per_core[1:]) / (EPOCHS - 1),
    }


def cpu_seconds() -> dict[int, float]:
    """Return the CPU time of this process and of all below it, by process id.

    Under 0, those of this process's children that have ended.
    """
    here = psutil.Process()
    ended = here.cpu_times()
    found = {0: ended.children_user + ended.children_system}
    for process in (here, *here.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def busy_seconds(before: dict[int, float]) -> float:
    """Return the CPU time since `cpu_seconds` was asked; what has ended elsewhere is left out."""
    return sum(now - before.get(pid, 0.0) for pid, now in cpu_seconds().items())
