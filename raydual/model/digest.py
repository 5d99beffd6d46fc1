"""What tells one vision tower from another, without loading a model."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open

from raydual.config_tree import Config
from raydual.model.pretrained import SHA256
from raydual.model.source import PHOTO, TINY, resolve
from raydual.model.weights import weights_of

TOWERS = {"vision_tower", "multi_modal_projector", "visual", "vision_model", "connector"}
"""Modules that compute features of images, as the families name them."""

_TRAINED = {"neck", "mixer"}
"""What a pyramid learns; its backbone alone computes features."""


def tower_digest(config: Config) -> str:
    """Return a hash of the weights that a frozen tower of `model.trunk` has, and of its settings.

    Raises:
        ConfigError, CheckpointError: the trunk cannot be found.
    """
    name = config.model.trunk
    if name == PHOTO:
        return SHA256
    if name == TINY:
        return f"{TINY}-{config.seed}"  # random
    folder = Path(resolve(name))
    base = Path(weights_of(folder)[0])
    settings = sorted({*folder.glob("*config.json"), *base.glob("*config.json")})
    whole = hashlib.sha256(b"".join(file.read_bytes() for file in settings))
    files = sorted(base.glob("*.safetensors"))
    known = tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    whole.update(_digest(known).encode())
    return whole.hexdigest()


@lru_cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for name, _, _ in files:
        with safe_open(name, framework="pt") as tensors:
            for key in sorted(filter(_computes_features, tensors.keys())):
                value = tensors.get_tensor(key)
                whole.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                whole.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _computes_features(key: str) -> bool:
    """Whether a weight is of the tower; of a pyramid, only its backbone computes features."""
    parts = key.split(".")
    return not TOWERS.isdisjoint(parts) and _TRAINED.isdisjoint(parts)
