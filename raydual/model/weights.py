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
from raydual.model.eyes import has_pyramid
from raydual.model.marks import NUM_VECTORS
from raydual.model.pretrained import load_backbone
from raydual.model.prompt import NUM_READOUTS
from raydual.model.source import OWN, PHOTO_FOLDER, TINY_FOLDER, one_line_errors, quiet_transformers

READOUT_FILE = "readout.safetensors"
READOUT, MARK = "readout", "mark"
"""What is in it: vectors (3, D) of the readout tokens; (2, D) of marks, where they are embedded."""

FOR_TRAINING = "Give `tiny`, `photo`, the id of a model that can be reached, or a whole folder."
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


def initial_model(source: str, dtype: torch.dtype, trust_remote_code: bool, cell: int) -> Any:
    """Return the model that a training starts from.

    `tiny` is random, and so is `photo` but for its pretrained backbone. Adapters of a checkpoint
    of this project are merged into its weights.

    cell: side in pixels of the cells of `photo`; others have their own.

    Raises:
        ConfigError: it cannot be read.
        CheckpointError: it is a damaged checkpoint of this project.
    """
    if source == str(TINY_FOLDER):
        return AutoModel.from_config(AutoConfig.from_pretrained(source), dtype=dtype)
    if source == str(PHOTO_FOLDER):
        config = AutoConfig.from_pretrained(source)
        config.vision_config.cell = cell
        model = AutoModel.from_config(config, dtype=dtype)
        load_backbone(model.vision_tower.backbone)
        return model
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

    Nobody else has those of `tiny` and `photo`, and those of a run's checkpoint may go with the
    run.
    """
    own = {str(folder) for folder in OWN.values()}
    return source in own or (Path(source) / READOUT_FILE).is_file()


def initial_vectors(model: Any, folder: Path, marks: bool) -> dict[str, Tensor]:
    """Return what a trunk learns beside its model: a checkpoint's own, or random ones.

    `readout` (3, D) float32, as large as the token embeddings; and `mark` (2, D) where marks are
    embedded: as large as those, or half as large as the cells of a pyramid, which are normalised.
    """
    known = read_vectors(folder, model) if (folder / READOUT_FILE).is_file() else {}
    table = model.get_input_embeddings().weight.detach().float()
    size = table.shape[1]
    if READOUT not in known:
        known[READOUT] = torch.randn(NUM_READOUTS, size) * table.std()
    if marks and MARK not in known:
        spread = 0.5 if has_pyramid(model) else table.std()
        known[MARK] = torch.randn(NUM_VECTORS, size) * spread
    return known if marks else {READOUT: known[READOUT]}


def read_vectors(folder: Path, model: Any) -> dict[str, Tensor]:
    """Return what `initial_vectors` does, of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, or is of another trunk.
    """
    path = folder / READOUT_FILE
    with one_line_errors(str(path), CheckpointError, FOR_CHECKPOINT):
        saved = load_file(path)
        vectors = {name: saved[name] for name in (READOUT, *({MARK} & saved.keys()))}
    size = model.config.get_text_config().hidden_size
    for name, number in ((READOUT, NUM_READOUTS), (MARK, NUM_VECTORS)):
        if name in vectors and vectors[name].shape != (number, size):
            raise CheckpointError(
                f"{path} holds a {name} of shape {tuple(vectors[name].shape)}, the trunk beside it "
                f"takes {(number, size)}: they are of two checkpoints. Use another one."
            )
    return vectors
