"""The checks in their order, once it is known that what they import can be imported."""

from __future__ import annotations

from collections.abc import Iterator

from raydual.config_tree import Config
from raydual.doctor import here
from raydual.doctor.check import Check
from raydual.doctor.cluster import LOST, alive, checks, examine
from raydual.doctor.fit import fit_checks
from raydual.doctor.growth import ClusterFile
from raydual.doctor.storage import Probe
from raydual.training.cluster import connected, largest_cluster
from raydual.training.launch import with_absolute_paths
from raydual.tuning.space import Search


def look(config: Config, search: Search | None, growth: ClusterFile | None) -> Iterator[Check]:
    """Look at the cluster, the storage, the data, the trunk, the trackers, and the fit."""
    config = with_absolute_paths(config)
    probe = Probe(config.run.storage)
    probe.write()
    fits: list[Check] = []
    blind: list[str] = []
    grown: ClusterFile | list[dict[str, float]] | None = growth
    try:
        with connected(lambda event: None):
            reports = examine(config.run.storage, probe.folder)
            yield from checks(config, reports)
            blind = [r.node for r in reports if not r.error and not r.sees_storage]
            now = [node["Resources"] for node in alive()]
            largest = largest_cluster()
            if growth is None and len(largest) > len(now):
                grown = largest
            fits = fit_checks(config, search, now, grown)
    except LOST as error:
        yield Check.failed("Ray", error)
    finally:
        probe.delete()
    yield probe.check(blind, grown is not None)
    yield from here.trunk(config, search.trials if search else 1)
    yield here.data(config)
    yield here.wandb(config)
    yield from fits
