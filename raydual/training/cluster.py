"""The Ray cluster a command runs on: joined or started here, and as large as it may grow."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray._private import ray_constants
from ray._private.services import canonicalize_bootstrap_address

from raydual.data.storage import first_line
from raydual.errors import ConfigError
from raydual.training.address import check_answers
from raydual.training.events import Note, OnEvent

KINDS = ("CPU", "GPU")

QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

PROMPT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
"""How often Ray Train looks whether workers have ended, or are lost; every 2 s if not told."""

ALONE = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
"""For a Ray of our own, which has no such server: without an address, Ray Train's placement group
cleaner asks that of any other Ray on the machine, is told that it does not know our training, and
removes its workers (Ray 2.60)."""


@contextlib.contextmanager
def connected(on_event: OnEvent) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start one on this machine and end it afterwards.

    Says where the dashboard is. One that is started here has none, and answers on loopback alone.

    Raises:
        ConfigError: nobody answers there, what answers cannot be joined, or Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.update(QUIET | PROMPT)
    address = os.environ.get("RAY_ADDRESS")
    on_event(Note(f"Joining Ray at {address}" if address else "Starting Ray on this machine"))
    with contextlib.nullcontext() if address else _loopback():
        url = _join(address)
        try:
            if url:
                on_event(Note(f"Ray's dashboard is at http://{url}"))
            yield
        finally:
            ray.shutdown()


def _join(address: str | None) -> str | None:
    """Join Ray at an address, or start it here; return where its dashboard is."""
    variables = QUIET | PROMPT | ({} if address else ALONE)
    try:
        if address:
            # Ray takes the loopback for this machine's address on the network; its client does not
            client = address.startswith("ray://")
            check_answers(address, address if client else canonicalize_bootstrap_address(address))
        context = ray.init(
            address=address or "local",  # else Ray would look for one that runs here, or did
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
    url: str | None = context.dashboard_url
    return url


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Let a Ray that starts here listen on 127.0.0.1 instead of on every interface.

    That is Ray's rule where it cannot build clusters; on Linux a variable asks for it (Ray 2.60),
    which Ray's processes read as they start, and which this one has read already.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    value = os.environ.get(name)
    os.environ[name] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]
        if value is not None:
            os.environ[name] = value


def largest_cluster() -> list[dict[str, float]]:
    """Return the resources of each node: those there are, and those an autoscaler may add."""
    nodes: list[dict[str, float]] = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    kinds = _autoscaler_settings(ray.get_runtime_context().gcs_address).get(
        "available_node_types", {}
    )
    allowed: collections.Counter[tuple[float, ...]] = collections.Counter()
    for kind in kinds.values():
        allowed[_shape(kind["resources"])] += kind.get("max_workers", 0)
    missing = allowed - collections.Counter(map(_shape, nodes))
    return nodes + [dict(zip(KINDS, shape, strict=True)) for shape in missing.elements()]


def _autoscaler_settings(address: str) -> dict[str, Any]:
    """Return the settings of the autoscaler of the cluster at an address; none: an empty mapping.

    Ray tells nobody how far a cluster may grow (2.60). Its autoscaler runs on the head, as jobs
    do, and has its settings from a file that its command line names.
    """
    for process in psutil.process_iter(["cmdline"]):
        words = [word.partition("=") for word in process.info["cmdline"] or ()]
        options = {name: value for name, mark, value in words if mark}
        file = options.get("--autoscaling-config")
        if file and options.get("--gcs-address") == address:
            settings: dict[str, Any] = yaml.safe_load(Path(file).expanduser().read_text())
            return settings
    return {}


def _shape(resources: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(float(resources.get(kind, 0)) for kind in KINDS)


@contextlib.contextmanager
def executors_ended() -> Iterator[None]:
    """Wait for Ray Data's threads: one that outlives the connection starts Ray again (2.60)."""
    try:
        yield
    finally:
        for thread in threading.enumerate():
            if thread.name.startswith("StreamingExecutor"):
                thread.join(timeout=30)


@contextlib.contextmanager
def quiet_core() -> Iterator[None]:
    """Keep Ray's core off the terminal: it calls it an error that a pool may restart its actors."""
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
