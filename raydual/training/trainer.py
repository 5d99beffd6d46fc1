"""The loop under Ray Train: a `TorchTrainer` whose workers each run one rank."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray._private.services import canonicalize_bootstrap_address
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.util.queue import Queue

from raydual.config import build
from raydual.config_tree import Config
from raydual.data.storage import first_line, join
from raydual.data.stream import load_with_ray
from raydual.errors import ConfigError, RaydualError, TrainingError
from raydual.training.address import check_answers
from raydual.training.gate import Flag, Gate
from raydual.training.interruption import Interruption
from raydual.training.loop import EpochResult
from raydual.training.run import run_training
from raydual.training.run_folder import RunFolder
from raydual.training.trackers import Event, Note, OnEvent, Step

DATA_CPUS = 1.0
"""What Ray Data needs beside the training workers; with nothing left it would wait for ever."""

RAY_FOLDER = ".ray"
"""What Ray keeps for itself in a folder while it runs; nothing is resumed from it."""

STEPS_EVERY_S = POLL_S = 0.25

QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

ALONE = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
"""For a Ray of our own, which has no such server: without an address, Ray Train's placement group
cleaner asks that of any other Ray on the machine, is told that it does not know our training, and
removes its workers (Ray 2.60)."""


def run_on_ray(config: Config, on_event: OnEvent) -> None:
    """Train on the cluster that RAY_ADDRESS names, or on one started here for the purpose.

    Raises:
        ConfigError: the cluster cannot hold the workers; nothing has been started.
        TrainingError: the training failed, after `run.max_failures` restarts.
        EndedBySignalError: a signal ended it, after a checkpoint.
    """
    with connected(on_event):
        check_fits(config, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        scale = config.scale
        on_event(Note(f"Starting {scale.num_workers} worker(s), each {_resources(config)}"))
        with _events(on_event) as queue, Interruption() as asked:
            _fit_beside(config, queue, asked)


def _fit_beside(config: Config, queue: Queue, asked_to_end: Callable[[], bool]) -> None:
    """Run a TorchTrainer in a thread, and tell its workers when the end is asked for here."""
    flag = ray.remote(num_cpus=0)(Flag).remote()
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            _fit(config, {"queue": queue, "flag": flag})
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    told = False
    while thread.is_alive():
        thread.join(POLL_S)
        if asked_to_end() and not told:
            ray.get(flag.raise_it.remote())
            told = True
    if failures:
        raise failures[0]


def epochs_on_ray(
    config: Config, on_event: OnEvent, group: str
) -> Generator[EpochResult, None, None]:
    """Train on the Ray this process is in; yield each epoch, and let the next one begin after it.

    For the trials of a search: closing the generator ends the training and its workers between
    two epochs, so that nothing of it holds resources afterwards. group: the name of the search.

    Raises:
        TrainingError: as `run_on_ray`.
    """
    queue = Queue(actor_options={"num_cpus": 0})
    gate = ray.remote(num_cpus=0)(Gate).remote()
    failures: list[RaydualError] = []

    def fit() -> None:
        try:
            _fit(config, {"queue": queue, "gate": gate, "group": group})
        except RaydualError as error:
            failures.append(error)
        finally:
            queue.put(None)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    try:
        while (event := queue.get()) is not None:
            if isinstance(event, EpochResult):
                yield event
                ray.get(gate.open.remote(event.epoch))
            else:
                on_event(event)
    finally:
        ray.get(gate.close.remote())
        thread.join()
        queue.shutdown()
    if failures:
        raise failures[0]


def _fit(config: Config, channels: dict[str, Any]) -> None:
    """Run a TorchTrainer to its end.

    Raises:
        TrainingError: it failed, after `run.max_failures` restarts.
    """
    scale = config.scale
    trainer = ray.train.torch.TorchTrainer(
        _train_worker,
        train_loop_config={"config": config.model_dump(), **channels},
        scaling_config=ScalingConfig(
            num_workers=scale.num_workers,
            use_gpu=scale.use_gpu,
            resources_per_worker=_resources(config),
        ),
        run_config=RunConfig(
            name=f"attempt-{time.time_ns()}",
            storage_path=join(join(config.run.storage, str(config.run.name)), RAY_FOLDER),
            failure_config=FailureConfig(max_failures=config.run.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _first_cause(error, config) from error
    RunFolder(config.run.storage, str(config.run.name)).remove(RAY_FOLDER)


def check_fits(config: Config, nodes: Sequence[Mapping[str, float]]) -> str:
    """Compare what the workers and Ray Data need with what the nodes have; return the arithmetic.

    nodes: the resources of each node. A worker has to fit on one node, its GPU with its CPUs.

    Raises:
        ConfigError: it does not fit, with the arithmetic.
    """
    scale = config.scale
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    if scale.use_gpu and gpus < scale.num_workers:
        raise ConfigError(
            f"scale.use_gpu=true takes {scale.num_workers} GPU(s), one a worker, but the cluster "
            f"has {gpus:g}; set scale.use_gpu=false or scale.num_workers={int(gpus)}"
        )
    need = scale.num_workers * scale.cpus_per_worker + DATA_CPUS
    slots = room(nodes, scale.cpus_per_worker, float(scale.use_gpu))
    arithmetic = (
        f"scale.num_workers={scale.num_workers} x scale.cpus_per_worker="
        f"{scale.cpus_per_worker:g} + {DATA_CPUS:g} for Ray Data = {need:g} CPUs"
        + (f" and {scale.num_workers} GPU(s)" if scale.use_gpu else "")
    )
    there = f"{cpus:g}" + (f" and {gpus:g}" if scale.use_gpu else "") + f" on {len(nodes)} node(s)"
    if cpus < need or slots < scale.num_workers:
        most = min(slots, times(scale.cpus_per_worker, cpus - DATA_CPUS))
        raise ConfigError(
            f"{arithmetic}, but the cluster has {there}; at most scale.num_workers="
            f"{max(0, most)} fit, or take a smaller scale.cpus_per_worker"
        )
    return f"{arithmetic}; the cluster has {there}"


def room(nodes: Sequence[Mapping[str, float]], cpu: float, gpu: float = 0.0) -> int:
    """Return how many processes find room on the nodes, each whole on one of them."""
    parts = {kind: part for kind, part in (("CPU", cpu), ("GPU", gpu)) if part > 0}
    return sum(min(times(p, node.get(kind, 0.0)) for kind, p in parts.items()) for node in nodes)


def times(part: float, whole: float) -> int:
    """Return how often a part goes into a whole, rounding errors aside."""
    return math.floor(whole / part + 1e-9)


@contextlib.contextmanager
def connected(on_event: OnEvent) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start one on this machine and end it afterwards.

    Raises:
        ConfigError: nobody answers there, what answers cannot be joined, or Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.update(QUIET)
    address = os.environ.get("RAY_ADDRESS")
    variables = QUIET if address else QUIET | ALONE
    on_event(Note(f"Joining Ray at {address}" if address else "Starting Ray on this machine"))
    try:
        if address:
            # Ray takes the loopback for this machine's address on the network; its client does not
            client = address.startswith("ray://")
            check_answers(address, address if client else canonicalize_bootstrap_address(address))
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=None if address else False,
            runtime_env={"env_vars": variables},
        )
    except ConfigError:
        raise
    except Exception as error:  # ray.init raises many kinds, `Exception` itself among them
        what = f"join Ray at RAY_ADDRESS={address}" if address else "start Ray on this machine"
        raise ConfigError(f"cannot {what}: {first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _resources(config: Config) -> dict[str, float]:
    gpu = {"GPU": 1.0} if config.scale.use_gpu else {}
    return {"CPU": config.scale.cpus_per_worker, **gpu}


def _train_worker(setup: dict[str, Any]) -> None:
    """Run one rank; Ray Train calls this in every worker."""
    context = ray.train.get_context()
    config = build(setup["config"])
    flag = setup.get("flag")
    # Ray leaves the number unset, and each of several workers would take every core
    torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))

    for result in run_training(
        config,
        load_with_ray,
        ray.train.torch.get_device(),
        _sender(setup["queue"]),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        group=setup.get("group"),
        asked_to_end=lambda: flag is not None and ray.get(flag.raised.remote()),
    ):
        ray.train.report({"epoch": result.epoch, **result.metrics})
        gate = setup.get("gate")
        if gate is not None and not ray.get(gate.passes.remote(result.epoch)):
            return


def _sender(queue: Queue) -> OnEvent:
    """Return what sends events to the driver; steps only a few times a second."""
    last = 0.0

    def send(event: Event) -> None:
        nonlocal last
        if isinstance(event, Step):
            now = time.monotonic()
            if now - last < STEPS_EVERY_S and event.done:
                return
            last = now
        sent = queue.actor.put_nowait.remote(event)
        if not isinstance(event, Step):
            ray.get(sent)

    return send


@contextlib.contextmanager
def _events(on_event: OnEvent) -> Iterator[Queue]:
    """Yield a queue whose events are handed to `on_event` by a thread of this process."""
    queue = Queue(actor_options={"num_cpus": 0})

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


def _first_cause(error: Exception, config: Config) -> RaydualError:
    """Find raydual's own error in what the workers raised; keep any other in error.txt."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, RaydualError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    folder = RunFolder(config.run.storage, str(config.run.name))
    folder.write("error.txt", str(error).encode())
    lines = [line for line in str(failures[0] if failures else error).splitlines() if line.strip()]
    return TrainingError(f"the training failed: {lines[-1].strip()}; see {folder.path}/error.txt")
