"""The model on one device or on many: trunks and heads, each under a DDP of its own, or sharded.

A pass of one task runs one trunk and one head, and uses every parameter of both; wrapped apart
they need no search for unused parameters, and the other head gets no gradient at all, not even
zeros, with which AdamW would still decay it. Heads are small, and whole on every rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raydual.config_tree import Config
from raydual.data.examples import Batch
from raydual.model.counter import DualTaskCounter
from raydual.model.inputs import mark_inputs
from raydual.model.trunk import Trunk
from raydual.tasks import Objective, Task
from raydual.training.sharding import Turns, shard, whole


class ParallelCounter:
    """A `DualTaskCounter` on this rank's device, its gradients averaged over the ranks."""

    def __init__(self, counter: DualTaskCounter, device: torch.device) -> None:
        self.counter, self.device = counter, device
        self.dtype = arithmetic(counter.config, device)
        self._sharded = counter.config.scale.strategy == "fsdp" and world_size() > 1
        if self._sharded:  # on the way to the device, which need not hold a trunk whole
            for trunk in counter.trunks.values():
                shard(trunk, device, self.dtype)
            counter.heads.to(device)
        else:
            counter.to(device)
            for trunk in counter.trunks.values():
                assert isinstance(trunk, Trunk)
                trunk.prepare_for_training(
                    autocast=self.dtype != torch.float32,
                    graphs=device.type == "cuda" and self._may_graph(),
                )
        trunks = counter.trunks.items()
        self._modules: dict[str, nn.Module] = {
            **{f"trunk {name}": m if self._sharded else _wrap(m, device) for name, m in trunks},
            **{f"head {name}": _wrap(m, device) for name, m in counter.heads.items()},
        }

    def _may_graph(self) -> bool:
        """A graph computes nothing again, waits for no other rank, and adds to no gradient.

        The gradients that it gives lie where those of its next pass will.
        """
        config = self.counter.config
        plain = not config.model.gradient_checkpointing and config.train.accumulate == 1
        return config.model.compile and bool(config.model.lora.r) and plain and world_size() == 1

    def forward(self, batch: Batch, tasks: Sequence[Task]) -> list[Any]:
        """Run the trunk that the tasks share once, then the head of each; outputs in task order."""
        trunk = self._modules[f"trunk {self.counter.trunk_of(tasks[0].name)}"]
        with self.autocast():
            hidden = trunk(batch.inputs)
        return [self._modules[f"head {task.name}"](*hidden) for task in tasks]

    @property
    def tower_is_frozen(self) -> bool:
        """Whether `look` may be used: the vision tower is not trained, and whole here."""
        return self.counter.config.tower_is_frozen and not self._sharded

    def look(self, batches: Mapping[str, Batch], goals: Sequence[Objective]) -> dict[str, Batch]:
        """Run a frozen vision tower once for all objectives.

        Its weights do not change between their steps, and are in the type of its arithmetic.
        Returns the batches, by objective, with the features of their images in place of these.
        """
        by_trunk: dict[str, list[str]] = {}
        for goal in goals:
            by_trunk.setdefault(self.counter.trunk_of(goal.tasks[0].name), []).append(goal.name)
        seen: dict[str, Batch] = {}
        for name, objectives in by_trunk.items():
            trunk = self.counter.trunks[name]
            assert isinstance(trunk, Trunk)
            inputs = trunk.look([batches[o].inputs for o in objectives])
            for objective, part in zip(objectives, inputs, strict=True):
                seen[objective] = replace(batches[objective], inputs=part)
        return seen

    @torch.no_grad()
    def evaluate(self, batch: Batch, task: Task) -> Any:
        """Run one task without gradients; inside `uneven` where there are other ranks."""
        with self.autocast():
            hidden = self.counter.trunks[self.counter.trunk_of(task.name)](batch.inputs)
        return self.counter.heads[task.name](*hidden)

    def autocast(self) -> torch.autocast:
        """The trunk's arithmetic: bfloat16 where configured; heads and losses stay float32.

        A sharded trunk's weights are gathered in it already: copies of them that autocast made
        would stay until the backward pass.
        """
        enabled = self.dtype != torch.float32 and not self._sharded
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @contextlib.contextmanager
    def uneven(self) -> Iterator[None]:
        """Let each rank evaluate as often as it has to; a collective.

        The block itself must not talk to other ranks.
        """
        self.counter.eval()
        if not self._sharded:
            yield
            return
        side = self.counter.config.data.image_size
        blank = self.counter.encode(np.zeros((1, side, side, 3), np.uint8), ["object"], [0])
        if self.counter.config.embeds_marks:
            none = mark_inputs([np.zeros((0, 2))])
            blank |= {name: tensor.to(self.device) for name, tensor in none.items()}
        trunks = dict(self.counter.trunks.items())
        turns = Turns(trunks, blank, self.device)
        with contextlib.ExitStack() as hooks:
            for name, trunk in trunks.items():
                wait = partial(_wait, turns, name)
                hooks.callback(trunk.register_forward_pre_hook(wait, prepend=True).remove)
            yield
            turns.finish()

    def weights(self) -> dict[str, Tensor]:
        """Return the model's `state_dict`, whole on rank 0; a collective."""
        return {name: whole(tensor) for name, tensor in self.counter.state_dict().items()}

    @contextlib.contextmanager
    def no_sync(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Keep gradients of the tasks' modules local: for all but the last of several passes.

        Those of a sharded trunk are summed over ranks each time, which need not hold them whole.
        """
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


def _wait(turns: Turns, name: str, trunk: nn.Module, args: Any) -> None:
    turns.wait(name)


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
