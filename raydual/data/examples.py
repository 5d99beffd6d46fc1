"""From samples to batches: how many objects are marked, what is asked, what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raydual.config_tree import Config
from raydual.data.imperfect import Shown, imperfect
from raydual.data.loading import Sample
from raydual.data.marking import draw_marks
from raydual.data.randomness import example_rng
from raydual.model.inputs import FEATURES, mark_inputs
from raydual.tasks import Objective, Target, Task

VAL_EPOCH = 0
"""Validation draws the marks of an epoch that training, which counts from 1, never has."""


class Encoder(Protocol):
    """What turns marked canvases and their prompts into the trunk's inputs."""

    def encode(
        self, images: np.ndarray, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Encode uint8 canvases (B, side, side, 3) with their prompts; see `Prompter`."""
        ...

    def text_inputs(
        self, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Encode the prompts alone."""
        ...


@dataclass(frozen=True)
class Batch:
    """Collated examples.

    inputs: what the trunk takes. targets: by task name. canvases: uint8 (B, side, side, 3), the
    pictures as the model sees them, None where it is given features; marks: of each (k, 2) in
    [-1, 1]. They and the samples they were made from stay on the host.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Target]
    canvases: np.ndarray | None
    marks: list[np.ndarray]
    samples: list[Sample]

    @property
    def num_marked(self) -> list[int]:
        """How many marks each example shows."""
        return [len(own) for own in self.marks]

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with inputs and targets on the device."""
        inputs = {k: v.to(device, non_blocking=True) for k, v in self.inputs.items()}
        targets = {
            name: Target(*(t.to(device, non_blocking=True) for t in target))
            for name, target in self.targets.items()
        }
        return replace(self, inputs=inputs, targets=targets)


def collate(
    samples: Sequence[Sample], objective: Objective, encoder: Encoder, config: Config, epoch: int
) -> Batch:
    """Make one example of every sample and put them together.

    How many objects are marked, and in training how imperfectly (see `imperfect`), is drawn from
    (seed, epoch, row id, name of the objective) alone. They are the first ones in the order of
    counting; where any object left is a right answer (`coord.match`), they are any. A sample whose
    image could not be decoded keeps its place, with no valid target.
    """
    shown = [_show(sample, objective, config, epoch) for sample in samples]
    marks = [one.marks for one in shown]
    numbers = [len(own) for own in marks]
    categories = [sample.category for sample in samples]
    if samples[0].features is not None:
        canvases = None
        inputs = encoder.text_inputs(categories, numbers) | {FEATURES: _stacked(samples)}
    else:
        canvases = np.stack(
            [_canvas(s.pixels, own, config) for s, own in zip(samples, marks, strict=True)]
        )
        inputs = encoder.encode(canvases, categories, numbers)
    if config.embeds_marks:
        inputs |= mark_inputs(marks)
    targets = {task.name: _targets(task, samples, shown, config) for task in objective.tasks}
    return Batch(inputs, targets, canvases, marks, list(samples))


def _canvas(pixels: np.ndarray, marks: np.ndarray, config: Config) -> np.ndarray:
    """Return an image as the model sees it: with its marks, where they are painted."""
    if config.embeds_marks:
        return pixels
    return draw_marks(pixels, marks, config.data.mark.style, config.data.mark.alpha)


def _stacked(samples: Sequence[Sample]) -> Tensor:
    """Return the kept features of samples, (B, ...), in the type they were computed in."""
    together = torch.from_numpy(np.stack([s.features for s in samples if s.features is not None]))
    return together.view(torch.bfloat16) if together.dtype == torch.uint16 else together


def _show(sample: Sample, objective: Objective, config: Config, epoch: int) -> Shown:
    rng = example_rng(config.seed, epoch, sample.key, objective.name)
    marked = objective.sample_marks(len(sample.points), rng, config)
    anywhere = config.coord.match != "ordered"
    points = rng.permutation(sample.points) if anywhere else sample.points
    if epoch == VAL_EPOCH:
        return Shown(points[:marked], points, marked)
    shown = imperfect(points, marked, config.data.mark, rng)
    return shown._replace(marks=sample.letterbox.clip(shown.marks))


def _targets(
    task: Task, samples: Sequence[Sample], shown: Sequence[Shown], config: Config
) -> Target:
    answers, left, weights = [], [], []
    for sample, one in zip(samples, shown, strict=True):
        answer, weight = task.target(one.objects, one.marked, config)
        answers.append(answer if sample.error is None else answer[:0])
        left.append(one.objects[one.marked :])
        weights.append(weight)
    natural = torch.tensor(weights, dtype=torch.float32)
    return Target(*_padded(answers), natural, *_padded(left))


def _padded(parts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return arrays (M, C) as one float32 (B, longest M, C), and what is real, bool (B, M)."""
    longest = max(1, max(map(len, parts)))
    values = np.zeros((len(parts), longest, parts[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(parts), longest), dtype=bool)
    for i, part in enumerate(parts):
        values[i, : len(part)] = part
        mask[i, : len(part)] = True
    return torch.from_numpy(values), torch.from_numpy(mask)
