"""One optimizer an objective: AdamW, its own schedule and its own clipping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from raydual.config import Config, TaskSection
from raydual.model.counter import DualTaskCounter
from raydual.tasks import Objective


class TaskOptimizer:
    """AdamW over a trunk and the heads of one objective, and over nothing else.

    Where trunk and head belong to one task they are updated with that task's settings; in a sum
    of tasks the trunk follows the first one's, each head its own.
    """

    def __init__(
        self, counter: DualTaskCounter, objective: Objective, config: Config, total_steps: int
    ) -> None:
        first = objective.tasks[0].settings(config)
        trunk = counter.trunks[counter.trunk_of(objective.tasks[0].name)]
        groups = [_group(trunk, first)]
        groups += [_group(counter.heads[t.name], t.settings(config)) for t in objective.tasks]
        self.clip_norm = first.clip_norm
        self.trunk_parameters: list[nn.Parameter] = groups[0]["params"]
        self._parameters: list[nn.Parameter] = [p for g in groups for p in g["params"]]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        sections = [first] + [t.settings(config) for t in objective.tasks]
        self.lr_schedule = LambdaLR(self.optimizer, [lr_factor(s, total_steps) for s in sections])

    @property
    def lr(self) -> float:
        """The trunk's learning rate at the next step."""
        return float(self.lr_schedule.get_last_lr()[0])

    def step(self) -> Tensor:
        """Clip, update, advance the schedule, drop the gradients; return the norm as it was."""
        norm = nn.utils.clip_grad_norm_(self._parameters, self.clip_norm)
        self.optimizer.step()
        self.lr_schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return moments, step counts and the schedule's position."""
        return {"optimizer": self.optimizer.state_dict(), "steps": self.lr_schedule.last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; learning rates follow the schedule as configured now."""
        rates = [group["initial_lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.last_epoch = state["steps"]
        for group, rate, factor in zip(
            self.optimizer.param_groups, rates, self.lr_schedule.lr_lambdas, strict=True
        ):
            group["initial_lr"] = rate
            group["lr"] = rate * factor(state["steps"])
        self.lr_schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def lr_factor(section: TaskSection, total_steps: int) -> Callable[[int], float]:
    """Return step -> share of `lr`: linear warm-up, then constant, linear or cosine to 0.

    The cosine is that of SGDR without restarts (Loshchilov and Hutter, 2017).
    """

    def factor(step: int) -> float:
        if step < section.warmup:
            return (step + 1) / section.warmup
        remaining = max(1, total_steps - section.warmup)
        progress = min(1.0, (step - section.warmup) / remaining)
        if section.lr_schedule == "linear":
            return 1 - progress
        if section.lr_schedule == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        return 1.0

    return factor


def check_ownership(
    counter: DualTaskCounter,
    objectives: tuple[Objective, ...],
    optimizers: dict[str, TaskOptimizer],
) -> None:
    """Check that an objective's optimizer owns what its tasks use, and all is owned by some.

    Raises:
        AssertionError: a trainable parameter without an owner, or one owned by a stranger.
    """
    owned: set[int] = set()
    for objective in objectives:
        used = {
            id(p)
            for task in objective.tasks
            for module in (counter.trunks[counter.trunk_of(task.name)], counter.heads[task.name])
            for p in module.parameters()
            if p.requires_grad
        }
        groups = optimizers[objective.name].optimizer.param_groups
        mine = {id(p) for group in groups for p in group["params"]}
        assert mine == used, f"the optimizer of {objective.name} does not own what it trains"
        owned |= mine
    lost = [n for n, p in counter.named_parameters() if p.requires_grad and id(p) not in owned]
    assert not lost, f"no optimizer owns {lost}"


def _group(module: nn.Module, section: TaskSection) -> dict[str, Any]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return {"params": parameters, "lr": section.lr, "weight_decay": section.weight_decay}
