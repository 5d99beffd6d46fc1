"""What the trials of a search take, and whether the cluster has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raydual.config import with_values
from raydual.config_tree import Config
from raydual.errors import ConfigError
from raydual.training.capacity import DATA_CPUS, room, times
from raydual.tuning.space import Search

DRIVER_CPUS = 0.01
"""What the process of a trial with several workers takes: it waits for them."""


def with_resources(search: Search, config: Config) -> Config:
    """Return the configuration with what the search file says of resources.

    Raises:
        ConfigError: a share of a GPU that trials cannot use.
    """
    given = search.resources
    if given.gpu and not config.scale.use_gpu:
        raise ConfigError(f"resources.gpu={given.gpu:g}, but scale.use_gpu=false; set it to true")
    if given.gpu not in (None, 1) and config.scale.max_workers > 1:
        raise ConfigError(
            f"resources.gpu={given.gpu:g}, but a worker of several takes one whole GPU; "
            "leave it out or set scale.num_workers=1"
        )
    cpu = given.cpu or config.scale.cpus_per_worker
    return with_values(config, {"scale.cpus_per_worker": cpu})


def needs(search: Search, config: Config) -> dict[str, float]:
    """Return what Tune sets aside for the process of one trial."""
    scale = config.scale
    if scale.max_workers > 1:
        return {"CPU": DRIVER_CPUS}
    gpu = search.resources.gpu if search.resources.gpu is not None else 1.0
    return {"CPU": scale.cpus_per_worker, **({"GPU": gpu} if scale.use_gpu else {})}


def check_capacity(search: Search, config: Config, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many trials run at a time: `concurrency`, or as many as fit.

    nodes: the resources of each node of the largest cluster there can be. A process has to fit on
    one of them.

    Raises:
        ConfigError: more than that are asked for, or not one fits; with the arithmetic.
    """
    own, scale = needs(search, config), config.scale
    nested = scale.max_workers > 1
    workers = scale.max_workers if nested else 0
    spare = DATA_CPUS if nested else 0.0
    cpu = own["CPU"] + workers * scale.cpus_per_worker
    gpu = float(workers) if nested and scale.use_gpu else own.get("GPU", 0.0)
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    if nested:
        fitting = room(nodes, scale.cpus_per_worker, float(scale.use_gpu)) // workers
        fitting = max(0, min(fitting, times(cpu, cpus - spare)))
    else:
        fitting = room(nodes, cpu, gpu)
    wanted = search.concurrency or max(1, min(fitting, search.trials))
    if wanted > fitting:
        trial = f"({own['CPU']:g} for its driver + {workers} workers x {scale.cpus_per_worker:g})"
        each = trial if nested else f"{cpu:g}"
        data = f" + {spare:g} for Ray Data" if spare else ""
        none = "" if fitting else " and not one trial fits"
        advice = f"at most concurrency={fitting} fits; lower it, or" if fitting else "lower"
        raise ConfigError(
            f"{wanted} trials at a time x {each}{data} = {wanted * cpu + spare:g} CPUs"
            + (f" and {wanted * gpu:g} GPUs" if gpu else "")
            + f", but the largest allowed cluster has {cpus:g} CPUs"
            + (f" and {gpus:g} GPUs" if gpu else "")
            + f" on {len(nodes)} node(s){none}: "
            + f"{advice} resources.cpu, resources.gpu or scale.num_workers"
        )
    return wanted
