"""The trunks of a counter: one for all tasks, or, with strategy `independent`, one a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raydual.config_tree import Config
from raydual.model.trunk import Trunk
from raydual.tasks import TASKS

SHARED = "shared"


def new_trunks(config: Config, base_dtype: torch.dtype) -> dict[str, Trunk]:
    """Make the trunks that a training starts from, by name.

    Raises:
        ConfigError, CheckpointError: as `Trunk.from_pretrained`.
    """
    return {
        name: Trunk.from_pretrained(
            config.model.trunk,
            lora=config.model.lora,
            seed=config.seed,
            base_dtype=base_dtype,
            embed_marks=config.embeds_marks,
            cell=config.model.cell,
            **_options(config),
        )
        for name in _names(config)
    }


def saved_trunks(folder: Path, config: Config, lent: Mapping[str, Trunk]) -> dict[str, Trunk]:
    """Load the trunks of a checkpoint, by name.

    lent: trunks under LoRA on the same frozen weights, by name, which are then not loaded again;
        may be empty.

    Raises:
        CheckpointError: as `Trunk.load`.
    """
    return {
        name: Trunk.load(folder / below, base=lent.get(name), **_options(config))
        for name, below in trunk_folders(config).items()
    }


def trunk_folders(config: Config) -> dict[str, str]:
    """Where each trunk lies in a checkpoint: the first at the top, so that it is a model path."""
    first, *others = _names(config)
    return {first: "."} | {name: f"trunk_{name}" for name in others}


def _names(config: Config) -> list[str]:
    return [t.name for t in TASKS] if config.train.strategy == "independent" else [SHARED]


def _options(config: Config) -> dict[str, Any]:
    return {
        "image_size": config.data.image_size,
        "trust_remote_code": config.model.trust_remote_code,
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "freeze_tower": config.model.freeze_tower,
    }
