"""Run a training in this process and look at what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from raydual.config_tree import Config
from raydual.training.events import EpochResult
from raydual.training.launch import launch

TIMES = {
    "train/seconds",
    "val/seconds",
    "train/samples_per_s",
    "train/waiting_share",
    "train/peak_memory_gib",
}


def run(config: Config) -> list[EpochResult]:
    results: list[EpochResult] = []
    launch(config, lambda event: results.append(event) if isinstance(event, EpochResult) else None)
    return results


def history(config: Config) -> list[dict]:
    lines = (Path(config.run.storage) / str(config.run.name) / "metrics.jsonl").read_text()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines.splitlines()
    ]


def weights(config: Config, checkpoint: str) -> dict[str, torch.Tensor]:
    folder = Path(config.run.storage) / str(config.run.name) / checkpoint
    return {
        f"{file}:{name}": tensor
        for file in ("model.safetensors", "readout.safetensors", "heads.safetensors")
        for name, tensor in load_file(folder / file).items()
    }
