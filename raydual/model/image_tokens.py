"""From pixels to what a vision tower takes, and the grid of image tokens that comes out of it."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModel

from raydual.errors import ConfigError
from raydual.model.pyramid import STRIDES

Layout = Literal["packed", "tiled", "plain"]


@dataclass(frozen=True)
class ImageTokens:
    """How one family of models turns a square image into one grid of tokens.

    Attributes:
        family: the `model_type` of its config.
        patch: side of a patch in pixels.
        merge: patches along a side of an image token; a cell is `patch * merge` pixels wide.
        frames: times that the image is repeated along time in a patch (packed layout only).
        layout: `packed`, all patches of a batch in one list (Qwen-VL); `tiled`, a picture is one
            tile of its image (Idefics3, SmolVLM); `plain`, a picture an image (FastVLM).
        largest: longest side in pixels that has positions of its own; None where any has.
        token_id: id of the placeholder that stands for an image token in the prompt.
        finer: cells that the heads read along a side of an image token.
    """

    family: str
    patch: int
    merge: int
    frames: int
    layout: Layout
    largest: int | None
    token_id: int
    finer: int = 1

    @classmethod
    def from_config(cls, config: Any) -> "ImageTokens":
        """Read the layout from a Hugging Face model config.

        Raises:
            ConfigError: the family lays its image tokens out in another way.
        """
        vision: Any = getattr(config, "vision_config", None)
        family, token_id = config.model_type, getattr(config, "image_token_id", -1)
        if hasattr(vision, "spatial_merge_size"):
            patch, merge = vision.patch_size, vision.spatial_merge_size
            return cls(family, patch, merge, vision.temporal_patch_size, "packed", None, token_id)
        if hasattr(vision, "patch_size") and hasattr(config, "scale_factor"):
            side = vision.image_size
            return cls(family, vision.patch_size, config.scale_factor, 1, "tiled", side, token_id)
        if family == "fast_vlm" and hasattr(vision, "cell"):
            side = STRIDES[-1]
            return cls(family, side, 1, 1, "plain", None, token_id, side // vision.cell)
        if family == "fast_vlm":
            return cls(family, _stride(vision), 1, 1, "plain", None, token_id)
        raise ConfigError(
            f"model.trunk is of the family {family!r}, whose image tokens raydual cannot lay out "
            "as a grid; use one of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, SmolVLM, Idefics3, FastVLM."
        )

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of image tokens for an image of `image_size` x `image_size` pixels.

        Raises:
            ConfigError: the size is no multiple of a cell, or larger than the vision tower knows.
        """
        cell = self.patch * self.merge
        most = self.largest // cell * cell if self.largest else None
        if image_size < cell or image_size % cell or (most and image_size > most):
            below = max(image_size // cell, 1) * cell
            nearest = sorted({min(below, most or below), min(below + cell, most or below + cell)})
            raise ConfigError(
                f"data.image_size is {image_size}, but the {self.family} trunk sees an image in "
                f"cells of {cell} pixels" + (f", {most} pixels at most" if most else "") + "; "
                f"use {' or '.join(map(str, nearest))}."
            )
        return image_size // cell, image_size // cell

    def cells(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of the cells that the heads read; raises what `grid` does."""
        rows, columns = self.grid(image_size)
        return rows * self.finer, columns * self.finer

    def pixel_inputs(self, images: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Normalise and lay out a batch, equal to the bit to the family's own image processor.

        Args:
            images: (B, S, S, 3) uint8.
            values: (3, 256) float32 on the same device: what a pixel of value v becomes in
                channel c.

        Returns:
            `pixel_values`, and `image_grid_thw` (B, 3) in the packed layout: patches in time,
            height and width. `pixel_values` is (B * patches, 3 * frames * patch * patch) packed,
            where the patches of a cell follow each other; (B, 1, 3, S, S) tiled; (B, 3, S, S)
            plain, colours together in memory, as convolutions want them.
        """
        batch, size = images.shape[:2]
        channels = torch.arange(3, device=images.device, dtype=torch.int32) * values.shape[1]
        pictures = values.flatten().index_select(0, (images.int() + channels).flatten())
        pictures = pictures.view(images.shape).permute(0, 3, 1, 2)
        if self.layout != "packed":
            return {"pixel_values": pictures[:, None] if self.layout == "tiled" else pictures}
        rows, patch, merge = size // (self.patch * self.merge), self.patch, self.merge
        cells = pictures.reshape(batch, 3, rows, merge, patch, rows, merge, patch)
        cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7)[..., None, :, :]
        patches = cells.expand(*cells.shape[:6], self.frames, patch, patch)
        side = rows * merge
        grid = torch.ones(batch, 3, dtype=torch.int64, device=images.device)
        grid[:, 1:] = side  # filled there: a copy from the host would wait for the device
        return {"pixel_values": patches.reshape(batch * side * side, -1), "image_grid_thw": grid}


def _stride(vision: Any) -> int:
    """How many pixels of side a position of a convolutional tower's output stands for.

    Found by its shapes alone: on torch's `meta` device nothing is computed or allocated.
    """
    side = 512
    with torch.device("meta"):
        features = AutoModel.from_config(vision)(torch.empty(1, 3, side, side)).last_hidden_state
    return side // int(features.shape[-1])
