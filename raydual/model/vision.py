"""Vision towers: those of the Qwen-VL families made to take a batch of images at once, and
features that are computed once and used in several passes.

In transformers the Qwen-VL towers attend image by image in a Python loop, and embed patches by a
three-dimensional convolution that has one position. With many small images either takes longer
than its arithmetic. What is here gives the same numbers up to rounding.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.modeling_outputs import BaseModelOutputWithPooling

from raydual.model.image_tokens import ImageTokens

PIXELS = ("pixel_values", "image_grid_thw")
_LENGTHS = WeakTensorKeyDictionary()

# Only to an attention with `flash` in its name does a tower hand over all images together.
_PACKED = "raydual_flash_packed"


def take_batches(tower: Any) -> None:
    """Change a tower in place; its weights, their names and its saved config stay as they are."""
    from transformers import AttentionInterface

    AttentionInterface.register(_PACKED, _attend)
    for module in tower.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _PatchEmbedding
    if tower.config._attn_implementation == "sdpa":
        tower.config._attn_implementation = _PACKED


class _PatchEmbedding(nn.Conv3d):
    """A convolution whose input is exactly one kernel: a matrix product."""

    def forward(self, patches: Tensor) -> Tensor:
        """(N, channels, frames, patch, patch) -> (N, D, 1, 1, 1)."""
        embedded = functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
        return embedded[:, :, None, None, None]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each part of packed sequences: an image, or a window of one.

    query, key, value: (1, heads, N, d), the parts one after the other. cu_seq_lens_q: (parts + 1,)
    where each starts, and N. Returns (1, N, heads, d).
    """
    lengths = _lengths(cu_seq_lens_q)
    tensors = (query, key, value)
    if len(set(lengths)) == 1:
        shape = (len(lengths), lengths[0])
        q, k, v = (tensor[0].unflatten(1, shape).transpose(0, 1) for tensor in tensors)
        attended = functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        return attended.transpose(1, 2).flatten(0, 1)[None], None
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in tensors), strict=True)
    each = [functional.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts]
    return torch.cat(each, dim=2).transpose(1, 2), None


def _lengths(starts: Tensor) -> list[int]:
    """Return how long the parts are; the host waits for the device once, not at every layer."""
    if starts not in _LENGTHS:
        _LENGTHS[starts] = starts.diff().tolist()
    lengths: list[int] = _LENGTHS[starts]
    return lengths


def features(
    model: Any,
    pixels: Mapping[str, Tensor],
    images: int,
    tower: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Run a model's tower, or one in its place, over images in the family's layout.

    Returns (images, levels, cells, D): what the last layer gives, and what the family shows its
    language model of the layers before it.
    """
    if tower is not None:
        return tower(pixels["pixel_values"]).unflatten(0, (images, -1))[:, None]
    output = model.get_image_features(**pixels, return_dict=True)
    levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    return torch.stack([torch.stack(tuple(level)) for level in levels], dim=1)


def as_returned(seen: Tensor, layout: ImageTokens) -> Any:
    """Turn features (B, levels, cells, D) into what the family's `get_image_features` returns."""
    last, *others = seen.unbind(dim=1)
    if not others:
        return BaseModelOutputWithPooling(
            pooler_output=last if layout.layout == "plain" else last.unbind()
        )
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    return modeling_qwen3_vl.BaseModelOutputWithDeepstackFeatures(
        pooler_output=last.unbind(), deepstack_features=[level.unbind() for level in others]
    )
