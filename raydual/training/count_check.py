"""Closed-loop counts of some validation images, while a model is trained."""

from __future__ import annotations

import torch

from raydual.counting.closed_loop import Counter
from raydual.counting.samples import count_samples
from raydual.data.batches import BatchStream
from raydual.data.loading import Sample
from raydual.metrics import Means, gather
from raydual.training.parallel import ParallelCounter

IMAGES = 64
"""How many validation images are counted, the first of the split, by all ranks together."""

MARGIN = 10
"""A count ends so many above the most objects of these images: an early model knows no end."""


class CountCheck:
    """Counts the same validation images every `train.count_every` epochs.

    Teacher-forced losses are asked on true marks; this is what counting makes of the model's own.
    Nothing random is drawn, so that training goes on as if it had not been asked.
    """

    def __init__(self, stream: BatchStream) -> None:
        self._stream = stream
        self._samples: list[Sample] | None = None

    def after(self, epoch: int, model: ParallelCounter) -> dict[str, float]:
        """Return `val/count_mae`, the mean absolute error, where it is due; the same on every rank.

        A collective: each rank counts its share of the images.
        """
        every = self._stream.config.train.count_every
        if not every or epoch % every:
            return {}
        if self._samples is None:
            samples = self._stream.first_val_samples(IMAGES)
            self._samples = [sample for sample in samples if sample.error is None]
        samples = self._samples
        most = max(n for rank in gather([len(s.points) for s in samples] or [0]) for n in rank)
        with model.uneven(), model.autocast():
            counts = count_samples(
                Counter(model.counter, model.counter), samples, max_objects=most + MARGIN
            )
        errors = torch.tensor(
            [abs(c.count - len(s.points)) for c, s in zip(counts, samples, strict=True)],
            dtype=torch.float64,
        )
        means = Means(model.device)
        if len(errors):
            errors = errors.to(model.device)
            means.update({"val/count_mae": (errors, torch.ones_like(errors))})
        return means.compute()
