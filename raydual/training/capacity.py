"""What a training takes of a cluster, and whether that is there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raydual.config_tree import Config
from raydual.data.stream import CPUS_PER_TASK
from raydual.errors import ConfigError

DATA_CPUS = 1.0
"""What Ray Data needs beside the training workers; with nothing left it would wait for ever."""


def check_fits(config: Config, nodes: Sequence[Mapping[str, float]]) -> str:
    """Compare what the workers and Ray Data need with what the nodes have; return the arithmetic.

    nodes: the resources of each node. A worker has to fit on one node, its GPU with its CPUs.
    Elastic workers take all the room there is, and must not take that of Ray Data.

    Raises:
        ConfigError: it does not fit, with the arithmetic.
    """
    scale, workers = config.scale, config.scale.min_workers
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    if scale.use_gpu and gpus < workers:
        raise ConfigError(
            f"scale.use_gpu=true takes {workers} GPU(s), one a worker, but the cluster "
            f"has {gpus:g}; set scale.use_gpu=false or scale.num_workers={int(gpus)}"
        )
    need = workers * scale.cpus_per_worker + DATA_CPUS
    slots = room(nodes, scale.cpus_per_worker, float(scale.use_gpu))
    arithmetic = (
        f"scale.num_workers={workers} x scale.cpus_per_worker="
        f"{scale.cpus_per_worker:g} + {DATA_CPUS:g} for Ray Data = {need:g} CPUs"
        + (f" and {workers} GPU(s)" if scale.use_gpu else "")
    )
    there = f"{cpus:g}" + (f" and {gpus:g}" if scale.use_gpu else "") + f" on {len(nodes)} node(s)"
    if cpus < need or slots < workers:
        most = min(slots, times(scale.cpus_per_worker, cpus - DATA_CPUS))
        raise ConfigError(
            f"{arithmetic}, but the cluster has {there}; at most scale.num_workers="
            f"{max(0, most)} fit, or take a smaller scale.cpus_per_worker"
        )
    if scale.max_workers > workers:
        _check_leaves_room(config, nodes)
    return f"{arithmetic}; the cluster has {there}"


def _check_leaves_room(config: Config, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise where elastic workers, one node full of them after another, fill a node."""
    scale = config.scale
    for node in nodes:
        cpus = node.get("CPU", 0.0)
        held = min(room([node], scale.cpus_per_worker, float(scale.use_gpu)), scale.max_workers)
        if held and held * scale.cpus_per_worker + CPUS_PER_TASK > cpus:
            raise ConfigError(
                f"scale.num_workers=[{scale.min_workers}, {scale.max_workers}] takes {held} x "
                f"scale.cpus_per_worker={scale.cpus_per_worker:g} of a node of {cpus:g} CPUs, and "
                f"leaves less than {CPUS_PER_TASK:g} to Ray Data; take scale.cpus_per_worker="
                f"{math.floor((cpus - CPUS_PER_TASK) / held * 100) / 100:g} at most"
            )


def room(nodes: Sequence[Mapping[str, float]], cpu: float, gpu: float = 0.0) -> int:
    """Return how many processes find room on the nodes, each whole on one of them."""
    parts = {kind: part for kind, part in (("CPU", cpu), ("GPU", gpu)) if part > 0}
    return sum(min(times(p, node.get(kind, 0.0)) for kind, p in parts.items()) for node in nodes)


def times(part: float, whole: float) -> int:
    """Return how often a part goes into a whole, rounding errors aside."""
    return math.floor(whole / part + 1e-9)


def worker_resources(config: Config) -> dict[str, float]:
    """Return what each worker is given."""
    gpu = {"GPU": 1.0} if config.scale.use_gpu else {}
    return {"CPU": config.scale.cpus_per_worker, **gpu}
