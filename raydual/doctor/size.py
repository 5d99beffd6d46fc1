"""How large a model and its checkpoints are, worked out from config.json alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from raydual.config_tree import Config
from raydual.errors import ConfigError
from raydual.model.adapters import add_adapters
from raydual.model.counter import DualTaskCounter
from raydual.model.marks import NUM_VECTORS
from raydual.model.pretrained import check_installed
from raydual.model.source import PHOTO, TINY, locate, one_line_errors, quiet_transformers
from raydual.model.trunk import NUM_READOUTS, Trunk
from raydual.model.weights import MARK, READOUT, goes_along
from raydual.tasks import TASKS, objectives
from raydual.training.parallel import arithmetic

FLOAT = 4
"""Bytes of a weight that is trained, and of each of the two moments that AdamW keeps of it."""


@dataclass(frozen=True)
class Size:
    """How large a model is.

    parameters: of the trunk and the heads. trained: those of them that are trained. checkpoints:
    bytes of a run's checkpoints at the most. features: bytes of the kept features of an image in
    one view, 0 where none are kept.
    """

    parameters: int
    trained: int
    checkpoints: int
    features: int


def sized(config: Config) -> Size:
    """Build the model without memory for its weights, and count; no weights are downloaded.

    Raises:
        ConfigError: there is no such trunk, the hub cannot be reached, or the trunk does not take
            `data.image_size`.
    """
    trunk = _trunk(config)
    with torch.device("meta"):
        heads = DualTaskCounter(config, {"shared": trunk}, prompter=None).heads  # type: ignore[arg-type]
    steps = len(objectives(config))
    copies = steps if config.train.strategy == "independent" else 1
    trained, frozen = _count(trunk, True), copies * _count(trunk, False)
    owned = steps * trained + _count(heads, True)
    trained = copies * trained + _count(heads, True)
    device = torch.device("cuda" if config.scale.use_gpu else "cpu")
    weights = FLOAT * trained
    if goes_along(locate(config.model.trunk)):
        weights += arithmetic(config, device).itemsize * frozen
    # the best of each task, the latest, and for a moment the one that replaces it
    checkpoints = (len(TASKS) + 2) * weights + 2 * 2 * FLOAT * owned
    features = trunk.feature_bytes if config.data.views else 0
    return Size(trained + frozen, trained, checkpoints, features)


def _trunk(config: Config) -> Trunk:
    advice = f"Give `{TINY}`, a folder, or an id of the hub while it can be reached."
    with (
        one_line_errors(f"model.trunk {config.model.trunk!r}", ConfigError, advice),
        quiet_transformers(),
        torch.device("meta"),
    ):
        if config.model.trunk == PHOTO:
            check_installed()
        trusted = config.model.trust_remote_code
        about = AutoConfig.from_pretrained(locate(config.model.trunk), trust_remote_code=trusted)
        if config.model.trunk == PHOTO:
            about.vision_config.cell = config.model.cell
        model = AutoModel.from_config(about, trust_remote_code=trusted)
        if config.model.lora.r:
            model = add_adapters(model, config.model.lora)
        size = about.get_text_config().hidden_size
        vectors = {READOUT: torch.empty(NUM_READOUTS, size)}
        if config.embeds_marks:
            vectors[MARK] = torch.empty(NUM_VECTORS, size)
        return Trunk(model, vectors, config.data.image_size, config.model.freeze_tower)


def _count(module: nn.Module, trained: bool) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad is trained)
