"""The cluster as it is: its nodes, what is on them, and what they have together."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydual.config_tree import Config
from raydual.doctor.check import Check, gib
from raydual.doctor.storage import is_seen
from raydual.errors import ConfigError, RaydualError
from raydual.version import __version__

LOST = (ConfigError, ray.exceptions.RayError)
"""What is raised where a cluster cannot be joined, or goes away."""

ANSWER_S = 120.0
"""A node on which a small task has not ended by then is in no state to train."""

SILENT = f"no answer within {ANSWER_S:g} s"


@dataclass(frozen=True)
class Report:
    """What a task on one node found there.

    error: why there is no report. gpus: how many torch can use; None where Ray has none either.
    """

    node: str
    error: str = ""
    version: str = ""
    sees_storage: bool = False
    gpus: int | None = None


def alive() -> list[dict[str, Any]]:
    """Return Ray's description of each node that is alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def examine(storage: str, folder: str) -> list[Report]:
    """Run a small task on every node, at once, and return what each found."""
    nodes = alive()
    tasks = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, scheduling_strategy=place, max_retries=0)(_look)
        has_gpus = node["Resources"].get("GPU", 0) > 0
        tasks[task.remote(storage, folder, has_gpus)] = node["NodeManagerAddress"]
    ended, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=ANSWER_S)
    reports = []
    for task, name in tasks.items():
        if task not in ended:
            reports.append(Report(name, SILENT))
            continue
        try:
            reports.append(Report(name, **ray.get(task)))
        except ray.exceptions.RayError as error:
            reports.append(Report(name, _reason(error)))
    return reports


def checks(config: Config, reports: list[Report]) -> list[Check]:
    """Say what the nodes have, and whether raydual and torch work on each of them."""
    nodes = alive()
    total: dict[str, float] = collections.defaultdict(float)
    free = ray.available_resources()
    for node in nodes:
        for kind, amount in node["Resources"].items():
            total[kind] += amount
    cpus = f"{total['CPU']:g} on {len(nodes)} node(s), {free.get('CPU', 0):g} free"
    return [
        Check("Ray", f"{ray.__version__}, at {ray.get_runtime_context().gcs_address}"),
        node_check(reports),
        Check("CPUs", cpus),
        gpu_check(config, total, free.get("GPU", 0), reports),
        Check("memory", f"{gib(total['memory'])} for tasks and actors"),
        Check("object store", gib(total["object_store_memory"])),
    ]


def _look(storage: str, folder: str, has_gpus: bool) -> dict[str, Any]:
    """What a node finds; runs there."""
    gpus = None
    if has_gpus:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        seen = is_seen(storage, folder)
    except (RaydualError, OSError):
        seen = False
    return {"version": __version__, "sees_storage": seen, "gpus": gpus}


def node_check(reports: list[Report]) -> Check:
    """Say whether this version of raydual runs on every node."""
    wrong = [f"{r.node}: {r.error}" for r in reports if r.error]
    other = [r for r in reports if not r.error and r.version != __version__]
    wrong += [f"{r.node}: raydual {r.version}" for r in other]
    found = f"raydual {__version__} on {len(reports) - len(wrong)} of {len(reports)}"
    if not wrong:
        return Check("nodes", found)
    remedy = f"install raydual {__version__} on every node, or give the job a runtime_env with it"
    if all(report.error == SILENT for report in reports if report.error) and not other:
        remedy = "look what keeps that node busy, and ask again"
    return Check("nodes", f"{found}; {'; '.join(wrong)}", "fail", remedy)


def gpu_check(
    config: Config, total: Mapping[str, float], free: float, reports: list[Report]
) -> Check:
    """Say which GPUs there are, whether torch can use them, and whether the training would.

    total: the resources of all nodes together.
    """
    wanted = config.scale.use_gpu
    if not total.get("GPU"):
        return Check("GPUs", "none")
    kinds = ", ".join(k.partition(":")[2] for k in total if k.startswith("accelerator_type:"))
    usable = sum(report.gpus or 0 for report in reports)
    found = (
        f"{total['GPU']:g} ({kinds or 'of unknown kind'}), {free:g} free, torch can use {usable}"
    )
    if wanted and usable < total["GPU"]:
        remedy = "install the CUDA build of torch that fits the driver on every node with a GPU"
        return Check("GPUs", found, "fail", remedy)
    if not wanted:
        return Check("GPUs", found, "warn", "set scale.use_gpu=true to train on them")
    return Check("GPUs", found)


def _reason(error: Exception) -> str:
    """The last line of what a task raised, where the cause is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
