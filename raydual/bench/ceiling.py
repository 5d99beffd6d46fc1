"""What this machine is, what it can do at best, and how much arithmetic an iteration takes."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raydual.config import with_values
from raydual.config_tree import Config
from raydual.data.batches import BatchStream
from raydual.data.loading import load_here
from raydual.model.counter import DualTaskCounter
from raydual.tasks import SEPARATE, SUMMED, Objective
from raydual.training.parallel import ParallelCounter, arithmetic

SIDE = {"cpu": 2048, "cuda": 8192}
REPEATS = 20


def measure(config: Config, device: torch.device) -> dict[str, Any]:
    """Return the machine, the matrix-product ceiling and the FLOPs of an iteration by strategy."""
    dtype = arithmetic(config, device)
    return {
        "machine": machine(device),
        "dtype": str(dtype).removeprefix("torch."),
        "ceiling_flops_per_s": matrix_product(device, dtype),
        "iteration_flops": iteration_flops(config, device),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Say what this is measured on, and with which versions."""
    versions = {name: version(name) for name in ("torch", "ray", "transformers")}
    on_gpu = device.type == "cuda"
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }


def matrix_product(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large square matrix product, the best of several."""
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(REPEATS + 1):
        _wait(device)
        started = time.perf_counter()
        a @ b
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds[1:])


def iteration_flops(config: Config, device: torch.device) -> dict[str, int]:
    """Count the FLOPs of the passes of one iteration, what is recomputed for memory left out."""
    config = with_values(config, {"model.gradient_checkpointing": False, "train.strategy": "dual"})
    counter = DualTaskCounter.from_config(config, arithmetic(config, device))
    model = ParallelCounter(counter, device)
    return {
        "dual": _count(model, config, SEPARATE),
        "mixed": _count(model, with_values(config, {"train.strategy": "mixed"}), SUMMED),
    }


def _count(model: ParallelCounter, config: Config, goals: tuple[Objective, ...]) -> int:
    stream = BatchStream(config, model.counter.prompter, load_here)
    batches = stream.train(1)
    try:
        micro = next(iter(batches))
    finally:
        batches.close()
    # torch counts no FLOPs of its attention kernel for CPUs, and cannot where queries share keys
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        for by_name in micro:
            for objective in goals:
                batch = by_name[objective.name].to(model.device)
                outputs = model.forward(batch, objective.tasks)
                loss = torch.zeros((), device=model.device)
                for task, output in zip(objective.tasks, outputs, strict=True):
                    target = batch.targets[task.name]
                    judged = task.criterion(output, target, model.counter.grid, config)
                    loss = loss + judged.objective.sum()
                loss.backward()
    return counted.get_total_flops()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
