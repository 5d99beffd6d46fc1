"""The trunk: any Hugging Face vision-language model, read at its last hidden state.

The tiny trunk is a FastVLM (Vasu et al. 2024) of 0.34 million parameters without weights: a small
BiT (Kolesnikov et al. 2020: a residual network with group normalisation, so that an example never
depends on its batch), whose cells are 8 pixels wide, in front of one layer of Qwen2. Convolutions
learn to see shapes from a few thousand images; a vision transformer of the same cost does not.
`tiny/` holds its config, image processor and tokenizer: byte-level BPE over Qwen's pre-tokenizer,
512 tokens, trained on `PROMPT` with shapes, colours and everyday things as categories, singular and
plural, and numbers up to 99. New weights of its language model have a standard deviation of 0.06,
not 0.02, for it is to be trained from scratch.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from raydual.config_tree import LoraSection
from raydual.errors import CheckpointError, ConfigError
from raydual.model.adapters import (
    ADAPTER_FOLDER,
    FIRST_ADAPTER,
    add_adapters,
    add_saved_adapters,
    leave_types_to_autocast,
    load_adapters,
    save_adapters,
    without_adapters,
)
from raydual.model.base import Base
from raydual.model.eyes import Seen, TokenEyes, eyes_for, has_pyramid
from raydual.model.graphs import DECODERS, TOWERS, GraphedDecoder, GraphedTower
from raydual.model.image_tokens import ImageTokens
from raydual.model.inputs import FEATURES, MARKED, MARKS
from raydual.model.marks import spread
from raydual.model.prompt import NUM_READOUTS
from raydual.model.source import quiet_transformers, resolve
from raydual.model.vision import PIXELS, take_batches
from raydual.model.weights import (
    FOR_CHECKPOINT,
    MARK,
    READOUT,
    READOUT_FILE,
    goes_along,
    initial_model,
    initial_vectors,
    load_model,
    read_vectors,
    weights_of,
)


class Hidden(NamedTuple):
    """What is read of a trunk's last hidden state, float32.

    readouts: (B, 3, D) of `<x>`, `<y>`, `<done>`. cells: (B, rows * columns, D), row by row from
    the top left. category: (B, D), the mean over the tokens that name what is counted.
    """

    readouts: Tensor
    cells: Tensor
    category: Tensor


class Trunk(nn.Module):
    """All shared parameters: a vision-language model without its vocabulary head, and vectors.

    `readout` (3, D) are the input embeddings of `<x>`, `<y>` and `<done>`. They replace whatever
    was embedded at the last three positions, so that they are trained without a larger
    vocabulary, under LoRA as well. `mark` (2, D), where marks are embedded, is added to the image
    where they lie (see `spread`).

    Attributes:
        hidden_size: D.
        grid: rows and columns of the cells that the heads read.
        tower_is_frozen: whether features of an image stay as they are in training.
        adapter: name of its adapters under LoRA, where trunks share a base model; None without.
        base: names the frozen weights under LoRA, where checkpoints need not hold them.
    """

    def __init__(
        self,
        model: Any,
        vectors: Mapping[str, Tensor],
        image_size: int,
        freeze_tower: bool = False,
        adapter: str | None = None,
        base: Callable[[], Base] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.adapter, self.base = adapter, base
        self.readout = nn.Parameter(vectors[READOUT])
        self.mark = nn.Parameter(vectors[MARK]) if MARK in vectors else None
        self._layout = layout = ImageTokens.from_config(model.config)
        self._eyes = eyes_for(self.full_model, layout, image_size)
        self._tokens = layout.grid(image_size)
        self.grid = layout.cells(image_size)
        self.hidden_size: int = model.config.get_text_config().hidden_size
        self._decoder: GraphedDecoder | None = None
        self._tower: GraphedTower | None = None
        self.tower_is_frozen = freeze_tower or adapter is not None
        if freeze_tower:
            for parameter in self.tower_parameters():
                parameter.requires_grad_(False)
        if layout.layout == "packed":
            take_batches(model.visual)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        image_size: int,
        lora: LoraSection | None,
        seed: int,
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
        base_dtype: torch.dtype = torch.float32,
        embed_marks: bool = False,
        freeze_tower: bool = False,
        cell: int = 4,
    ) -> "Trunk":
        """Start a training from `tiny` (random weights), `photo`, a folder or a hub id.

        Of a checkpoint of this project, adapters are merged into the weights and the vectors
        beside the model are taken along.

        Args:
            name_or_path: `tiny`, `photo`, a folder, or a hub id.
            image_size: side of the square images in pixels.
            lora: None or rank 0 trains every weight.
            seed: of every new weight; torch's global generator is left as it was.
            trust_remote_code: run the Python that comes with a checkpoint.
            gradient_checkpointing: recompute layers in the backward pass, to save memory.
            base_dtype: of the frozen weights under LoRA; what is trained is always float32.
            embed_marks: take marks as inputs, not as paint.
            freeze_tower: keep what computes features as it is.
            cell: side in pixels of the cells of `photo`.

        Raises:
            ConfigError: it cannot be found or read, is of no known family, or does not take
                images of this size.
            CheckpointError: it is a damaged checkpoint of this project.
        """
        source = resolve(name_or_path)
        adapted = lora if lora is not None and lora.r > 0 else None
        dtype = base_dtype if adapted else torch.float32
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = initial_model(source, dtype, trust_remote_code, cell)
            vectors = initial_vectors(model, Path(source), embed_marks)
            if adapted:
                if has_pyramid(model):
                    raise ConfigError(
                        f"model.lora.r={adapted.r} would leave the feature pyramid of "
                        f"model.trunk={name_or_path} untrained; set model.lora.r=0"
                    )
                model = add_adapters(model, adapted)
        if not adapted:
            trunk = cls(model, vectors, image_size, freeze_tower)
            return trunk._checkpointing(gradient_checkpointing)
        base = None if goes_along(source) else cache(partial(Base.of, name_or_path, dtype))
        trunk = cls(model, vectors, image_size, freeze_tower, FIRST_ADAPTER, base)
        return trunk._checkpointing(gradient_checkpointing)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        image_size: int,
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
        freeze_tower: bool = False,
        base: "Trunk | None" = None,
    ) -> "Trunk":
        """Restore what `save_pretrained` wrote, equal to the bit; adapters stay apart.

        base: a trunk under LoRA on the same frozen weights, which are then not loaded again. Both
            trunks can be read in turn; only one of them can be trained.

        Raises:
            CheckpointError: a file is missing, truncated or of another model.
        """
        folder = Path(directory)
        missing = [n for n in ("config.json", READOUT_FILE) if not (folder / n).is_file()]
        if missing:
            raise CheckpointError(
                f"{folder} is no checkpoint of a trunk, it lacks {' and '.join(missing)}; "
                "give a folder such as runs/NAME/latest_checkpoint."
            )
        if base is not None:
            vectors = read_vectors(folder, base.model)
            beside = add_saved_adapters(base.model, folder / ADAPTER_FOLDER)
            return cls(base.model, vectors, image_size, freeze_tower, beside, base.base)
        weights, named = weights_of(folder)
        dtype = named.torch_dtype if named else "auto"
        model = load_model(weights, dtype, trust_remote_code, CheckpointError, FOR_CHECKPOINT)
        adapter = None
        if (folder / ADAPTER_FOLDER).is_dir():
            model, adapter = load_adapters(model, folder / ADAPTER_FOLDER), FIRST_ADAPTER
        vectors = read_vectors(folder, model)
        named_base = (lambda: named) if named else None
        trunk = cls(model, vectors, image_size, freeze_tower, adapter, named_base)
        return trunk._checkpointing(gradient_checkpointing)

    def save_pretrained(
        self, directory: str | Path, state_dict: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write the model for `AutoModel`, or under LoRA `adapter/`, and the vectors beside it.

        Under LoRA the base model is named in `base.json`, or written too (see `goes_along`).

        Args:
            directory: made if it is not there.
            state_dict: all of this trunk's weights, whole; to be given where the trunk's own
                are sharded.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = dict(self.state_dict() if state_dict is None else state_dict)
        vectors = {name: state.pop(name) for name in (READOUT, MARK) if name in state}
        vectors = {name: value.detach().cpu().contiguous() for name, value in vectors.items()}
        save_file(vectors, folder / READOUT_FILE)
        state = {name.removeprefix("model."): value for name, value in state.items()}
        model = self.model
        if self.adapter is not None:
            save_adapters(model, state, folder / ADAPTER_FOLDER, self.adapter)
            model, state = self.full_model, without_adapters(state)
        if self.base is not None:
            self.base().write(folder)
            model.config.save_pretrained(folder)
            return
        with quiet_transformers():
            model.save_pretrained(folder, state_dict=state)

    def forward(self, batch: Mapping[str, Tensor]) -> Hidden:
        """Read the last hidden state at the readout, the image and the category's tokens.

        Args:
            batch: what `Prompter.encode` returns, on the trunk's device; or `pixel_values` in the
                family's layout instead of its `images`; or what `look` returns. Where marks are
                embedded, also what `mark_inputs` returns.
        """
        inputs: dict[str, Any] = self._with_pixels(batch)
        marks = self._mark_vectors(inputs)
        seen = self._seen(inputs, marks)
        named, ids = inputs.pop("category_mask"), inputs["input_ids"]
        first = (ids == self._layout.token_id).int().argmax(dim=1)
        tokens = torch.arange(self._tokens[0] * self._tokens[1], device=ids.device)
        tokens = tokens + first[:, None]
        examples = torch.arange(len(ids), device=ids.device)[:, None]
        if self.adapter is not None and self.model.active_adapter != self.adapter:
            self.model.set_adapter(self.adapter)
        embeddings = self.model.get_input_embeddings()
        with embeddings.register_forward_hook(self._put_readouts):
            if self._decoder is not None and self.training and seen is not None:
                shown = torch.stack(tuple(seen.outputs.pooler_output))
                embedded = embeddings(ids).index_put((examples, tokens), shown)
                hidden = self._decoder(embedded, inputs["attention_mask"], inputs["position_ids"])
            else:
                hidden = self._last_hidden(inputs, seen)
        hidden = hidden.float()
        share = named / named.sum(dim=1, keepdim=True).clamp(min=1)
        category = torch.einsum("bl,bld->bd", share, hidden)
        readouts, cells = hidden[:, -NUM_READOUTS:], hidden[examples, tokens]
        if seen is not None:
            cells = self._eyes.cells(cells, seen)
        # copies where they would be views, which FSDP does not want of a module
        return Hidden(readouts.clone(), cells, category.clone())

    def _seen(self, inputs: dict[str, Any], marks: Tensor | None) -> Seen | None:
        """Take features, or what they are made of, out of the inputs; show the marks on them.

        None where the family's own forward pass does as well.
        """
        if FEATURES not in inputs and marks is None and isinstance(self._eyes, TokenEyes):
            return None
        if FEATURES in inputs:
            kept = inputs.pop(FEATURES)
        else:
            pixels = {name: inputs.pop(name) for name in PIXELS if name in inputs}
            kept = self._eyes.look(self.full_model, pixels, len(inputs["input_ids"]), None)
        return self._eyes.show(self.full_model, kept, marks)

    def _mark_vectors(self, inputs: dict[str, Any]) -> Tensor | None:
        """Take the marks out of the inputs: what they add to the cells, (B, cells, D)."""
        places, marked = inputs.pop(MARKS, None), inputs.pop(MARKED, None)
        if self.mark is None:
            return None
        return spread(places, marked, self.grid).to(self.mark.dtype) @ self.mark

    def _last_hidden(self, inputs: dict[str, Any], seen: Seen | None) -> Tensor:
        """(B, L, D): no vocabulary logits, no tuple of all hidden states."""
        if seen is not None:
            inputs["mm_encoder_outputs"] = {"image": seen.outputs}
        output = self.model(**inputs, use_cache=False, return_dict=True)
        hidden: Tensor = output.last_hidden_state
        return hidden

    @torch.no_grad()
    def look(self, batches: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Run the tower once over the images of several batches, without gradients.

        batches: what `forward` takes. Returns them with the features of their images in place of
        these, `FEATURES`; see `Eyes.look`. A batch that has features keeps them.
        """
        prepared = [self._with_pixels(batch) for batch in batches]
        waiting = [batch for batch in prepared if FEATURES not in batch]
        if not waiting:
            return prepared
        parts = [{n: batch.pop(n) for n in PIXELS if n in batch} for batch in waiting]
        together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        images = [len(batch["input_ids"]) for batch in waiting]
        kept = self._eyes.look(self.full_model, together, sum(images), self._tower)
        for batch, features in zip(waiting, kept.split(images), strict=True):
            batch[FEATURES] = features
        return prepared

    @property
    def full_model(self) -> Any:
        """The vision-language model itself, without what holds its adapters."""
        return self.model.get_base_model() if self.adapter is not None else self.model

    def vectors(self) -> dict[str, nn.Parameter]:
        """Return what is learned beside the model, by name."""
        return {READOUT: self.readout} | ({} if self.mark is None else {MARK: self.mark})

    def tower_parameters(self) -> list[nn.Parameter]:
        """Return the weights that compute features of images."""
        return [p for module in self._eyes.tower(self.full_model) for p in module.parameters()]

    @property
    def feature_bytes(self) -> int:
        """How many bytes the features of an image take, where they are kept."""
        return self._eyes.feature_bytes(self.full_model)

    def train(self, mode: bool = True) -> "Trunk":
        """Switch dropout; a frozen tower has none, and no tower's statistics move."""
        super().train(mode)
        for module in self._eyes.tower(self.full_model):
            if self.tower_is_frozen:
                module.eval()
            for part in module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self

    def prepare_for_training(self, autocast: bool, graphs: bool) -> None:
        """Change how passes are computed, not what.

        Args:
            autocast: every pass will be inside `torch.autocast`.
            graphs: under LoRA, compile `look` and the decoder on what it returns, and run them as
                CUDA graphs, where the family's are known to allow it.
        """
        if autocast and self.adapter is not None:
            leave_types_to_autocast(self.model)
        family, model = self._layout.family, self.model
        if graphs and family in DECODERS and not model.get_decoder().has_sliding_layers:
            self._decoder = GraphedDecoder(model.get_decoder())
        if graphs and family in TOWERS:
            tower = self.full_model.visual
            self._tower = GraphedTower(tower, self._tokens[0] * self._layout.merge)

    def _with_pixels(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Normalise and lay out images where the trunk is, in its type."""
        inputs = dict(inputs)
        if "images" in inputs:
            images, normalised = inputs.pop("images"), inputs.pop("normalised")
            inputs |= self._layout.pixel_inputs(images, normalised)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(next(self.model.parameters()).dtype)
        return inputs

    def _put_readouts(self, module: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        readout = self.readout.to(embedded.dtype).expand(len(embedded), -1, -1)
        return torch.cat([embedded[:, :-NUM_READOUTS], readout], dim=1)

    def _checkpointing(self, wanted: bool) -> "Trunk":
        if wanted:
            with quiet_transformers():
                self.model.gradient_checkpointing_enable({"use_reentrant": False})
        return self
