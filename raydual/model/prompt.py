"""Images, categories and counts in; everything that a trunk takes out.

Tokenizer, chat template and the settings of the image processor are put together here: the
processors of transformers need torchvision, some for videos alone, and take ten times as long.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, ImageProcessingMixin
from transformers.image_transforms import normalize, rescale

from raydual.errors import ConfigError
from raydual.model.image_tokens import ImageTokens
from raydual.model.source import one_line_errors, quiet_transformers, resolve

PROMPT = "Count the {category}: {num_marked} marked."
NUM_READOUTS = 3
IMAGE_PROCESSOR_FILE = "preprocessor_config.json"
MAX_CATEGORY_CHARACTERS = 200
MAX_CATEGORY_TOKENS = 32

_ADVICE = "Give model.trunk a folder or an id with config, tokenizer and image processor."


class Prompter:
    """Turns (image, category, number already marked) into a trunk's inputs.

    A prompt is the chat template around the text, then the image (so that the causal image
    tokens know what is counted), then the turn of the assistant, which starts with the three
    readout tokens `<x> <y> <done>`. Their ids are harmless: the trunk puts its own embeddings
    at the last three positions.

    Attributes:
        grid: rows and columns of image tokens.
        image_size: side in pixels of the square images taken.
        layout: how its family lays out image tokens.
        image_settings: of its image processor, as saved.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_settings: dict[str, Any],
        layout: ImageTokens,
        image_size: int,
    ) -> None:
        self.image_size = image_size
        self.grid = layout.grid(image_size)
        self._tokenizer = tokenizer
        self.image_settings = image_settings
        self.layout = layout
        self._normalised = _normalised_values(image_settings)
        self._readout_id = _first_known(tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self._reserved = frozenset(tokenizer.added_tokens_decoder)
        self._head, self._tail = self._template()
        self._category_ids = lru_cache(maxsize=4096)(self._tokenise_category)
        self._count_ids = lru_cache(maxsize=4096)(self._tokenise_count)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, image_size: int, trust_remote_code: bool = False
    ) -> "Prompter":
        """Load tokenizer, chat template and image processor of `tiny`, a folder or a hub id.

        Raises:
            ConfigError: a file is missing or unreadable, the family is unknown, or `image_size`
                is none that its vision tower takes.
        """
        source = resolve(name_or_path)
        options = {"trust_remote_code": trust_remote_code}
        with (
            one_line_errors(f"model.trunk {name_or_path!r}", ConfigError, _ADVICE),
            quiet_transformers(),
        ):
            layout = ImageTokens.from_config(AutoConfig.from_pretrained(source, **options))
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            image_settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
            tokenizer.chat_template = _chat_template(source, tokenizer)
            return cls(tokenizer, image_settings, layout, image_size)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer, chat template and image processor in Hugging Face's layout."""
        self._tokenizer.save_pretrained(directory)
        settings = json.dumps(self.image_settings, indent=2)
        (Path(directory) / IMAGE_PROCESSOR_FILE).write_text(settings + "\n")

    def encode(
        self, images: np.ndarray, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Prompts and images of a batch, left padded: the readout tokens come last.

        Args:
            images: (B, S, S, 3) uint8, S the `image_size`.
            categories: B names of what is counted, in any script. Runs of white space become one
                space; special tokens written in them are ordinary text; what exceeds
                `MAX_CATEGORY_CHARACTERS` or `MAX_CATEGORY_TOKENS` is cut; an empty one reads
                "objects".
            num_marked: B numbers of objects already marked, 0 or more.

        Returns:
            `input_ids` and `attention_mask`, (B, L) int64; `category_mask` (B, L) bool, the tokens
            of the category; `images` as given, a quarter of what they are normalised; the
            `normalised` (3, 256) float32 of each pixel value; and for the Qwen-VL families
            `position_ids` (3, B, L).

        Raises:
            ValueError: images of another shape or type, or a number below 0.
        """
        expected = (len(categories), self.image_size, self.image_size, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(
                f"images are {images.shape} {images.dtype}, expected {expected} uint8."
            )
        if min(num_marked, default=0) < 0:
            raise ValueError(f"num_marked is {min(num_marked)}, expected 0 or more.")
        inputs = self.text_inputs(categories, num_marked)
        return inputs | {"images": torch.from_numpy(images), "normalised": self._normalised}

    def text_inputs(
        self, categories: Sequence[str], num_marked: Sequence[int]
    ) -> dict[str, Tensor]:
        """Return what `encode` does, without the images."""
        named = [self._category_ids(category) for category in categories]
        counts = [self._count_ids(int(number)) for number in num_marked]
        starts = [self._head + n + c for n, c in zip(named, counts, strict=True)]
        longest = max(map(len, starts))
        ids = np.full((len(starts), longest + len(self._tail)), self._readout_id, dtype=np.int64)
        mask = np.ones_like(ids)
        category_mask = np.zeros(ids.shape, dtype=bool)
        ids[:, longest:] = self._tail
        for row, start in enumerate(starts):
            padding = longest - len(start)
            ids[row, padding:longest] = start
            mask[row, :padding] = 0
            end = longest - len(counts[row])
            category_mask[row, end - len(named[row]) : end] = True
        inputs = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "category_mask": torch.from_numpy(category_mask),
        }
        if self.layout.layout == "packed":
            first = longest + int((self._tail == self.layout.token_id).argmax())
            positions = self._positions(mask, first)
            inputs["position_ids"] = torch.from_numpy(positions)
        return inputs

    def _positions(self, mask: np.ndarray, first: int) -> np.ndarray:
        """Time, height and width of each token, (3, B, L), as the Qwen-VL families count.

        Text moves on in all three; image tokens, from `first` on, share their time, and the text
        after them goes on behind the longer side of the grid. mask: (B, L), 0 for padding.
        """
        length = mask.shape[1]
        rows, columns = self.grid
        positions = np.tile(np.arange(length), (3, 1))
        cells = slice(first, first + rows * columns)
        y, x = np.divmod(np.arange(rows * columns), columns)
        positions[:, cells] = first + np.stack([np.zeros_like(y), y, x])
        after = length - cells.stop
        positions[:, cells.stop :] = first + max(rows, columns) + np.arange(after)
        return (positions[:, None] - (mask == 0).sum(axis=1, keepdims=True)).clip(min=0)

    def _template(self) -> tuple[list[int], np.ndarray]:
        """Token ids before the category, and after the number: image, end of turn, readouts."""
        rendered = _render(self._tokenizer, self.layout.token_id)
        head, _, rest = rendered.partition(" {category}")
        _, _, tail = rest.partition("{num_marked}")
        placeholder = self._tokenizer.convert_ids_to_tokens(self.layout.token_id)
        image = placeholder * (self.grid[0] * self.grid[1])
        if self.layout.layout == "tiled":
            image = f"<fake_token_around_image><global-img>{image}<fake_token_around_image>"
        tail_ids = self._ids(tail.replace(placeholder, image))
        if tail_ids.count(self.layout.token_id) != self.grid[0] * self.grid[1]:
            raise ConfigError(
                f"model.trunk: the tokenizer does not know {placeholder!r} as one token, the "
                f"image token of {self.layout.family}; give the tokenizer of the same model."
            )
        return self._ids(head), np.array(tail_ids + [self._readout_id] * NUM_READOUTS)

    def _tokenise_category(self, category: str) -> list[int]:
        text = " ".join(category[:MAX_CATEGORY_CHARACTERS].split()) or "objects"
        ids = self._tokenizer.encode(
            f" {text}", add_special_tokens=False, split_special_tokens=True
        )
        return [i for i in ids if i not in self._reserved][:MAX_CATEGORY_TOKENS]

    def _tokenise_count(self, num_marked: int) -> list[int]:
        return self._ids(f": {num_marked}")

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def _render(tokenizer: Any, image_token_id: int) -> str:
    """The chat template around `PROMPT` and one image, its fields left as they are."""
    placeholder = tokenizer.convert_ids_to_tokens(image_token_id)
    if tokenizer.chat_template:
        content = [{"type": "text", "text": PROMPT}, {"type": "image"}]
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        if PROMPT in rendered and rendered.count(placeholder) == 1:
            return str(rendered)
    return f"{PROMPT}{placeholder}\n"


def _chat_template(source: str, tokenizer: Any) -> str | None:
    """The tokenizer's own template, or the one that older checkpoints keep for the processor."""
    if tokenizer.chat_template:
        return str(tokenizer.chat_template)
    path = Path(source) / "chat_template.json"
    return json.loads(path.read_text())["chat_template"] if path.is_file() else None


def _normalised_values(settings: dict[str, Any]) -> Tensor:
    """(3, 256) float32: what each pixel value becomes, by the arithmetic of transformers."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
    scaled = rescale(ramp, settings["rescale_factor"], input_data_format="channels_first")
    mean, std = settings["image_mean"], settings["image_std"]
    values = normalize(scaled, mean, std, input_data_format="channels_first")
    return torch.from_numpy(np.ascontiguousarray(values[:, 0], dtype=np.float32))


def _first_known(*ids: int | None) -> int:
    return next(i for i in ids if i is not None)
