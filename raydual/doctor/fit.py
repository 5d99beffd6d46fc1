"""Whether a training or a search fits the cluster: as it is, and as large as it may grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from raydual.config_tree import Config
from raydual.doctor.check import Check
from raydual.doctor.growth import ClusterFile
from raydual.errors import ConfigError
from raydual.training.capacity import check_fits
from raydual.tuning.resources import arithmetic, check_capacity, needs
from raydual.tuning.space import Search

NOW, GROWN = "fits as it is", "fits once grown"
Nodes = Sequence[Mapping[str, float]]


def fit_checks(
    config: Config, search: Search | None, now: Nodes, grown: Nodes | ClusterFile | None
) -> list[Check]:
    """Compare what is needed with what the nodes have, and may have.

    now: the resources of each node. grown: those of the largest cluster, or what they are chosen
    from; None where it does not grow.
    """
    here = _check(NOW, config, search, now)
    if grown is None:
        if here.verdict == "fail":
            more = f"{here.remedy}; of a cluster that grows by itself, give --cluster cluster.yaml"
            here = replace(here, remedy=more)
        return [here]
    if here.verdict == "fail":
        here = replace(here, verdict="warn", remedy="the cluster has to grow first")
    if not isinstance(grown, ClusterFile):
        return [here, _check(GROWN, config, search, grown)]
    named = grown.largest(*_process(config, search))
    kinds = Counter(name for name, _ in named).items()
    largest = _check(GROWN, config, search, [resources for _, resources in named])
    nodes = ", ".join(f"{count} {name}" for name, count in kinds)
    return [here, replace(largest, found=f"{largest.found}: {nodes}")]


def _check(name: str, config: Config, search: Search | None, nodes: Nodes) -> Check:
    try:
        return Check(name, _fits(config, search, nodes))
    except ConfigError as error:
        return Check.failed(name, error)


def _fits(config: Config, search: Search | None, nodes: Nodes) -> str:
    """Return the arithmetic.

    Raises:
        ConfigError: it does not fit; with the arithmetic, and what to change.
    """
    if search is not None:
        trials = check_capacity(search, config, nodes)
        return "{}; the cluster has {}".format(*arithmetic(search, config, trials, nodes))
    if config.scale.max_workers > 0:
        return check_fits(config, nodes)
    if config.scale.use_gpu and not torch.cuda.is_available():
        raise ConfigError("scale.use_gpu=true, but torch finds no GPU here; set it to false")
    return "scale.num_workers=0 trains in one process here, without Ray"


def _process(config: Config, search: Search | None) -> tuple[float, float]:
    """Return the CPUs and GPUs of one of the processes that are to find room on nodes."""
    if search is not None and config.scale.max_workers <= 1:
        own = needs(search, config)
        return own["CPU"], own.get("GPU", 0.0)
    return config.scale.cpus_per_worker, float(config.scale.use_gpu)
