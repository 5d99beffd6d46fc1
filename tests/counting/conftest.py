"""A run to count with."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydual.model.counter import DualTaskCounter


@pytest.fixture(scope="session")
def run(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose best checkpoints are two models of different seeds, not trained."""
    from raydual.config import load

    folder = tmp_path_factory.mktemp("runs") / "r"
    for seed, task in enumerate(("coord", "done")):
        config = load(None, [f"data.path={dataset}", "data.image_size=48", f"seed={seed}"])
        model = DualTaskCounter.from_config(config)
        model.save_pretrained(folder / f"best_{task}_checkpoint", epoch=seed + 1)
    return folder
