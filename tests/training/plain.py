"""Plain SGD for tests that compare weights: Adam's division blows rounding up."""

from __future__ import annotations

import torch

from raydual.training.optim import TaskOptimizer


def use_sgd(optimizers: dict[str, TaskOptimizer]) -> None:
    """Put SGD in the place of AdamW."""
    for optimizer in optimizers.values():
        groups = [{"params": g["params"]} for g in optimizer.optimizer.param_groups]
        optimizer.optimizer = torch.optim.SGD(groups, lr=1.0)
