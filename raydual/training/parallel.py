"""The model on one device or on many: trunks and heads, each under a DDP of its own.

A pass of one task runs one trunk and one head, and uses every parameter of both; wrapped apart
they need no search for unused parameters, and the other head gets no gradient at all, not even
zeros, with which AdamW would still decay it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raydual.config_tree import Config
from raydual.data.examples import Batch
from raydual.model.counter import DualTaskCounter
from raydual.tasks import Task


class ParallelCounter:
    """A `DualTaskCounter` on this rank's device, its gradients averaged over the ranks."""

    def __init__(self, counter: DualTaskCounter, device: torch.device) -> None:
        self.counter = counter.to(device)
        self.device = device
        self.dtype = arithmetic(counter.config, device)
        self._modules: dict[str, nn.Module] = {
            **{f"trunk {name}": _wrap(m, device) for name, m in counter.trunks.items()},
            **{f"head {name}": _wrap(m, device) for name, m in counter.heads.items()},
        }

    def forward(self, batch: Batch, tasks: Sequence[Task]) -> list[Any]:
        """Run the trunk that the tasks share once, then the head of each; outputs in task order."""
        trunk = self._modules[f"trunk {self.counter.trunk_of(tasks[0].name)}"]
        with self.autocast():
            hidden = trunk(batch.inputs)
        return [self._modules[f"head {task.name}"](*hidden) for task in tasks]

    @torch.no_grad()
    def evaluate(self, batch: Batch, task: Task) -> Any:
        """Run one task without gradients and without talking to other ranks."""
        with self.autocast():
            hidden = self.counter.trunks[self.counter.trunk_of(task.name)](batch.inputs)
        return self.counter.heads[task.name](*hidden)

    def autocast(self) -> torch.autocast:
        """The trunk's arithmetic: bfloat16 where configured; heads and losses stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype != torch.float32)

    @contextlib.contextmanager
    def no_sync(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Keep gradients of the tasks' modules local: for all but the last of several passes."""
        names = [f"trunk {self.counter.trunk_of(tasks[0].name)}"]
        names += [f"head {task.name}" for task in tasks]
        with contextlib.ExitStack() as stack:
            for module in (self._modules[name] for name in names):
                if isinstance(module, DistributedDataParallel):
                    stack.enter_context(module.no_sync())
            yield


def world_size() -> int:
    """Return the number of ranks, 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of the ranks' tensors; a collective."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def _wrap(module: nn.Module, device: torch.device) -> nn.Module:
    if world_size() == 1:
        return module
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        module, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def arithmetic(config: Config, device: torch.device) -> torch.dtype:
    """Return the type that `model.dtype` means on a device: what trunks compute in."""
    name = config.model.dtype
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32
