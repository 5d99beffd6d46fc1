"""Where the weights of a trunk are read from: a model's folder, or a checkpoint of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from raydual.errors import CheckpointError, ConfigError, RaydualError
from raydual.model.adapters import ADAPTER_FOLDER, load_adapters
from raydual.model.base import BASE_FILE, Base
from raydual.model.prompt import NUM_READOUTS
from raydual.model.source import TINY_FOLDER, one_line_errors, quiet_transformers

READOUT_FILE = "readout.safetensors"

FOR_TRAINING = "Give `tiny`, the id of a model that can be reached, or a whole folder."
FOR_CHECKPOINT = "The checkpoint is incomplete or damaged; use another one."


def load_model(
    source: str,
    dtype: torch.dtype | str,
    trust_remote_code: bool,
    error: type[RaydualError],
    advice: str,
) -> Any:
    """The model at `source` with no weight left to chance; adapters beside it are left alone."""
    with one_line_errors(f"The trunk {source!r}", error, advice), quiet_transformers():
        model, report = AutoModel.from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise error(
            f"The trunk {source!r} lacks {len(missing)} weights, {missing[0]} first. {advice}"
        )
    return model


def initial_model(source: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """Return the model that a training starts from: of `tiny` a random one.

    Adapters of a checkpoint of this project are merged into its weights.

    Raises:
        ConfigError: it cannot be read.
        CheckpointError: it is a damaged checkpoint of this project.
    """
    if source == str(TINY_FOLDER):
        return AutoModel.from_config(AutoConfig.from_pretrained(source), dtype=dtype)
    folder = Path(source)
    model = load_model(weights_of(folder)[0], dtype, trust_remote_code, ConfigError, FOR_TRAINING)
    if (folder / ADAPTER_FOLDER).is_dir():
        model = load_adapters(model, folder / ADAPTER_FOLDER).merge_and_unload()
    return model


def weights_of(folder: Path) -> tuple[str, Base | None]:
    """Return where the weights of a folder lie: there, or where its base is.

    Raises:
        CheckpointError: the base is not there any more.
    """
    if not (folder / BASE_FILE).is_file():
        return str(folder), None
    base = Base.read(folder)
    return base.folder(), base


def goes_along(source: str) -> bool:
    """Whether checkpoints under LoRA hold the weights of a folder, not its name.

    Nobody else has those of `tiny`, and those of a run's checkpoint may go with the run.
    """
    return source == str(TINY_FOLDER) or (Path(source) / READOUT_FILE).is_file()


def initial_readout(model: Any, folder: Path) -> Tensor:
    """(3, D) float32: a checkpoint's own, or random ones as large as the token embeddings."""
    if (folder / READOUT_FILE).is_file():
        return read_readout(folder, model)
    table = model.get_input_embeddings().weight.detach().float()
    return torch.randn(NUM_READOUTS, table.shape[1]) * table.std()


def read_readout(folder: Path, model: Any) -> Tensor:
    """(3, D) float32, of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, or is of another trunk.
    """
    path = folder / READOUT_FILE
    with one_line_errors(str(path), CheckpointError, FOR_CHECKPOINT):
        readout = load_file(path)["readout"]
    expected = (NUM_READOUTS, model.config.get_text_config().hidden_size)
    if readout.shape != expected:
        raise CheckpointError(
            f"{path} holds readouts of shape {tuple(readout.shape)}, the trunk beside it takes "
            f"{expected}: they are of two checkpoints. Use another one."
        )
    return readout
