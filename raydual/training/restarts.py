"""What Ray Train's controller runs of ours: without the trainer, which would load transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import ControllerError, PreemptionError, TrainingFailedError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RestartingState
from ray.util import get_current_placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.queue import Queue

from raydual.config_tree import Config
from raydual.errors import TrainingError
from raydual.training.events import Note
from raydual.training.failures import gist, why


class Restarts(ControllerCallback, WorkerGroupCallback):
    """Counts how often the workers are started again, says why, and makes room for them.

    Ray Train (2.60) counts no restart of workers that were lost while they started, nor frees what
    they held: on a cluster with nothing to spare the next ones would wait for it for ever.
    """

    def __init__(self, config: Config, queue: Queue, desk: Any) -> None:
        self._timeout_s = config.scale.timeout_s
        self._queue, self._desk = queue, desk
        self._held: PlacementGroup | None = None

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Hear that the workers are to be started again.

        Raises:
            TrainingError: Ray would start them once more than `run.max_failures` allows.
        """
        if not isinstance(current_state, RestartingState | ReschedulingState):
            return
        error = current_state.training_failed_error
        if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
            return  # there is no room for them yet
        reason = take_restart(error, self._queue, self._desk, self._timeout_s)
        if reason is not None:
            raise TrainingError(f"{reason}; no restart is left, see run.max_failures")

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Note what the workers hold, before anything else is asked of them."""
        self._held = ray.get(workers[0].execute_async(get_current_placement_group))
        return {}

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Make room for new workers."""
        self._free()

    async def before_controller_shutdown(self) -> None:
        """Leave nothing to whoever comes next."""
        self._free()

    def _free(self) -> None:
        if self._held is not None:
            remove_placement_group(self._held)
            self._held = None


def take_restart(error: Exception, queue: Queue, desk: Any, timeout_s: float) -> str | None:
    """Take a restart and say why; return the reason alone where none is left.

    A machine that is taken away after a notice costs none.
    """
    stages = ray.get(desk.stages.remote())
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    if failures:
        reason = why(failures, stages, timeout_s)
    elif isinstance(error, PreemptionError):
        reason = "a machine is taken away"
    elif isinstance(error, ControllerError):
        cause = error.controller_failure
        reason = f"a worker was lost while workers started: {gist(cause.__cause__ or cause)}"
    else:
        reason = f"the controller of Ray Train was lost: {gist(error)}"
    preempted = isinstance(error, PreemptionError) or any(map(_is_preempted, _causes(error)))
    left = ray.get(desk.start_again.remote(counts=not preempted))
    if left is None:
        return reason
    again = "elsewhere" if preempted else f"{left} restart(s) left"
    queue.put(Note(f"⚠ starting again, {again}: {reason}"))
    return None


def can_be_started_again(error: TrainingFailedError | RayActorError) -> bool:
    """Whether an error that Ray Train gives up on is one of starting workers, not of training."""
    if isinstance(error, ControllerError):
        return not isinstance(error.controller_failure, TrainingError)
    return isinstance(error, RayActorError)


def _causes(error: Exception) -> list[BaseException | None]:
    """What an error of Ray Train was made of."""
    if isinstance(error, ControllerError):
        return [error.controller_failure, error.controller_failure.__cause__]
    return list(getattr(error, "worker_failures", {}).values())


def _is_preempted(error: BaseException | None) -> bool:
    """Whether a worker was lost because its machine was taken away after a notice."""
    cause = getattr(error, "health_check_failure", error)  # what Ray Train wraps it in
    return isinstance(cause, RayActorError) and cause.preempted
