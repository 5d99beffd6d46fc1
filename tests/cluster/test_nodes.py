"""Nodes that come and go under a training: announced, as spot nodes go, and found by Ray itself."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raydual.errors import CheckpointError
from raydual.model.files import read_manifest
from tests.cluster.heads import OPEN, Head, head, listed, node
from tests.cluster.metadata import metadata_service

pytestmark = pytest.mark.slow

HEAD_CPUS, NODE_CPUS = 1, 2
WORKER_CPUS = 1.5  # one a node, and none on the head
NOTICE_S = 50


@pytest.fixture(scope="module")
def big_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a dataset whose epochs take seconds: 300 images to train on."""
    from raydual.data.formats.synthetic import SynthConfig, rows
    from raydual.data.schema import write_dataset

    path = tmp_path_factory.mktemp("data") / "big"
    drawing = SynthConfig(images=320, image_size=64, max_objects=5, splits=(0.94, 0.05, 0.01))
    write_dataset(rows(drawing), path, source="tests")
    return str(path)


class Lines:
    """What a process prints, read as far as one wants."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.all: list[str] = []

    def until(self, words: str) -> str:
        """Read up to a line that holds the words; return it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.all.append(line)
            if words in line:
                return line
        raise AssertionError(f"no {words!r} in:\n{''.join(self.all)}")

    def to_the_end(self) -> str:
        """Read what is left; the process has to end well."""
        rest, _ = self._process.communicate()
        assert self._process.returncode == 0, "".join(self.all) + rest
        return "".join(self.all) + rest


@contextlib.contextmanager
def training(head: Head, folder: Path, data: str, **values: object) -> Iterator[Lines]:
    """Run `raydual train` on a head's cluster; yield what it prints, line by line."""
    common = {
        "run.storage": folder.parent,
        "run.name": folder.name,
        "data.path": data,
        "data.image_size": 48,
        "train.batch_size": 1,
        "train.max_val_batches": 1,
        "train.count_every": 0,
        "coord.patience": 99,
        "log.wandb": "disabled",
        "log.images": 0,
        "scale.cpus_per_worker": WORKER_CPUS,
    }
    keys = [f"{key}={value}" for key, value in (common | values).items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "raydual", "train", *keys],
        env={**head.environment, "RAY_ADDRESS": head.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Lines(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def nodes_of_workers(head: Head) -> set[str]:
    actors = listed(head, "actors")
    alive = [a for a in actors if a["class_name"] == "RayTrainWorker" and a["state"] == "ALIVE"]
    return {actor["node_id"] for actor in alive}


def epochs(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").open()]


def saved_within_an_epoch(folder: Path) -> bool:
    with contextlib.suppress(CheckpointError):  # one that is just being exchanged
        return read_manifest(folder / "latest_checkpoint").get("iteration", 0) > 0
    return False


def test_a_notice_saves_within_its_grace_and_the_training_goes_on_elsewhere(
    big_dataset: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(head(f"--num-cpus={HEAD_CPUS}", **OPEN))
        nodes = {}
        for _ in range(3):
            own = contextlib.ExitStack()
            nodes[own.enter_context(node(here, NODE_CPUS))] = stack.enter_context(own)
        lines = stack.enter_context(
            training(here, folder, big_dataset, **{"scale.num_workers": 2, "train.epochs": 12})
        )
        lines.until("Epoch 1:")
        (announced, *_) = nodes_of_workers(here)
        told = time.monotonic()
        end = datetime.now(UTC) + timedelta(seconds=NOTICE_S)
        service = stack.enter_context(metadata_service())
        service.end = f"{end:%Y-%m-%dT%H:%M:%SZ}"
        watch = [sys.executable, "-m", "raydual.spot", here.address, announced]
        said = here.run(*watch, "--metadata", service.url)
        assert said.returncode == 0, said.stdout
        lines.until("is about to be taken away: saving")
        while not saved_within_an_epoch(folder):
            assert time.monotonic() - told < NOTICE_S
            time.sleep(0.02)
        time.sleep(max(0.0, told + NOTICE_S - time.monotonic()))
        nodes[announced].close()
        while nodes_of_workers(here) != nodes.keys() - {announced}:
            time.sleep(1)
        lines.to_the_end()
    assert epochs(folder) == list(range(1, 13))


def test_an_elastic_training_takes_a_node_that_comes_and_goes_on_without_one_that_goes(
    big_dataset: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(head(f"--num-cpus={HEAD_CPUS}", **OPEN))
        first = stack.enter_context(node(here, NODE_CPUS))
        lines = stack.enter_context(
            training(
                here, folder, big_dataset,
                **{"scale.num_workers": "[1,2]", "train.epochs": 20, "run.max_failures": 1,
                   "train.checkpoint_every": 20},
            )
        )  # fmt: skip
        lines.until("Epoch 1:")
        assert nodes_of_workers(here) == {first}
        with node(here, NODE_CPUS) as second:
            while nodes_of_workers(here) != {first, second}:
                time.sleep(1)
            lines.until("Epoch")
        lines.to_the_end()
    assert epochs(folder) == list(range(1, 21))
