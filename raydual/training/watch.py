"""What is watched while training: losses that are not finite, bad images, gradients, memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raydual.data.batches import BatchStream
from raydual.data.examples import Batch
from raydual.errors import TrainingError
from raydual.metrics import gather
from raydual.tasks import Objective, Task
from raydual.training.optim import TaskOptimizer
from raydual.training.parallel import sum_over_ranks
from raydual.training.sharding import is_sharded, own_part

COSINE_EVERY = 25
_NEVER = 2**62


class BadRows:
    """The rows of this rank whose image could not be decoded: id and reason."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def see(self, batches: dict[str, Batch]) -> None:
        """Take in the batches made of the same samples, one an objective."""
        samples = next(iter(batches.values())).samples
        self.rows += [(s.id, s.error) for s in samples if s.error is not None]

    def everywhere(self) -> list[tuple[str, str]]:
        """Return those of all ranks; a collective."""
        return sorted(row for rows in gather(self.rows) for row in rows)

    def check(self, max_fraction: float, total: int, where: str) -> list[tuple[str, str]]:
        """Return those of all ranks; a collective.

        Raises:
            TrainingError: they are more than `max_fraction` of the total.
        """
        rows = self.everywhere()
        if len(rows) > max_fraction * total:
            names = ", ".join(name for name, _ in rows[:5])
            raise TrainingError(
                f"{len(rows)} of {total} images of {where} are corrupt ({names}); "
                f"data.max_bad_fraction={max_fraction:g} allows {max_fraction * total:g}; "
                "see `raydual data check`"
            )
        return rows


class Watch:
    """Find the first loss that is not finite, and count the rows that had to be skipped.

    Losses are looked at on the device, and read back only in `check`, every few iterations.
    """

    def __init__(self, goals: Sequence[Objective], epoch: int, stream: BatchStream) -> None:
        self._tasks = [task.name for objective in goals for task in objective.tasks]
        self._epoch = epoch
        self._max_bad_fraction = stream.config.data.max_bad_fraction
        self._rows, _ = stream.extent([stream.leg])
        self._iteration = 1
        self._bad_at: dict[str, Tensor] = {}
        self.bad = BadRows()

    def see(self, task: Task, objective: Tensor, valid: Tensor) -> None:
        """Take in the losses (B,) of a batch."""
        broken = (~torch.isfinite(objective) & (valid > 0)).any()
        at = torch.where(broken, self._iteration, _NEVER)
        seen = self._bad_at.get(task.name)
        self._bad_at[task.name] = at if seen is None else torch.minimum(seen, at)

    def next_iteration(self) -> None:
        """Count an iteration."""
        self._iteration += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed epoch needs, right after `check`: up to there all is finite."""
        return {"iteration": self._iteration, "bad_rows": [list(row) for row in self.bad.rows]}

    def load_state_dict(self, saved: dict[str, Any], parts: Sequence[dict[str, Any]]) -> None:
        """Go on from `state_dict`; parts: those whose rows this rank is to keep."""
        self._iteration = saved["iteration"]
        self.bad.rows = [tuple(row) for part in parts for row in part["bad_rows"]]

    def check(self) -> None:
        """Raise on every rank what any rank has seen; a collective.

        Raises:
            TrainingError: a loss was NaN or infinite, or too many images are corrupt.
        """
        if not self._bad_at:
            return  # an epoch that was left behind its last iteration
        first = torch.stack([self._bad_at[name] for name in self._tasks])
        if dist.is_initialized():
            dist.all_reduce(first, dist.ReduceOp.MIN)
        for task, iteration in zip(self._tasks, first.tolist(), strict=True):
            if iteration != _NEVER:
                raise TrainingError(
                    f"loss_{task} is not finite in epoch {self._epoch}, iteration {iteration}; "
                    f"the checkpoints of earlier epochs are whole; try a smaller {task}.lr"
                )
        bad = int(sum_over_ranks(torch.tensor(len(self.bad.rows), device=first.device)))
        if bad > self._max_bad_fraction * self._rows:
            self.bad.check(self._max_bad_fraction, self._rows, f"epoch {self._epoch}")


class GradientCosine:
    """The cosine between two objectives' gradients on one trunk, sampled every 25 iterations.

    It needs a copy of the first gradient. Where trunks are not shared, or there is only one
    objective, there is nothing to compare.
    """

    def __init__(self) -> None:
        self._iteration = 0
        self._first: list[Tensor] | None = None
        self._cosines: list[Tensor] = []

    def see(self, optimizer: TaskOptimizer) -> None:
        """Take in the gradients of one objective, after its backward pass, before its step.

        A collective where they are sharded.
        """
        if self._iteration % COSINE_EVERY:
            return
        parameters = optimizer.trunk_parameters
        gradients = [own_part(p.grad) for p in parameters if p.grad is not None]
        if self._first is None:
            self._first, self._of = [g.clone() for g in gradients], parameters[0]
        elif self._of is parameters[0]:
            pairs = ((self._first, gradients), (self._first,) * 2, (gradients,) * 2)
            dots = torch.stack([_dot(a, b) for a, b in pairs])
            both, first, second = sum_over_ranks(dots) if is_sharded(parameters[0]) else dots
            self._cosines.append(both / (first.sqrt() * second.sqrt()).clamp(min=1e-16))

    def next_iteration(self) -> None:
        """Forget the gradients of this iteration."""
        self._first = None
        self._iteration += 1

    def metrics(self) -> dict[str, float]:
        """Return the mean over the samples of the epoch, where there is one."""
        if not self._cosines:
            return {}
        return {"train/grad_cosine": float(torch.stack([c.cpu() for c in self._cosines]).mean())}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed epoch needs, between two iterations."""
        return {"iteration": self._iteration, "cosines": [c.cpu() for c in self._cosines]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._iteration = saved["iteration"]
        self._cosines = list(saved["cosines"])


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def peak_memory(device: torch.device) -> float:
    """Return the most memory held so far in GiB: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":  # what CUDA graphs keep is held, but not allocated
        return torch.cuda.max_memory_reserved(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30
