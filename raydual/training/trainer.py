"""The loop under Ray Train: a `TorchTrainer` whose workers each run one rank."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.exceptions import RayActorError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydual.config_tree import Config
from raydual.data.storage import join
from raydual.training.capacity import check_fits, worker_resources
from raydual.training.cluster import connected, largest_cluster
from raydual.training.events import EpochResult, Note, OnEvent
from raydual.training.failures import first_cause, stuck
from raydual.training.feature_pool import make_on_ray
from raydual.training.gate import Desk, Gate
from raydual.training.interruption import Interruption
from raydual.training.kept import features_progress, kept_features
from raydual.training.restarts import Restarts, can_be_started_again, take_restart
from raydual.training.run_folder import RunFolder
from raydual.training.worker import train_worker

RAY_FOLDER = ".ray"
"""What Ray keeps for itself in a folder while it runs; nothing is resumed from it."""

POLL_S = 0.25


def run_on_ray(
    config: Config, on_event: OnEvent, on_stage: Callable[[str], None] | None = None
) -> None:
    """Train on the cluster that RAY_ADDRESS names, or on one started here for the purpose.

    on_stage: see `Hooks`; pickled, and called in the worker of rank 0 alone.

    Raises:
        ConfigError: the cluster cannot hold the workers; nothing has been started.
        TrainingError: the training failed, after `run.max_failures` restarts.
        EndedBySignalError: a signal ended it, after a checkpoint.
    """
    with connected(on_event):
        check_fits(config, largest_cluster())
        few, most = config.scale.min_workers, config.scale.max_workers
        workers = f"{few} to {most}" if few < most else most
        on_event(Note(f"Starting {workers} worker(s), each {worker_resources(config)}"))
        with Interruption() as asked:
            if (kept := kept_features(config)) is not None:
                make_on_ray(config, kept, features_progress(config, kept, on_event), asked)
            if asked():
                return
            with _events(on_event) as queue:
                _fit_beside(config, {"queue": queue, "on_stage": on_stage}, asked)


def _fit_beside(config: Config, channels: dict[str, Any], asked_to_end: Callable[[], bool]) -> None:
    """Run a TorchTrainer in a thread, and tell its workers when the end is asked for here."""
    desk = ray.remote(**_beside_the_driver())(Desk).remote(config.run.max_failures)
    training = _beside(lambda: _fit(config, channels | {"desk": desk}))
    told, looked = False, time.monotonic()
    while not training.done():
        wait([training], POLL_S)
        if asked_to_end() and not told:
            ray.get(desk.ask_to_end.remote())
            told = True
        if time.monotonic() - looked > config.scale.timeout_s:
            looked = time.monotonic()
            for note in stuck(ray.get(desk.stages.remote()), config.scale.timeout_s):
                channels["queue"].put(Note(f"⚠ {note}"))
    training.result()


def _beside_the_driver() -> dict[str, Any]:
    """Return the options of an actor that lives as long as this node: others may be taken away."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    return {"num_cpus": 0, "scheduling_strategy": strategy}


def _beside(work: Callable[[], None]) -> Future[None]:
    """Do work in a thread that nobody has to wait for when the process ends."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def epochs_on_ray(
    config: Config, on_event: OnEvent, group: str
) -> Generator[EpochResult, None, None]:
    """Train on the Ray this process is in; yield each epoch, and let the next one begin after it.

    For the trials of a search: closing the generator ends the training and its workers between
    two epochs, so that nothing of it holds resources afterwards. group: the name of the search.

    Raises:
        TrainingError: as `run_on_ray`.
    """
    queue = Queue(actor_options=_beside_the_driver())
    gate = ray.remote(**_beside_the_driver())(Gate).remote()
    desk = ray.remote(**_beside_the_driver())(Desk).remote(config.run.max_failures)

    def fit() -> None:
        try:
            _fit(config, {"queue": queue, "gate": gate, "desk": desk, "group": group})
        finally:
            queue.put(None)

    training = _beside(fit)
    try:
        while (event := queue.get()) is not None:
            if isinstance(event, EpochResult):
                yield event
                ray.get(gate.open.remote(event.epoch))
            else:
                on_event(event)
    finally:
        ray.get(gate.close.remote())
        wait([training])
        queue.shutdown()
    training.result()


def _fit(config: Config, channels: dict[str, Any]) -> None:
    """Run a TorchTrainer to its end, and again where Ray Train gives up though restarts are left.

    It does so (2.60) where a worker is lost just before it begins to train, or the controller is.

    Raises:
        TrainingError: it failed, after `run.max_failures` restarts.
    """
    desk, queue = channels["desk"], channels["queue"]
    while True:
        try:
            _fit_once(config, channels)
            break
        except (ray.train.TrainingFailedError, RayActorError) as error:
            timeout_s = config.scale.timeout_s
            if can_be_started_again(error) and not take_restart(error, queue, desk, timeout_s):
                continue
            stages = ray.get(desk.stages.remote())
            failures = getattr(error, "worker_failures", {})
            raise first_cause(failures, error, stages, config) from error
    RunFolder(config.run.storage, str(config.run.name)).remove(RAY_FOLDER)


def _fit_once(config: Config, channels: dict[str, Any]) -> None:
    scale = config.scale
    left = ray.get(channels["desk"].restarts_left.remote())
    os.environ["RAY_TRAIN_COLLECTIVE_TIMEOUT_S"] = str(scale.timeout_s)  # read by Ray Train
    trainer = ray.train.torch.TorchTrainer(
        train_worker,
        torch_config=TorchConfig(timeout_s=scale.timeout_s),
        train_loop_config={"config": config.model_dump(), **channels},
        scaling_config=ScalingConfig(
            num_workers=scale.num_workers,
            use_gpu=scale.use_gpu,
            resources_per_worker=worker_resources(config),
        ),
        run_config=RunConfig(
            name=f"attempt-{time.time_ns()}",
            storage_path=join(join(config.run.storage, str(config.run.name)), RAY_FOLDER),
            failure_config=FailureConfig(max_failures=left),
            logging_config=LoggingConfig(log_level="ERROR"),
            callbacks=[Restarts(config, channels["queue"], channels["desk"])],
        ),
    )
    trainer.fit()


@contextlib.contextmanager
def _events(on_event: OnEvent) -> Iterator[Queue]:
    """Yield a queue whose events are handed to `on_event` by a thread of this process."""
    queue = Queue(actor_options=_beside_the_driver())

    def listen() -> None:
        while (event := queue.get()) is not None:
            on_event(event)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        queue.put(None)
        thread.join(timeout=10)
        queue.shutdown()
