"""The tasks: what is sampled, which head answers, how it is judged.

A task is one entry here; the loop, the data and the checkpoints know tasks only as a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raydual.config_tree import Config, TaskSection
from raydual.losses import (
    cells_of,
    distance_loss,
    done_loss,
    every_object_loss,
    left_loss,
    pointing_loss,
)
from raydual.metrics import Weighted, done_figures, natural_weight, pixel_errors
from raydual.model.heads import COORD_HEADS, DoneHead, Position, Verdict


class Target(NamedTuple):
    """What a batch's examples should be answered with.

    values: (B, M, C) float32: M candidates of C numbers each, any of which is right; padded.
    mask: (B, M) bool: which candidates are real; an example without any is not valid.
    natural: (B,) weight of the example at the natural rate of its label.
    left: (B, L, 2) float32: the objects without a mark, in [-1, 1]; padded. left_mask: (B, L)
    bool: which are real.
    """

    values: Tensor
    mask: Tensor
    natural: Tensor
    left: Tensor
    left_mask: Tensor

    @property
    def valid(self) -> Tensor:
        """(B,) float32: 1 for the examples that have a target."""
        return self.mask.any(dim=1).float()


class Judgement(NamedTuple):
    """What a criterion says of a batch.

    objective: (B,) what training minimises; meaningless where the target is not valid.
    figures: weighted values (B,) by metric name, averaged over examples.
    medians: the same for figures of which the median over valid examples is wanted.
    """

    objective: Tensor
    figures: dict[str, Weighted]
    medians: dict[str, Weighted]


@dataclass(frozen=True)
class Task:
    """One thing the model learns: sampling, head, criterion and metrics.

    sample_marks: (number of objects, rng, config) -> number of marks.
    target: (points (N, 2), number of marks, config) -> candidates (M, C) and the natural weight;
        M = 0 where the task has no answer.
    make_head: (hidden size, grid, config) -> head.
    criterion: (the head's output, Target, (rows, columns), config) -> Judgement.
    settings: config -> the task's own section.
    loss_weight: its weight where losses are summed (strategy `mixed`).
    extra_logs: figures printed beside the loss, by the names they are printed under.
    """

    name: str
    sample_marks: Callable[[int, np.random.Generator, Config], int]
    target: Callable[[np.ndarray, int, Config], tuple[np.ndarray, float]]
    make_head: Callable[[int, tuple[int, int], Config], nn.Module]
    criterion: Callable[[Any, Target, tuple[int, int], Config], Judgement]
    settings: Callable[[Config], TaskSection]
    loss_weight: float = 1.0
    extra_logs: Mapping[str, str] = field(default_factory=dict)

    @property
    def monitor(self) -> str:
        """The metric that decides on its best checkpoint and its patience."""
        return f"val/loss_{self.name}"

    @property
    def best(self) -> str:
        """The metric that says how good its best checkpoint is so far."""
        return f"val/best_loss_{self.name}"


UNMARKED_FRACTION = 0.3
"""With `coord.match=all`: the probability that an example shows no mark, as at the first look."""


def coord_marks(num_objects: int, rng: np.random.Generator, config: Config) -> int:
    """Draw k as `regression_marks`; with `coord.match=all` it is 0 in `UNMARKED_FRACTION`."""
    if config.coord.match == "all" and rng.random() < UNMARKED_FRACTION:
        return 0
    return regression_marks(num_objects, rng, config)


def regression_marks(num_objects: int, rng: np.random.Generator, config: Config) -> int:
    """Draw k uniformly from 0..N-1: there is always a next object (k = 0 for N = 0)."""
    return int(rng.integers(num_objects)) if num_objects else 0


def classification_marks(num_objects: int, rng: np.random.Generator, config: Config) -> int:
    """Draw k = N with probability `done.positive_fraction`, else uniformly from 0..N-1."""
    if rng.random() < config.done.positive_fraction:
        return num_objects
    return regression_marks(num_objects, rng, config)


def _coord_target(points: np.ndarray, marked: int, config: Config) -> tuple[np.ndarray, float]:
    last = marked + 1 if config.coord.match == "ordered" else len(points)
    return points[marked:last], 1.0


def _done_target(points: np.ndarray, marked: int, config: Config) -> tuple[np.ndarray, float]:
    label = float(marked == len(points))
    weight = natural_weight(label, len(points), config.done.positive_fraction)
    return np.array([[label]]), weight


def nearest_candidate(position: Tensor, target: Target) -> Tensor:
    """Return the real candidate nearest to each position; (B, 2) -> (B, 2), zeros where none is."""
    distance = (target.values - position.detach().float()[:, None]).abs().sum(-1)
    best = distance.masked_fill(~target.mask, torch.inf).argmin(dim=1)
    chosen = target.values[torch.arange(len(best), device=best.device), best]
    return chosen * target.valid[:, None]


def judge_coord(
    output: Position, target: Target, grid: tuple[int, int], config: Config
) -> Judgement:
    """Judge positions; loss_coord is the distance loss of the position read out, for any head.

    With `coord.match=all` every object without a mark teaches its cell, whichever is read out.
    """
    valid = target.valid
    wanted = nearest_candidate(output.position, target)
    loss = distance_loss(output.position, wanted)
    squared = (output.position.float() - wanted) ** 2
    errors = pixel_errors(output.position, wanted)
    figures = {
        "loss_coord": (loss, valid),
        "loss_x": (squared[:, 0], valid),
        "loss_y": (squared[:, 1], valid),
        "px_mean": (errors, valid),
        "within_5px": ((errors <= 5).float(), valid),
    }
    objective = loss
    if output.scores is not None and output.positions is not None and output.left is not None:
        if config.coord.match == "all":
            every = target.left, target.left_mask
            pointing = every_object_loss(output.scores, output.positions, *every, grid)
        else:
            pointing = pointing_loss(output.scores, output.positions, wanted, grid)
        left = left_loss(output.left, cells_of(target.left, target.left_mask, grid))
        objective = pointing + left
        figures |= {"loss_pointing": (pointing, valid), "loss_left": (left, valid)}
    return Judgement(objective, figures, {"px_median": (errors, valid)})


def judge_done(output: Verdict, target: Target, grid: tuple[int, int], config: Config) -> Judgement:
    """Judge verdicts; loss_done is that of the verdict alone, loss_left that of its cells."""
    label, valid = target.values[:, 0, 0], target.valid
    loss = done_loss(output.logit, label)
    left = left_loss(output.left, cells_of(target.left, target.left_mask, grid))
    figures = {"loss_done": (loss, valid), "loss_left": (left, valid)}
    figures |= done_figures(output.logit, label, valid, target.natural)
    return Judgement(loss + left, figures, {})


def _coord_head(size: int, grid: tuple[int, int], config: Config) -> nn.Module:
    return COORD_HEADS[config.model.coord_head](size, grid, places=config.coord.match != "all")


COORD = Task(
    name="coord",
    sample_marks=coord_marks,
    target=_coord_target,
    make_head=_coord_head,
    criterion=judge_coord,
    settings=lambda config: config.coord,
    extra_logs={"x": "loss_x", "y": "loss_y"},
)

DONE = Task(
    name="done",
    sample_marks=classification_marks,
    target=_done_target,
    make_head=lambda size, grid, config: DoneHead(size, grid),
    criterion=judge_done,
    settings=lambda config: config.done,
    loss_weight=3.0,
)

TASKS: tuple[Task, ...] = (COORD, DONE)


@dataclass(frozen=True)
class Objective:
    """The tasks that one batch, one forward and backward pass and one optimizer step serve."""

    name: str
    tasks: tuple[Task, ...]
    sample_marks: Callable[[int, np.random.Generator, Config], int]

    def weight(self, task: Task) -> float:
        """Return the weight of a task's loss: 1 alone, its `loss_weight` in a sum."""
        return task.loss_weight if len(self.tasks) > 1 else 1.0


SEPARATE: tuple[Objective, ...] = tuple(Objective(t.name, (t,), t.sample_marks) for t in TASKS)
"""Each task on its own: how `dual` and `independent` train, and how everything is validated."""

SUMMED: tuple[Objective, ...] = (Objective("mixed", TASKS, classification_marks),)
"""One weighted sum: how `mixed` trains. Where all is marked there is no coordinate target."""


def objectives(config: Config) -> tuple[Objective, ...]:
    """Return what `train.strategy` steps on in an iteration, in this order."""
    return SUMMED if config.train.strategy == "mixed" else SEPARATE
