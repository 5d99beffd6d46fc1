"""The loop: one optimizer step a task in every iteration, on one shared trunk.

`fit` is a generator and knows no Ray and no files: whoever runs it prints, reports and saves
between two epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydual.config_tree import Config
from raydual.data.batches import BatchStream
from raydual.data.examples import Batch
from raydual.metrics import Weighted
from raydual.tasks import TASKS, Objective, objectives
from raydual.training.count_check import CountCheck
from raydual.training.early_stopping import EarlyStopping
from raydual.training.events import EpochResult
from raydual.training.hooks import CHECK_EVERY, Agreement, Hooks, Request
from raydual.training.optim import TaskOptimizer
from raydual.training.parallel import ParallelCounter, sum_over_ranks, world_size
from raydual.training.progress import Progress
from raydual.training.validation import check_finite, validate
from raydual.training.watch import GradientCosine, Watch

READ_AHEAD_S = 20.0
"""So many seconds before the end of an epoch the next one is read, from its middle at the most:
earlier would hold decoded images of both."""


@dataclass
class TrainState:
    """Everything that a resumed training needs beside the weights.

    epoch: the last one that was finished, 0 before the first. best_count_mae: the lowest
    `val/count_mae` so far. parts: what each rank had gathered of the epoch after that, where it
    was left in its middle; empty otherwise.
    """

    optimizers: dict[str, TaskOptimizer]
    stoppers: dict[str, EarlyStopping]
    epoch: int = 0
    best_count_mae: float = math.inf
    parts: list[dict[str, Any]] = field(default_factory=list)

    def ended(self, rule: str) -> bool:
        """Whether `all` tasks have used up their patience, or `any` has."""
        exhausted = [stopper.exhausted for stopper in self.stoppers.values()]
        return all(exhausted) if rule == "all" else any(exhausted)

    def finished(self, config: Config) -> bool:
        """Whether patience or the number of epochs is used up."""
        return self.ended(config.train.stop) or self.epoch >= config.train.epochs


def fit(
    model: ParallelCounter, state: TrainState, stream: BatchStream, hooks: Hooks
) -> Iterator[EpochResult]:
    """Train until patience or `train.epochs` is used up; yield after every validation.

    `state` is advanced before each yield, so that saving it there resumes at the next epoch. Every
    `train.checkpoint_every` iterations, and on request, `hooks.on_pause` is called: what is saved
    there, with its parts as `state.parts`, resumes in the middle of the epoch. After a request to
    end nothing is yielded any more.

    Raises:
        TrainingError: a loss that is not finite, or more corrupt images than tolerated; nothing
            is yielded for that epoch.
    """
    config = stream.config
    if state.finished(config):
        return
    count_check = CountCheck(stream)
    progress = _resumed(state, stream, model.device)
    reading = [stream.train(state.epoch + 1, progress.legs)]
    agreement = Agreement(hooks.requested, model.device)
    try:
        while True:
            epoch = state.epoch + 1
            for done in train_epoch(model, state, stream, reading[0], progress, hooks.on_stage):
                hooks.on_progress(epoch, done, progress.iterations)
                if len(reading) == 1 and epoch < config.train.epochs and _nears_its_end(progress):
                    reading.append(stream.train(epoch + 1))
                last = done == progress.iterations
                request = agreement.reached(done, last)
                if request or (not last and _is_due(config, done)):
                    progress.watch.check()
                    hooks.on_pause(progress.everywhere())
                if request is Request.END:
                    return
            figures, bad_rows = progress.results(state.optimizers)
            reading.pop(0)
            hooks.on_stage(f"validation after epoch {epoch}")
            yield _concluded(model, state, stream, count_check, figures, bad_rows)
            if state.finished(config):
                return
            progress = Progress(objectives(config), state.epoch + 1, stream, model.device)
    finally:
        for batches in reading:
            batches.close()


def _concluded(
    model: ParallelCounter,
    state: TrainState,
    stream: BatchStream,
    count_check: CountCheck,
    trained: dict[str, float],
    bad_rows: list[tuple[str, str]],
) -> EpochResult:
    """Validate what an epoch has trained, and advance `state` by it."""
    epoch = state.epoch + 1
    figures, bad_val_rows = validate(model, stream)
    check_finite(figures, epoch)
    metrics = trained | figures | _counted(count_check.after(epoch, model), state)
    improved = [
        task.name
        for task in TASKS
        if state.stoppers[task.name].update(metrics.get(task.monitor, float("nan")))
    ]
    metrics |= _bests(state)
    state.epoch, state.parts = epoch, []
    stalled = {name: stopper.stalled for name, stopper in state.stoppers.items()}
    ended = state.ended(stream.config.train.stop)
    return EpochResult(epoch, metrics, improved, stalled, ended, bad_rows + bad_val_rows)


def train_epoch(
    model: ParallelCounter,
    state: TrainState,
    stream: BatchStream,
    iterations: Iterable[list[dict[str, Batch]]],
    progress: Progress,
    on_stage: Callable[[str], None],
) -> Iterator[int]:
    """Run what is left of an epoch; yield how many iterations are done, first and after each."""
    goals = objectives(stream.config)
    model.counter.train()
    yield progress.done
    source = iter(iterations)
    while True:
        here = f"epoch {state.epoch + 1}, iteration {progress.done + 1}"
        on_stage(f"{here}, waiting for data")
        before = time.perf_counter()
        micro = next(source, None)
        progress.waited += time.perf_counter() - before
        if micro is None:
            break
        on_stage(f"{here}, copying to the device")
        micro = [{name: b.to(model.device) for name, b in batches.items()} for batches in micro]
        where = (stream.config.seed, state.epoch + 1, progress.done, stream.rank)
        torch.manual_seed(int(np.random.SeedSequence(where).generate_state(1)[0]))
        figures = iteration(
            model,
            state.optimizers,
            goals,
            micro,
            progress.watch,
            progress.cosine,
            partial(_at, on_stage, here),
        )
        progress.means.update(figures)
        progress.done += 1
        for batches in micro:
            progress.watch.bad.see(batches)
        if progress.done % CHECK_EVERY == 0:
            progress.watch.check()
        yield progress.done
    progress.watch.check()


def iteration(
    model: ParallelCounter,
    optimizers: dict[str, TaskOptimizer],
    goals: tuple[Objective, ...],
    micro: list[dict[str, Batch]],
    watch: Watch,
    cosine: GradientCosine,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Weighted]:
    """Take one step an objective, each on the gradients of that objective alone.

    micro: the batches of the iteration, by objective; several where gradients are accumulated.
    Returns what the criteria reported, and each step's gradient norm.
    """
    on_stage("agreement on the batch")
    config = model.counter.config
    counts = valid_counts(goals, micro)
    micro = _looked_at(model, goals, micro, on_stage)
    figures: dict[str, list[Weighted]] = {}
    for objective in goals:
        optimizer = optimizers[objective.name]
        for i, batches in enumerate(micro):
            batch = batches[objective.name]
            local = model.no_sync(objective.tasks) if i + 1 < len(micro) else nullcontext()
            with local:
                on_stage(f"forward pass of {objective.name}")
                loss = torch.zeros((), device=model.device)
                outputs = model.forward(batch, objective.tasks)
                for task, output in zip(objective.tasks, outputs, strict=True):
                    judged = task.criterion(
                        output, batch.targets[task.name], model.counter.grid, config
                    )
                    valid = batch.targets[task.name].valid
                    total = (judged.objective * valid).sum()
                    scale = world_size() / counts[objective.name, task.name]
                    loss = loss + objective.weight(task) * total * scale
                    watch.see(task, judged.objective, valid)
                    for name, figure in judged.figures.items():
                        figures.setdefault(name, []).append(figure)
                on_stage(f"backward pass of {objective.name}")
                loss.backward()
        on_stage(f"gradients of {objective.name}")
        cosine.see(optimizer)
        on_stage(f"clipping of {objective.name}")
        norm = optimizer.clip()
        on_stage(f"step of {objective.name}")
        optimizer.step()
        figures[f"grad_norm_{objective.name}"] = [(norm[None], torch.ones_like(norm[None]))]
    on_stage("figures")
    cosine.next_iteration()
    watch.next_iteration()
    return {name: _joined(parts) for name, parts in figures.items()}


def valid_counts(
    goals: tuple[Objective, ...], micro: list[dict[str, Batch]]
) -> dict[tuple[str, str], Tensor]:
    """Count the valid targets of the iteration over all ranks, by (objective, task); at least 1.

    DDP averages gradients over ranks: a loss summed over examples and scaled by world size over
    this count gives the gradient of the mean over all valid examples, wherever they are.
    """
    keys = [(o.name, t.name) for o in goals for t in o.tasks]
    local = [sum(b[o].targets[t].valid.sum() for b in micro) for o, t in keys]
    counts = sum_over_ranks(torch.stack([torch.as_tensor(c) for c in local]))
    return dict(zip(keys, counts.clamp(min=1).unbind(), strict=True))


def _looked_at(
    model: ParallelCounter,
    goals: tuple[Objective, ...],
    micro: list[dict[str, Batch]],
    on_stage: Callable[[str], None],
) -> list[dict[str, Batch]]:
    """Compute what no step of the iteration changes once, before all of them."""
    if not model.tower_is_frozen:
        return micro
    on_stage("image features")
    return [model.look(batches, goals) for batches in micro]


def _bests(state: TrainState) -> dict[str, float]:
    """Return the best validation loss so far, by task: what its best checkpoint has."""
    bests = {task.best: state.stoppers[task.name].best for task in TASKS}
    return {name: best for name, best in bests.items() if math.isfinite(best)}


def _counted(figures: dict[str, float], state: TrainState) -> dict[str, float]:
    """Add the best so far to what a closed-loop check gave."""
    if figures:
        state.best_count_mae = min(state.best_count_mae, figures["val/count_mae"])
        figures["val/count_mae_best"] = state.best_count_mae
    return figures


def _resumed(state: TrainState, stream: BatchStream, device: torch.device) -> Progress:
    """Return the epoch to go on with: at its beginning, or where it was left."""
    progress = Progress(objectives(stream.config), state.epoch + 1, stream, device)
    if state.parts:
        progress.go_on(state.parts)
    return progress


def _at(on_stage: Callable[[str], None], here: str, stage: str) -> None:
    on_stage(f"{here}, {stage}")


def _joined(parts: list[Weighted]) -> Weighted:
    values, weights = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(weights)


def _nears_its_end(progress: Progress) -> bool:
    """Whether it is time to read the next epoch, which Ray Data takes a second or two to begin."""
    left = progress.iterations - progress.done
    return left <= progress.done and left * progress.seconds <= READ_AHEAD_S * progress.done


def _is_due(config: Config, done: int) -> bool:
    """Whether it is time for a checkpoint within the epoch; its end has one of its own."""
    every = config.train.checkpoint_every
    return bool(every and done and done % every == 0)
