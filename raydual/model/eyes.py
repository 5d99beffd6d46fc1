"""From pixels to image tokens and back to cells: how a family sees, with marks or without.

What a frozen tower computes of an image, its kept features, is the same for every task, every mark
and every epoch. Marks are added to it afterwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling

from raydual.model.image_tokens import ImageTokens
from raydual.model.pyramid import KEPT, STRIDES, PyramidModel
from raydual.model.vision import as_returned, features

_TOWER_PARTS = ("vision_tower", "multi_modal_projector", "visual", "vision_model", "connector")
"""What `get_image_features` runs, by the names that the families have for it."""


class Seen(NamedTuple):
    """An image as the language model is shown it.

    outputs: what the family's `get_image_features` returns. cells: (B, cells, D) with their marks,
    where cells are finer than image tokens; None where they are the same.
    """

    outputs: Any
    cells: Tensor | None


class TokenEyes:
    """Families whose image tokens are the cells."""

    def __init__(self, layout: ImageTokens, image_size: int) -> None:
        self._layout, self._image_size = layout, image_size

    def tower(self, model: Any) -> list[nn.Module]:
        """Return what computes features, and is not trained where the tower is frozen."""
        return [getattr(model, name) for name in _TOWER_PARTS if hasattr(model, name)]

    def feature_bytes(self, model: Any) -> int:
        """Return how many bytes the features of an image take, in the type of the weights."""
        levels = 1 + len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))
        embeddings = model.get_input_embeddings().weight
        rows, columns = self._layout.cells(self._image_size)
        return levels * rows * columns * int(embeddings.shape[1]) * embeddings.element_size()

    def look(self, model: Any, pixels: dict[str, Tensor], images: int, tower: Any) -> Tensor:
        """Pixels of images in the family's layout -> features (images, levels, cells, D).

        tower: runs in the place of the model's own, where it is given.
        """
        return features(model, pixels, images, tower)

    def show(self, model: Any, kept: Tensor, marks: Tensor | None) -> Seen:
        """Add marks (B, cells, D) to features."""
        if marks is not None:
            first = kept[:, :1] + marks[:, None].to(kept.dtype)
            kept = torch.cat([first, kept[:, 1:]], dim=1)
        return Seen(as_returned(kept, self._layout), None)

    def cells(self, hidden: Tensor, seen: Seen) -> Tensor:
        """Hidden states of the image tokens (B, tokens, D) -> of the cells (B, cells, D)."""
        return hidden


class PyramidEyes:
    """A feature pyramid, whose cells are finer than the image tokens."""

    def __init__(self, image_size: int) -> None:
        self._sides = [image_size // stride for stride in STRIDES]

    def tower(self, model: Any) -> list[nn.Module]:
        """Return what computes features, and is not trained where the tower is frozen."""
        return [model.vision_tower.backbone]

    def feature_bytes(self, model: Any) -> int:
        """Return how many bytes the features of an image take."""
        sizes = zip(model.vision_tower.backbone.channels, self._sides, strict=True)
        return KEPT.itemsize * sum(channels * side * side for channels, side in sizes)

    def look(self, model: Any, pixels: dict[str, Tensor], images: int, tower: Any) -> Tensor:
        """(B, 3, S, S) -> the backbone's maps, the values of an image in a row, (B, values).

        `KEPT` where the backbone is frozen, so that features in files are those computed anew.
        """
        backbone = model.vision_tower.backbone
        trained = any(p.requires_grad for p in backbone.parameters())
        levels = [level.flatten(1) for level in backbone(pixels["pixel_values"])]
        seen = torch.cat(levels, dim=1)
        return seen if trained else seen.to(KEPT)

    def show(self, model: Any, kept: Tensor, marks: Tensor | None) -> Seen:
        """Combine the maps, add marks (B, cells, D), and let cells know of each other."""
        tower: PyramidModel = model.vision_tower
        sizes = zip(tower.backbone.channels, self._sides, strict=True)
        shapes = [(channels, side, side) for channels, side in sizes]
        parts = kept.split([c * h * w for c, h, w in shapes], dim=1)
        levels = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
        cells = tower.cells(levels)
        if marks is not None:
            cells = cells + marks.transpose(1, 2).unflatten(2, cells.shape[2:])
        cells = tower.mix(cells)
        tokens = tower.tokens(cells).flatten(2).transpose(1, 2)
        outputs = BaseModelOutputWithPooling(pooler_output=model.multi_modal_projector(tokens))
        return Seen(outputs, cells.flatten(2).transpose(1, 2))

    def cells(self, hidden: Tensor, seen: Seen) -> Tensor:
        """Add to each cell the hidden state of the image token that it lies in."""
        assert seen.cells is not None
        tokens = self._sides[-1]
        coarse = hidden.transpose(1, 2).unflatten(2, (tokens, tokens))
        finer = round((seen.cells.shape[1]) ** 0.5) // tokens
        fine = functional.interpolate(coarse, scale_factor=finer)
        return seen.cells.float() + fine.flatten(2).transpose(1, 2)


Eyes = TokenEyes | PyramidEyes


def eyes_for(model: Any, layout: ImageTokens, image_size: int) -> Eyes:
    """Return how a model sees."""
    return PyramidEyes(image_size) if has_pyramid(model) else TokenEyes(layout, image_size)


def has_pyramid(model: Any) -> bool:
    """Whether a model's tower is a pretrained network under a feature pyramid."""
    return isinstance(getattr(model, "vision_tower", None), PyramidModel)
