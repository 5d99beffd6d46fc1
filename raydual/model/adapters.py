"""Low-rank adapters (LoRA) on the language model of a trunk, by peft.

peft and the parts of transformers that it loads take two seconds; without LoRA they are not needed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from raydual.config_tree import LoraSection
from raydual.errors import CheckpointError
from raydual.model.source import one_line_errors, quiet_transformers

if TYPE_CHECKING:
    import peft

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FIRST_ADAPTER = "default"
WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FOLDER = "adapter"
"""Where a checkpoint has its adapters."""


def add_adapters(model: Any, lora: LoraSection) -> peft.PeftModel:
    """Freeze the model and put new float32 adapters on the projections of its decoder."""
    import peft

    decoder = model.get_decoder()
    name = next(name for name, module in model.named_modules() if module is decoder)
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf"{re.escape(name)}\..*\.({'|'.join(PROJECTIONS)})",
    )
    with quiet_transformers():
        return peft.get_peft_model(model, config)


def load_adapters(model: Any, folder: Path) -> peft.PeftModel:
    """Put the adapters saved in `folder` on their model, to be trained on.

    Raises:
        CheckpointError: a file is missing, truncated or of another model.
    """
    import peft

    with _checked(folder):
        return peft.PeftModel.from_pretrained(model, folder, is_trainable=True)


def add_saved_adapters(model: peft.PeftModel, folder: Path) -> str:
    """Put the adapters saved in `folder` beside those that a model has; returns their name.

    Raises:
        CheckpointError: as `load_adapters`.
    """
    name = f"adapter{len(model.peft_config)}"
    with _checked(folder):
        model.load_adapter(str(folder), name)
    return name


def leave_types_to_autocast(model: peft.PeftModel) -> None:
    """Have adapters take what they are given as it is; outside autocast they then need float32.

    peft makes float32 of it first, which autocast undoes again: two copies at every projection.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False


@contextlib.contextmanager
def _checked(folder: Path) -> Iterator[None]:
    advice = "The checkpoint is incomplete or damaged; use another one."
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"{folder / WEIGHTS_FILE} is missing. {advice}")
    with one_line_errors(str(folder), CheckpointError, advice), quiet_transformers():
        yield


def save_adapters(
    model: peft.PeftModel, state: dict[str, Tensor], folder: Path, adapter: str
) -> None:
    """Write the files of peft's own `save_pretrained`, without its model card and any path.

    Args:
        model: whose adapters they are.
        state: all weights of `model`, whole.
        folder: made if it is not there.
        adapter: which of the model's adapters.
    """
    import peft

    folder.mkdir(exist_ok=True)
    weights = peft.get_peft_model_state_dict(
        model, state_dict=state, adapter_name=adapter, save_embedding_layers=False
    )
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()},
        folder / WEIGHTS_FILE,
    )
    config = model.peft_config[adapter]
    config.base_model_name_or_path = None
    config.save_pretrained(str(folder))


def without_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the base model, under its own names."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): value
        for name, value in state.items()
        if ".lora_" not in name
    }
