"""What many tests share: a small dataset, and a configuration that trains on it in seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a Ray take longest: they come first."""
    items.sort(key=lambda item: "cluster" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a dataset of 48 training, 21 validation and 6 test images of 64 px, 0 to 5 objects."""
    from raydual.data.formats.synthetic import SynthConfig, rows
    from raydual.data.schema import write_dataset

    path = tmp_path_factory.mktemp("data") / "synthetic"
    drawing = SynthConfig(
        images=75, image_size=64, min_objects=0, max_objects=5, splits=(0.64, 0.28, 0.08)
    )
    write_dataset(rows(drawing), path, source="tests")
    return str(path)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One Ray of two CPUs for all tests that need one."""
    import ray

    from raydual.training.cluster import PROMPT

    os.environ.update(PROMPT)
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@pytest.fixture
def small(dataset: str, tmp_path: Path) -> Callable:
    """Return a function from `key=value` overrides to a small configuration."""
    from raydual.config import load
    from raydual.config_tree import Config

    def build(*overrides: str) -> Config:
        base = [
            f"data.path={dataset}",
            f"run.storage={tmp_path / 'runs'}",
            "run.name=r",
            "data.image_size=48",
            "train.batch_size=4",
            "train.epochs=2",
            "train.max_iterations=3",
            "train.count_every=0",
            "scale.num_workers=0",
            "log.wandb=disabled",
            "log.images=2",
            "coord.warmup=2",
            "done.warmup=2",
        ]
        return load(None, [*base, *overrides])

    return build
