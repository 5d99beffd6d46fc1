"""SIGINT and SIGTERM: real processes, asked to end while they train."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from raydual.config_tree import Config
from raydual.model.files import read_manifest
from raydual.training.events import Step
from raydual.training.launch import launch, resumed
from tests.cluster.heads import listening

LONG = (
    "train.epochs=3",
    "train.batch_size=1",
    "train.max_iterations=null",
    "train.checkpoint_every=4",
)


@contextlib.contextmanager
def training(*arguments: str) -> Iterator[subprocess.Popen]:
    """Run `raydual train` in a process of its own, which does not outlive the block."""
    command = [sys.executable, "-m", "raydual", "train", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def written(config: Config) -> str:
    file = Path(config.run.storage).with_suffix(".yaml")
    file.write_text(config.to_yaml())
    return str(file)


def saved(folder: Path) -> bytes:
    """Return the manifest of the latest checkpoint, which another process may just exchange."""
    try:
        return (folder / "latest_checkpoint" / "raydual.json").read_bytes()
    except FileNotFoundError:
        return b""


def wait_for_checkpoint(process: subprocess.Popen, folder: Path) -> None:
    """Return when a checkpoint has been written that is not there yet."""
    before = saved(folder)
    while saved(folder) in (b"", before):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def end_after_a_checkpoint(process: subprocess.Popen, folder: Path, number: int) -> dict[str, Any]:
    """Send a signal when a checkpoint has been written; return what the manifest then says."""
    wait_for_checkpoint(process, folder)
    process.send_signal(number)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + number, said
    assert f"Go on with: raydual train --resume {folder}" in said
    assert "Traceback" not in said
    return read_manifest(folder / "latest_checkpoint")


def deciding(config: Config) -> list[dict[str, float]]:
    lines = (Path(config.run.storage) / str(config.run.name) / "metrics.jsonl").read_text()
    names = ("epoch", "train/loss_coord", "train/loss_done", "val/loss_coord", "val/loss_done")
    return [{name: json.loads(line)[name] for name in names} for line in lines.splitlines()]


def test_signals_end_a_training_after_a_checkpoint_and_change_nothing(small: Callable) -> None:
    whole, ended = (small(*LONG, f"run.name={name}") for name in ("whole", "ended"))
    launch(whole, lambda event: None)
    folder = Path(ended.run.storage) / "ended"
    with training("--config", written(ended)) as process:
        assert end_after_a_checkpoint(process, folder, signal.SIGINT)["iteration"] >= 4
    with training("--resume", str(folder)) as process:
        end_after_a_checkpoint(process, folder, signal.SIGTERM)
    launch(resumed(str(folder), None, []), lambda event: None)
    assert deciding(ended) == deciding(whole)


def test_a_signal_reaches_the_workers_of_ray_and_other_workers_go_on(small: Callable) -> None:
    config = small(*LONG, "scale.num_workers=2", "scale.cpus_per_worker=0.5")
    folder = Path(config.run.storage) / "r"
    with training("--config", written(config)) as process:
        wait_for_checkpoint(process, folder)
        where = listening(psutil.Process(process.pid))
        manifest = end_after_a_checkpoint(process, folder, signal.SIGTERM)
    # on loopback alone, but for torch's rendezvous on rank 0, which takes no address
    public = [name for (ip, _), name in where.items() if ip.removeprefix("::ffff:") != "127.0.0.1"]
    assert len(where) > len(public) <= 1, where
    assert all(name.startswith("ray::RayTrainWorker") for name in public), where
    assert 4 <= manifest["iteration"] <= 24

    events: list = []
    launch(resumed(str(folder), None, ["scale.num_workers=0", "train.epochs=1"]), events.append)
    done = manifest["iteration"]
    steps = [event for event in events if isinstance(event, Step)]
    assert (steps[0].done, steps[-1].done) == (done, done + 48 - 2 * done), "each row once"
    (line,) = deciding(config)
    assert line["epoch"] == 1
    assert read_manifest(folder / "latest_checkpoint")["epoch"] == 1


def test_a_worker_that_hangs_is_named_with_its_place(small: Callable) -> None:
    config = small(*LONG, "scale.num_workers=2", "scale.cpus_per_worker=0.5", "scale.timeout_s=40")
    folder = Path(config.run.storage) / "r"
    with training("--config", written(config)) as process:
        wait_for_checkpoint(process, folder)
        family = psutil.Process(process.pid).children(recursive=True)
        workers = [one for one in family if one.name().startswith("ray::RayTrainWorker")]
        assert len(workers) == 2
        workers[0].suspend()
        try:
            said, _ = process.communicate(timeout=300)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                workers[0].kill()
    assert process.returncode == 1, said
    assert re.search(r"rank \d hangs: it has been at epoch \d, iteration \d+, ", said), said
    assert "Traceback" not in said
