"""The vision towers of the Qwen-VL families, made to take a batch of images at once.

In transformers they attend image by image in a Python loop, and embed patches by a
three-dimensional convolution that has one position. With many small images either takes longer
than its arithmetic. What is here gives the same numbers up to rounding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    lengths = cu_seq_lens_q.diff().tolist()
    tensors = (query, key, value)
    if len(set(lengths)) == 1:
        shape = (len(lengths), lengths[0])
        q, k, v = (tensor[0].unflatten(1, shape).transpose(0, 1) for tensor in tensors)
        attended = functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        return attended.transpose(1, 2).flatten(0, 1)[None], None
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in tensors), strict=True)
    each = [functional.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts]
    return torch.cat(each, dim=2).transpose(1, 2), None
