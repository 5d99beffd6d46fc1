"""SIGINT and SIGTERM: real processes, asked to end while they train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from raydual.config_tree import Config
from raydual.model.files import read_manifest
from raydual.training.launch import launch, resumed
from tests.cluster.heads import listening

LONG = (
    "train.epochs=3",
    "train.batch_size=1",
    "train.max_iterations=null",
    "train.checkpoint_every=4",
)


def started(config: Config) -> subprocess.Popen:
    overrides = Path(config.run.storage).with_suffix(".yaml")
    overrides.write_text(config.to_yaml())
    command = [sys.executable, "-m", "raydual", "train", "--config", str(overrides)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_checkpoint(config: Config) -> Path:
    latest = Path(config.run.storage) / str(config.run.name) / "latest_checkpoint"
    for _ in range(600):
        if (latest / "raydual.json").is_file():
            return latest
        time.sleep(0.1)
    raise AssertionError("no checkpoint within a minute")


def deciding(config: Config) -> list[dict[str, float]]:
    lines = (Path(config.run.storage) / str(config.run.name) / "metrics.jsonl").read_text()
    names = ("epoch", "train/loss_coord", "train/loss_done", "val/loss_coord", "val/loss_done")
    return [{name: json.loads(line)[name] for name in names} for line in lines.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_after_a_checkpoint(small: Callable, number: int) -> None:
    whole, ended = (small(*LONG, f"run.name={name}") for name in ("whole", "ended"))
    launch(whole, lambda event: None)
    process = started(ended)
    latest = wait_for_checkpoint(ended)
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    folder = f"{ended.run.storage}/{ended.run.name}"
    assert f"Go on with: raydual train --resume {folder}" in said
    assert "Traceback" not in said
    assert read_manifest(latest)["iteration"] >= 4
    launch(resumed(folder, None, []), lambda event: None)
    assert deciding(ended) == deciding(whole)


def test_a_signal_reaches_the_workers_of_ray(small: Callable) -> None:
    config = small(*LONG, "scale.num_workers=2", "scale.cpus_per_worker=0.5")
    process = started(config)
    latest = wait_for_checkpoint(config)
    where = listening(psutil.Process(process.pid))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "raydual train --resume" in said
    # on loopback alone, but for torch's rendezvous on rank 0, which takes no address
    public = [name for (ip, _), name in where.items() if ip.removeprefix("::ffff:") != "127.0.0.1"]
    assert len(where) > len(public) <= 1, where
    assert all(name.startswith("ray::RayTrainWorker") for name in public), where
    manifest = read_manifest(latest)
    assert manifest["iteration"] % 20 == 0 or manifest["iteration"] == 24
