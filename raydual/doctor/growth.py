"""How large a cluster may grow, as its file for `ray up` says."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from raydual.config import first_error, read_yaml
from raydual.errors import ConfigError
from raydual.training.capacity import room

NODES = 2
"""Nodes beside the head where the file has no `max_workers`: Ray's own default."""


class NodeType(BaseModel):
    """A kind of node. max_workers: at the most; None for no limit of its own."""

    resources: dict[str, float]
    max_workers: int | None = Field(None, ge=0)


class ClusterFile(BaseModel):
    """What matters here of a cluster.yaml; the rest is Ray's."""

    available_node_types: dict[str, NodeType] = Field(min_length=1)
    head_node_type: str | None = None
    max_workers: int = Field(NODES, ge=0)

    @property
    def head(self) -> str:
        """The name of the head's type; of one type alone, that."""
        return self.head_node_type or next(iter(self.available_node_types))

    def largest(self, cpu: float, gpu: float) -> list[tuple[str, dict[str, float]]]:
        """Return name and resources of each node of the cluster that holds most of some processes.

        cpu, gpu: what one of the processes takes.
        """
        types, most = self.available_node_types, self.max_workers
        workers: list[str] = []
        for name, kind in types.items():
            limit = 0 if name == self.head else most
            if kind.max_workers is not None:
                limit = min(kind.max_workers, most)
            workers += [name] * limit

        def holds(name: str) -> tuple[int, float]:
            has = types[name].resources
            return room([has], cpu, gpu), has.get("CPU", 0.0)

        chosen = [self.head, *sorted(workers, key=holds, reverse=True)[:most]]
        return [(name, types[name].resources) for name in chosen]


def read_cluster_file(file: Path) -> ClusterFile:
    """Read a cluster.yaml.

    Raises:
        ConfigError: it is no YAML, or not the description of a cluster.
    """
    try:
        cluster = ClusterFile.model_validate(read_yaml(file))
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_error(error)}") from None
    if cluster.head not in cluster.available_node_types:
        there = ", ".join(cluster.available_node_types)
        raise ConfigError(f"{file}: head_node_type is {cluster.head!r}; there are: {there}")
    if cluster.head_node_type is None and len(cluster.available_node_types) > 1:
        raise ConfigError(f"{file}: head_node_type: it is missing; name one of the node types")
    return cluster
