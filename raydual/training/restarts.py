"""What Ray Train's controller runs of ours: without the trainer, which would load transformers."""

from __future__ import annotations

import math
import time
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import UserCallback
from ray.util.queue import Queue

from raydual.config_tree import Config
from raydual.training.events import Note
from raydual.training.failures import why

SAME_S = 10.0
"""What is heard again within this time is one preemption: Ray waits for the end of its notice."""


class Restarts(UserCallback):
    """Says why the workers are started again."""

    def __init__(self, config: Config, queue: Queue, desk: Any) -> None:
        self._left = config.run.max_failures
        self._timeout_s = config.scale.timeout_s
        self._queue, self._desk = queue, desk
        self._preempted_at = -math.inf

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Hear of what the workers have raised."""
        if any(map(_is_preempted, worker_exceptions.values())):
            before, self._preempted_at = self._preempted_at, time.monotonic()
            if self._preempted_at - before < SAME_S:
                return
            again = "elsewhere"  # which costs no restart
        elif self._left:
            self._left -= 1
            again = f"{self._left} restart(s) left"
        else:
            return
        stages = ray.get(self._desk.stages.remote())
        reason = why(worker_exceptions, stages, self._timeout_s)
        self._queue.put(Note(f"⚠ starting again, {again}: {reason}"))


def _is_preempted(error: BaseException) -> bool:
    """Whether a worker was lost because its machine was taken away after a notice."""
    cause = getattr(error, "health_check_failure", error)  # what Ray Train wraps it in
    return isinstance(cause, RayActorError) and cause.preempted
