"""What Ray Train's controller runs of ours: without the trainer, which would load transformers."""

from __future__ import annotations

from typing import Any

import ray
from ray.train import UserCallback
from ray.util.queue import Queue

from raydual.config_tree import Config
from raydual.training.events import Note
from raydual.training.failures import why


class Restarts(UserCallback):
    """Says why the workers are started again."""

    def __init__(self, config: Config, queue: Queue, desk: Any) -> None:
        self._left = config.run.max_failures
        self._timeout_s = config.scale.timeout_s
        self._queue, self._desk = queue, desk

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Hear of what the workers have raised."""
        if not self._left:
            return
        self._left -= 1
        stages = ray.get(self._desk.stages.remote())
        reason = why(worker_exceptions, stages, self._timeout_s)
        self._queue.put(Note(f"⚠ starting again, {self._left} restart(s) left: {reason}"))
