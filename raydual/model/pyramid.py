"""The vision tower of the trunk `photo`: a pretrained network, a feature pyramid, and its cells.

The backbone is a chain of inverted residual blocks (MobileNetV2, Sandler et al. 2018;
EfficientNet-Lite, which is EfficientNet, Tan and Le 2019, without squeeze and excitation). Its maps
at strides 4, 8, 16 and 32 are added up from the coarsest to the finest, as a feature pyramid
(Lin et al. 2017) does; the sum is one map of cells, `width` channels each. Blocks of a depthwise
and two pointwise convolutions (ConvNeXt, Liu et al. 2022) let neighbouring cells and the marks on
them know of each other, most of them on a map of half the resolution, which costs a quarter and
reaches twice as far. The language model is shown the means over 32 x 32 pixels.

Normalisation is folded into the backbone's convolutions: statistics of the images that it was
trained on stay as they are, and an image never depends on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

STRIDES = (4, 8, 16, 32)
"""In pixels, of the maps that are kept of the backbone; the last is an image token's side."""

KEPT = torch.float16
"""Type of the maps of a frozen backbone, both in files and computed anew."""


class PyramidConfig(PreTrainedConfig):
    """Sizes of the tower.

    stem: channels of the first convolution, which halves the image. stages: (kernel, stride,
    expansion, channels, blocks) each. pad_before: pixels of padding above and left of a 3 x 3
    convolution of stride 2, 0 as TensorFlow pads, 1 as PyTorch does. width: channels of a cell.
    cell: its side in pixels, 4 or 8. blocks: how many let cells know of each other at half the
    resolution; one more does at the full one. dropout: share of the channels of the backbone's
    maps, and of the values inside blocks, that are left out in training.
    """

    model_type = "raydual_pyramid"

    stem: int = 32
    stages: list[list[int]] | None = None
    pad_before: int = 0
    width: int = 64
    cell: int = 4
    blocks: int = 2
    hidden_size: int = 64
    dropout: float = 0.2


class PyramidModel(PreTrainedModel):
    """Pixels to cells, in three steps that can be called apart: `look`, `cells`, `mix`."""

    config_class = PyramidConfig
    main_input_name = "pixel_values"
    base_model_prefix = "pyramid"
    input_modalities = ("image",)

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config)
        self.neck = Neck(self.backbone.channels, config)
        self.mixer = Mixer(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the weights that torch gave."""

    def look(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> the backbone's maps (B, channels, S / stride, S / stride), `KEPT`."""
        return [level.to(KEPT) for level in self.backbone(pixels)]

    def cells(self, levels: Sequence[Tensor]) -> Tensor:
        """Add the maps up: (B, width, S / cell, S / cell)."""
        combined: Tensor = self.neck(levels)
        return combined

    def mix(self, cells: Tensor) -> Tensor:
        """Let cells, with the marks on them, know of their neighbours; same shape."""
        mixed: Tensor = self.mixer(cells)
        return mixed

    def tokens(self, cells: Tensor) -> Tensor:
        """Return what the language model is shown: (B, width, S / 32, S / 32)."""
        return functional.avg_pool2d(cells, STRIDES[-1] // self.config.cell)

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """Return the image tokens of images without marks, (B, width, S / 32, S / 32)."""
        cells = self.mix(self.cells(self.look(pixel_values)))
        return BaseModelOutput(last_hidden_state=self.tokens(cells))


class Backbone(nn.Module):
    """Inverted residual blocks; returns the last map at each of `STRIDES`."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.stem = Convolution(3, config.stem, 3, 2, config.pad_before)
        blocks: list[InvertedResidual] = []
        self.channels: list[int] = []
        self._ends: list[int] = []
        inputs, stride = config.stem, 2
        for kernel, step, expansion, outputs, repeats in config.stages or ():
            if step == 2 and stride in STRIDES:
                self._end(len(blocks), inputs)
            stride *= step
            for number in range(repeats):
                first = step if number == 0 else 1
                blocks.append(
                    InvertedResidual(inputs, outputs, kernel, first, expansion, config.pad_before)
                )
                inputs = outputs
        self._end(len(blocks), inputs)
        self.blocks = nn.ModuleList(blocks)

    def _end(self, blocks: int, channels: int) -> None:
        self._ends.append(blocks)
        self.channels.append(channels)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> four maps (B, channels, S / stride, S / stride)."""
        seen = functional.relu6(self.stem(pixels))
        levels = []
        for number, block in enumerate(self.blocks, start=1):
            seen = block(seen)
            if number in self._ends:
                levels.append(seen)
        return levels


class Convolution(nn.Conv2d):
    """A convolution with a bias; of stride 2 it pads as its weights were trained."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, before: int, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        if stride == 1:
            self._pad = (kernel // 2,) * 4
        else:
            start = kernel // 2 - 1 + before
            self._pad = (start, kernel - 2 - start, start, kernel - 2 - start)

    def forward(self, seen: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        if len(set(self._pad)) == 1:
            pad = self._pad[0]
            return functional.conv2d(
                seen, self.weight, self.bias, self.stride, pad, groups=self.groups
            )
        return super().forward(functional.pad(seen, self._pad))


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project; added to its input where it can be."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, before: int
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = Convolution(inputs, inner, 1, 1, before) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, before, groups=inner)
        self.project = Convolution(inner, outputs, 1, 1, before)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, seen: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        inner = seen if self.expand is None else functional.relu6(self.expand(seen))
        projected: Tensor = self.project(functional.relu6(self.depthwise(inner)))
        return seen + projected if self._residual else projected


class Neck(nn.Module):
    """A feature pyramid read at one stride; the finer map, if any, is taken in by a convolution."""

    def __init__(self, channels: Sequence[int], config: PyramidConfig) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, config.width, 1) for c in channels)
        self.down = nn.Conv2d(config.width, config.width, 3, 2, 1) if config.cell == 8 else None
        self.norm = nn.GroupNorm(8, config.width)
        self.dropout = nn.Dropout2d(config.dropout)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Maps of `Backbone` -> (B, width, S / cell, S / cell)."""
        dtype = self.norm.weight.dtype
        # colours together in memory: convolutions of few channels are several times as fast
        fine, *others = (
            lateral(self.dropout(level.to(dtype, memory_format=torch.channels_last)))
            for lateral, level in zip(self.lateral, levels, strict=True)
        )
        seen = others.pop()
        while others:
            seen = others.pop() + functional.interpolate(seen, scale_factor=2)
        if self.down is not None:
            return self.norm(seen + self.down(functional.gelu(fine)))
        return self.norm(fine + functional.interpolate(seen, scale_factor=2))


class Mixer(nn.Module):
    """Blocks at half the resolution, then one at the full one."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.coarse = nn.Sequential(*(MixingBlock(width, 5, dropout) for _ in range(config.blocks)))
        self.fine = MixingBlock(width, 3, dropout)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, width, rows, columns) -> the same shape."""
        coarse = self.coarse(functional.avg_pool2d(cells, 2))
        mixed: Tensor = self.fine(cells + functional.interpolate(coarse, scale_factor=2))
        return mixed


class MixingBlock(nn.Module):
    """A depthwise convolution and two pointwise ones, added to what they take."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.GroupNorm(8, width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(2 * width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, width, rows, columns) -> the same shape."""
        inner = functional.gelu(self.expand(self.norm(self.depthwise(cells))))
        mixed: Tensor = cells + self.project(self.dropout(inner))
        return mixed


AutoConfig.register(PyramidConfig.model_type, PyramidConfig, exist_ok=True)
AutoModel.register(PyramidConfig, PyramidModel, exist_ok=True)
