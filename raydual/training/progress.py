"""What an epoch under way has gathered, so that it can be left and gone on with in its middle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from raydual.data.batches import BatchStream
from raydual.metrics import Means, gather
from raydual.tasks import Objective
from raydual.training.optim import TaskOptimizer
from raydual.training.watch import GradientCosine, Watch, peak_memory


class Progress:
    """The figures of an epoch so far, of one rank.

    Attributes:
        done: iterations that are done.
        waited: seconds spent waiting for data.
    """

    def __init__(
        self, goals: Sequence[Objective], epoch: int, stream: BatchStream, device: torch.device
    ) -> None:
        self.means = Means(device)
        self.watch = Watch(goals, epoch, stream)
        self.cosine = GradientCosine()
        self.done, self.waited = 0, 0.0
        train = stream.config.train
        self._batch = train.batch_size * train.accumulate
        self._rows, self._device = stream.rows, device
        self._before, self._started = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the epoch has taken, with what was taken before it was gone on with."""
        return self._before + time.perf_counter() - self._started

    def results(
        self, optimizers: Mapping[str, TaskOptimizer]
    ) -> tuple[dict[str, float], list[tuple[str, str]]]:
        """Return the epoch's figures, and the rows that had to be skipped; a collective."""
        seconds = self.seconds
        figures = {f"train/{name}": value for name, value in self.means.compute().items()}
        figures |= {f"train/lr_{name}": optimizer.lr for name, optimizer in optimizers.items()}
        bad_rows = self.watch.bad.everywhere()
        figures |= self.cosine.metrics() | {
            "train/samples_per_s": self._rows / seconds,
            "train/waiting_share": self.waited / seconds,
            "train/seconds": seconds,
            "train/peak_memory_gib": peak_memory(self._device),
            "train/bad_rows": len(bad_rows),
        }
        return figures, bad_rows

    def everywhere(self) -> list[dict[str, Any]]:
        """Return what each rank has to restore, in the order of ranks; a collective."""
        here = {
            "done": self.done,
            "batch": self._batch,
            "waited": self.waited,
            "seconds": self.seconds,
            "means": self.means.state_dict(),
            "watch": self.watch.state_dict(),
            "cosine": self.cosine.state_dict(),
        }
        return [part for rank in gather([here]) for part in rank]

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a rank's part of `everywhere`."""
        self.done, self.waited = saved["done"], saved["waited"]
        self._before = saved["seconds"]
        self.means.load_state_dict(saved["means"])
        self.watch.load_state_dict(saved["watch"])
        self.cosine.load_state_dict(saved["cosine"])


def fits(parts: Sequence[dict[str, Any]], stream: BatchStream) -> bool:
    """Whether the middle of an epoch is where this training would be: same ranks, same batches.

    parts: of `Progress.everywhere`.
    """
    train = stream.config.train
    same = {part["batch"] for part in parts} <= {train.batch_size * train.accumulate}
    return same and len(parts) in (0, stream.world_size)
