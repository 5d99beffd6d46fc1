"""What no change for speed may change: losses, and how often the loop waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from raydual.data.batches import BatchStream
from raydual.data.loading import load_here
from raydual.model.counter import DualTaskCounter
from raydual.tasks import objectives
from raydual.training.loop import iteration
from raydual.training.run import start
from raydual.training.watch import GradientCosine, Watch
from tests.training.runs import history, run

CPU = torch.device("cpu")

NAMES = ("train/loss_coord", "train/loss_done", "val/loss_coord", "val/loss_done")
GOLDEN = {
    "dual": [(0.25372, 0.72406, 0.13708, 0.66847), (0.20560, 0.69335, 0.13035, 0.73011)],
    "mixed": [(0.23056, 0.93953, 0.21247, 0.69565), (0.20020, 0.86150, 0.19560, 0.72749)],
    "independent": [(0.31860, 0.92530, 0.21789, 0.66901), (0.23097, 0.73239, 0.14537, 0.68713)],
}
"""By strategy and epoch, of three iterations each; printed by the loop of 6ea458a."""


class Reads(TorchDispatchMode):
    """Counts how often Python asks for a number on the device, which has to finish for it."""

    def __init__(self) -> None:
        super().__init__()
        self.outside_trunks = 0
        self.inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and not self.inside:
            self.outside_trunks += 1
        return func(*args, **(kwargs or {}))

    def enters(self, *_: Any) -> None:
        self.inside = True

    def leaves(self, *_: Any) -> None:
        self.inside = False


@pytest.mark.parametrize("strategy", GOLDEN)
def test_losses_are_what_they_were(small: Callable, strategy: str) -> None:
    config = small(f"train.strategy={strategy}", "coord.lr=1e-3", "done.lr=1e-3")
    run(config)
    found = [tuple(line[name] for name in NAMES) for line in history(config)]
    assert found == [pytest.approx(line, rel=1e-3) for line in GOLDEN[strategy]]


@pytest.mark.parametrize("strategy", ["dual", "mixed"])
def test_between_trunk_and_step_nothing_is_read_back(small: Callable, strategy: str) -> None:
    config = small(f"train.strategy={strategy}")
    counter = DualTaskCounter.from_config(config)
    stream = BatchStream(config, counter.prompter, load_here)
    model, state = start(config, counter, stream, CPU)
    goals, reads = objectives(config), Reads()
    watch, cosine = Watch(goals, 1, stream), GradientCosine()
    counter.trunks["shared"].register_forward_pre_hook(reads.enters)
    counter.trunks["shared"].register_forward_hook(reads.leaves)
    for micro in stream.train(1):
        with reads:
            iteration(model, state.optimizers, goals, micro, watch, cosine)
    assert reads.outside_trunks == 0
    with reads:
        torch.ones(1).item()
    assert reads.outside_trunks == 1
