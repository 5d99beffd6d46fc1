"""How good the model is on the validation split."""

from __future__ import annotations

import math
import time

from raydual.data.batches import BatchStream
from raydual.errors import TrainingError
from raydual.metrics import Means, Medians
from raydual.tasks import SEPARATE, TASKS
from raydual.training.parallel import ParallelCounter
from raydual.training.watch import BadRows


def validate(
    model: ParallelCounter, stream: BatchStream
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Judge every task on the whole validation split; the same figures for any number of ranks.

    Returns the metrics, and id and reason of the rows that could not be decoded.
    """
    started = time.perf_counter()
    means, medians, bad = Means(model.device), Medians(), BadRows()
    batches = stream.val()
    try:
        with model.uneven():
            for by_task in batches:
                bad.see(by_task)
                by_task = {name: batch.to(model.device) for name, batch in by_task.items()}
                if model.tower_is_frozen:
                    by_task = model.look(by_task, SEPARATE)
                for objective in SEPARATE:
                    (task,) = objective.tasks
                    batch = by_task[objective.name]
                    target = batch.targets[task.name]
                    output = model.evaluate(batch, task)
                    judged = task.criterion(output, target, model.counter.grid, stream.config)
                    means.update(judged.figures)
                    medians.update(judged.medians)
    finally:
        batches.close()
    figures = means.compute() | medians.compute() | {"seconds": time.perf_counter() - started}
    bad_rows = bad.check(stream.config.data.max_bad_fraction, stream.val_rows, "validation")
    return {f"val/{name}": value for name, value in figures.items()}, bad_rows


def check_finite(figures: dict[str, float], epoch: int) -> None:
    """Stop before weights that have diverged in the epoch's last steps are saved.

    Raises:
        TrainingError: a task's validation loss is not finite.
    """
    for task in TASKS:
        if not math.isfinite(figures.get(task.monitor, 0.0)):
            raise TrainingError(
                f"{task.monitor} is not finite after epoch {epoch}; the checkpoints of earlier "
                f"epochs are whole; try a smaller {task.name}.lr"
            )
