"""What Ray Train's controller runs of ours: without the trainer, which would load transformers."""

from __future__ import annotations

import math
import time
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.util import get_current_placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.queue import Queue

from raydual.config_tree import Config
from raydual.training.events import Note
from raydual.training.failures import why

SAME_S = 10.0
"""What is heard again within this time is one preemption: Ray waits for the end of its notice."""


class Restarts(UserCallback):
    """Says why the workers are started again."""

    def __init__(self, config: Config, queue: Queue, desk: Any) -> None:
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
        else:
            left = ray.get(self._desk.take_restart.remote())
            if left is None:
                return
            again = f"{left} restart(s) left"
        stages = ray.get(self._desk.stages.remote())
        reason = why(worker_exceptions, stages, self._timeout_s)
        self._queue.put(Note(f"⚠ starting again, {again}: {reason}"))


class Leftovers(WorkerGroupCallback, ControllerCallback):
    """Frees what workers have held that were lost before they trained.

    Ray Train (2.60) forgets it then, and on a cluster with nothing to spare the next workers would
    wait for it for ever.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._held: PlacementGroup | None = None
        self._trained = False

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Note what the workers hold, before anything else is asked of them."""
        self._held = ray.get(workers[0].execute_async(get_current_placement_group))
        self._trained = False
        return {}

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Hear that these workers have started well."""
        self._trained = True

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Make room for new workers."""
        if self._held is not None and not self._trained:
            self._queue.put(Note("⚠ starting again: a worker was lost while workers started"))
        self._free()

    async def before_controller_shutdown(self) -> None:
        """Leave nothing to whoever comes next."""
        self._free()

    def _free(self) -> None:
        if self._held is not None:
            remove_placement_group(self._held)
            self._held = None


def _is_preempted(error: BaseException) -> bool:
    """Whether a worker was lost because its machine was taken away after a notice."""
    cause = getattr(error, "health_check_failure", error)  # what Ray Train wraps it in
    return isinstance(cause, RayActorError) and cause.preempted
