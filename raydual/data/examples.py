"""From samples to batches: how many objects are marked, what is asked, what is right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raydual.config_tree import Config
from raydual.data.loading import Sample
from raydual.data.marking import draw_marks
from raydual.tasks import Objective, Target, Task


class Encoder(Protocol):
    """What turns marked canvases and their prompts into the trunk's inputs."""

    def encode(
        self, images: np.ndarray, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Encode uint8 canvases (B, side, side, 3) with their prompts; see `Prompter`."""
        ...


@dataclass(frozen=True)
class Batch:
    """Collated examples.

    inputs: what the trunk takes. targets: by task name. canvases: uint8 (B, side, side, 3), the
    marked pictures, and the samples they were made from, stay on the host.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Target]
    canvases: np.ndarray
    num_marked: list[int]
    samples: list[Sample]

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


def example_rng(seed: int, epoch: int, row: str, objective: str) -> np.random.Generator:
    """Return the generator of one example: a function of its arguments alone."""
    key = f"{seed}/{epoch}/{objective}/{row}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()))


def collate(
    samples: Sequence[Sample], objective: Objective, encoder: Encoder, config: Config, epoch: int
) -> Batch:
    """Make one example of every sample and put them together.

    The number of marks is drawn from (seed, epoch, row id, name of the objective) alone. A sample
    whose image could not be decoded keeps its place, with no valid target.
    """
    marked = []
    for sample in samples:
        rng = example_rng(config.seed, epoch, sample.id, objective.name)
        marked.append(objective.sample_marks(len(sample.points), rng, config))
    mark = config.data.mark
    canvases = np.stack(
        [
            draw_marks(s.pixels, s.points[:k], mark.style, mark.alpha)
            for s, k in zip(samples, marked, strict=True)
        ]
    )
    inputs = encoder.encode(canvases, [s.category for s in samples], marked)
    targets = {task.name: _targets(task, samples, marked, config) for task in objective.tasks}
    return Batch(inputs, targets, canvases, marked, list(samples))


def _targets(
    task: Task, samples: Sequence[Sample], marked: Sequence[int], config: Config
) -> Target:
    answers, weights = [], []
    for sample, k in zip(samples, marked, strict=True):
        answer, weight = task.target(sample.points, k, config)
        answers.append(answer if sample.error is None else answer[:0])
        weights.append(weight)
    longest = max(1, max(len(a) for a in answers))
    values = np.zeros((len(answers), longest, answers[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(answers), longest), dtype=bool)
    for i, answer in enumerate(answers):
        values[i, : len(answer)] = answer
        mask[i, : len(answer)] = True
    natural = torch.tensor(weights, dtype=torch.float32)
    return Target(torch.from_numpy(values), torch.from_numpy(mask), natural)
