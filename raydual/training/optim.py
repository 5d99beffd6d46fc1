"""One optimizer an objective: AdamW, its own schedule and its own clipping."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from raydual.config_tree import Config, TaskSection
from raydual.model.counter import DualTaskCounter
from raydual.model.trunk import Trunk
from raydual.tasks import Objective
from raydual.training.sharding import everywhere, is_sharded, part_of, whole


class TaskOptimizer:
    """AdamW over a trunk and the heads of one objective, and over nothing else.

    Where trunk and head belong to one task they are updated with that task's settings; in a sum
    of tasks the trunk follows the first one's, each head its own.

    epoch_steps: steps of an epoch that is not interrupted. lr_scale: a factor of all learning
    rates (see `lr_scale`).
    """

    def __init__(
        self,
        counter: DualTaskCounter,
        objective: Objective,
        config: Config,
        epoch_steps: int,
        lr_scale: float = 1.0,
    ) -> None:
        first = objective.tasks[0].settings(config)
        trunk = counter.trunks[counter.trunk_of(objective.tasks[0].name)]
        assert isinstance(trunk, Trunk)
        parts = _parts(trunk, config.model.tower_lr_factor)
        self.trunk_parameters: list[nn.Parameter] = [p for part, _ in parts for p in part]
        heads = [(_trained(counter.heads[t.name]), t.settings(config)) for t in objective.tasks]
        groups = [_group(part, first) for part, _ in parts]
        groups += [_group(head, section) for head, section in heads]
        self.clip_norm = first.clip_norm
        self._parameters: list[nn.Parameter] = [p for g in groups for p in g["params"]]
        # fused, on what is sharded, it has leaked (pytorch#188174), and looks at no sizes
        self._fused = not is_sharded(self._parameters[0])
        self.optimizer = torch.optim.AdamW(groups, fused=self._fused)
        self._epoch_steps, self._epochs = epoch_steps, config.train.epochs
        self._lr_scale = lr_scale
        self._rates = [(first, factor) for _, factor in parts]
        self._rates += [(section, 1.0) for _, section in heads]
        self._steps = 0

    @property
    def lr(self) -> float:
        """The trunk's learning rate at the next step."""
        return self._lr(*self._rates[0])

    def clip(self) -> Tensor:
        """Clip the gradients together; return their norm as it was; a collective where sharded."""
        groups = [group["params"] for group in self.optimizer.param_groups]
        # the trunk's apart from the heads': it may be sharded
        gradients = [[p.grad for p in group if p.grad is not None] for group in groups]
        norms = [nn.utils.get_total_norm(parts) for parts in gradients]
        norm = torch.linalg.vector_norm(torch.stack([everywhere(norm) for norm in norms]))
        for group in groups:
            nn.utils.clip_grads_with_norm_(group, self.clip_norm, norm)
        return norm

    def step(self) -> None:
        """Update, advance the schedule, drop the gradients."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = self._lr(*rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return moments, whole on rank 0, settings and the schedule's position; a collective."""
        saved = self.optimizer.state_dict()
        moments = {i: {k: whole(v) for k, v in m.items()} for i, m in saved["state"].items()}
        return {
            "optimizer": saved | {"state": moments},
            "steps": self._steps,
            "epoch_steps": self._epoch_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; weight decay and learning rates are as configured now.

        Where an epoch has more steps now, or fewer, the schedule goes on at the same epoch.
        """
        saved = state["optimizer"]
        moments = {
            i: {k: part_of(v, self._parameters[i]) if v.dim() else v for k, v in m.items()}
            for i, m in saved["state"].items()
        }
        groups = [group | {"fused": self._fused} for group in saved["param_groups"]]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for group, (section, _) in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["weight_decay"] = section.weight_decay
        self._steps = round(state["steps"] * self._epoch_steps / state["epoch_steps"])

    def _lr(self, section: TaskSection, factor: float) -> float:
        total = self._epochs * self._epoch_steps
        return section.lr * factor * self._lr_scale * lr_factor(section, self._steps, total)


def lr_scale(ranks: int, most: int) -> float:
    """Return the factor of the learning rates with fewer workers than there may be.

    Fewer workers make smaller batches; for Adam, rates follow the square root of the batch
    (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", 2022).
    """
    return math.sqrt(ranks / most)


def lr_factor(section: TaskSection, step: int, total_steps: int) -> float:
    """Return the share of `lr` at a step: linear warm-up, then constant, linear or cosine to 0.

    The cosine is that of SGDR without restarts (Loshchilov and Hutter, 2017).
    """
    if step < section.warmup:
        return (step + 1) / section.warmup
    progress = min(1.0, (step - section.warmup) / max(1, total_steps - section.warmup))
    if section.lr_schedule == "linear":
        return 1 - progress
    if section.lr_schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0


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


def _parts(trunk: Trunk, tower_factor: float) -> list[tuple[list[nn.Parameter], float]]:
    """Return the trained weights of a trunk, in groups of one learning rate, and its factor."""
    tower = {id(p) for p in trunk.tower_parameters()} if tower_factor != 1 else set()
    trained = _trained(trunk)
    parts = [
        ([p for p in trained if id(p) not in tower], 1.0),
        ([p for p in trained if id(p) in tower], tower_factor),
    ]
    return [(part, factor) for part, factor in parts if part]


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _group(parameters: list[nn.Parameter], section: TaskSection) -> dict[str, Any]:
    return {"params": parameters, "lr": section.lr, "weight_decay": section.weight_decay}
