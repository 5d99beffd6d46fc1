"""A trunk in parts, one a rank (FSDP2): its weights, their gradients and the optimizers' moments.

A block's weights are gathered from all ranks when it runs and dropped after it, so every pass
through a sharded trunk takes all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(trunk: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Split a trunk's weights over the ranks, in place; each rank takes its part to its device.

    A block at a time is gathered, and what is in no block together. dtype: what they are gathered
    and computed in; the parts, and the sums of gradients, are as they are and float32.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for module in (*_blocks(trunk), trunk):
        # the outermost one would else keep its weights whole from one pass to the next
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of the language model and of the vision tower, whatever they are called."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds a part of it only."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor whole, on the host of rank 0, empty elsewhere; others as they are.

    A collective where it is sharded.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    gathered = everywhere(tensor)
    return gathered.cpu() if dist.get_rank() == 0 else torch.empty(0)


def everywhere(tensor: Tensor) -> Tensor:
    """Return a sharded tensor whole on every rank, then a collective; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor, sharded as a parameter is."""
    if not isinstance(parameter, DTensor):
        return tensor
    mesh, placements = parameter.device_mesh, parameter.placements
    # a copy: the part is a view that would keep the whole tensor
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None).clone()


def own_part(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Turns:
    """Passes through sharded trunks without gradients, as many as any rank has to make.

    Before each, the ranks agree on the trunk that runs; one that did not ask for it runs along
    on a blank image.
    """

    def __init__(
        self, trunks: Mapping[str, nn.Module], blank: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self._trunks, self._blank, self._device = trunks, blank, device
        self._along = False

    def wait(self, trunk: str) -> None:
        """Run along until it is this trunk's turn; a collective."""
        if self._along:
            return
        while (running := self._agree(trunk)) != trunk:
            self._run_along(running)

    def finish(self) -> None:
        """Run along until no rank has anything to ask; a collective."""
        while running := self._agree(None):
            self._run_along(running)

    def _agree(self, wanted: str | None) -> str | None:
        """Return the first trunk that any rank wants, None where none does."""
        votes = torch.tensor([float(n == wanted) for n in self._trunks], device=self._device)
        dist.all_reduce(votes)
        asked = zip(self._trunks, votes.tolist(), strict=True)
        return next((name for name, count in asked if count), None)

    @torch.no_grad()
    def _run_along(self, trunk: str | None) -> None:
        assert trunk is not None
        self._along = True
        try:
            self._trunks[trunk](self._blank)
        finally:
            self._along = False
