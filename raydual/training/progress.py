"""What an epoch under way has gathered, so that it can be left and gone on with in its middle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from raydual.data.batches import BatchStream
from raydual.data.itinerary import Leg
from raydual.metrics import Means, gather
from raydual.tasks import Objective
from raydual.training.optim import TaskOptimizer
from raydual.training.watch import GradientCosine, Watch, peak_memory


class Progress:
    """The figures of an epoch so far, of one rank.

    Attributes:
        done: iterations that are done.
        waited: seconds spent waiting for data.
        rows, iterations: of the whole epoch, and of all ranks.
    """

    def __init__(
        self, goals: Sequence[Objective], epoch: int, stream: BatchStream, device: torch.device
    ) -> None:
        self.means = Means(device)
        self.watch = Watch(goals, epoch, stream)
        self.cosine = GradientCosine()
        self.done, self.waited = 0, 0.0
        self._stream, self._device = stream, device
        self._before: list[Leg] = []
        self._earlier, self._started = 0.0, time.perf_counter()
        self.rows, self.iterations = stream.extent(self.legs)

    @property
    def legs(self) -> list[Leg]:
        """The legs of the epoch; the last one is under way."""
        done = self.done - sum(leg.done for leg in self._before)
        return [*self._before, self._stream.leg._replace(done=done)]

    @property
    def seconds(self) -> float:
        """How long the epoch has taken, with what was taken before it was gone on with."""
        return self._earlier + time.perf_counter() - self._started

    def results(
        self, optimizers: Mapping[str, TaskOptimizer]
    ) -> tuple[dict[str, float], list[tuple[str, str]]]:
        """Return the epoch's figures, and the rows that had to be skipped; a collective."""
        seconds = self.seconds
        figures = {f"train/{name}": value for name, value in self.means.compute().items()}
        figures |= {f"train/lr_{name}": optimizer.lr for name, optimizer in optimizers.items()}
        bad_rows = self.watch.bad.everywhere()
        figures |= self.cosine.metrics() | {
            "train/samples_per_s": self.rows / seconds,
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
            "legs": [list(leg) for leg in self.legs],
            "train_rows": self._stream.train_rows,
            "waited": self.waited,
            "seconds": self.seconds,
            "means": self.means.state_dict(),
            "watch": self.watch.state_dict(),
            "cosine": self.cosine.state_dict(),
        }
        return [part for rank in gather([here]) for part in rank]

    def go_on(self, parts: Sequence[dict[str, Any]]) -> None:
        """Go on from `everywhere`, of as many ranks as there were then."""
        first, mine = parts[0], parts[self._stream.rank :: self._stream.world_size]
        self.done, self.waited = first["done"], first["waited"]
        self._earlier = first["seconds"]
        legs = [Leg(*leg) for leg in first["legs"]]
        same = legs[-1]._replace(done=0) == self._stream.leg
        self._before = legs[:-1] if same else legs
        for part in mine:
            self.means.add(part["means"])
        self.watch.load_state_dict(first["watch"], [part["watch"] for part in mine])
        self.cosine.load_state_dict(first["cosine"])
        self.rows, self.iterations = self._stream.extent(self.legs)


def fits(parts: Sequence[dict[str, Any]], stream: BatchStream) -> bool:
    """Whether the epoch was left in the middle of the data that there are now.

    parts: of `Progress.everywhere`.
    """
    return {part["train_rows"] for part in parts} <= {stream.train_rows}
