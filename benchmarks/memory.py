"""Memory for weights, gradients and the moments of two AdamWs on Qwen2-VL-2B, by arithmetic.

python benchmarks/memory.py    # seconds; no weights, no GPU

Parameters are those of the model as transformers and peft build it from the published shapes, on
torch's meta device. Activations, and what CUDA and its libraries take, come on top.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, Qwen2VLConfig

from raydual.config_tree import LoraSection
from raydual.model.adapters import add_adapters

TEXT = {
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
VISION = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4}
FLOAT32, BFLOAT16, MOMENTS, MOMENTS_8BIT = 4, 2, 8, 2
"""Bytes a parameter; moments are the two of one AdamW."""

GIB = 2**30


def parameters(lora: LoraSection | None) -> tuple[int, int]:
    """Return how many parameters are trained, and how many are frozen."""
    with torch.device("meta"):
        model: Any = AutoModel.from_config(Qwen2VLConfig(text_config=TEXT, vision_config=VISION))
        if lora is not None:
            model = add_adapters(model, lora)
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    return sizes[True], sizes[False]


def row(name: str, trained: int, frozen: int, moments: int, parts: int = 1) -> str:
    """Return a line of the table: GiB a GPU, for one of `parts` equal ones.

    Gradients are those of one pass, and the copy of one that the sampled cosine takes, which
    `mixed` has no use for.
    """
    weights = (trained * FLOAT32 + frozen * BFLOAT16) / parts / GIB
    gradient = trained * FLOAT32 / parts / GIB
    two = 2 * trained * moments / parts / GIB
    dual, mixed = weights + 2 * gradient + two, weights + gradient + two / 2
    return (
        f"| {name} | {trained / 1e6:,.0f} M | {weights:.1f} | {2 * gradient:.1f} | {two:.1f} "
        f"| {dual:.1f} | {mixed:.1f} | {dual / mixed:.2f} |"
    )


def main() -> None:
    """Print the table."""
    full, adapters = parameters(None), parameters(LoraSection())
    print(
        "| trained | parameters | weights | gradients | moments | dual | mixed | ratio |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    print(row("all, on one GPU", *full, MOMENTS))
    print(row("all, `scale.strategy=fsdp` on 8 GPUs", *full, MOMENTS, parts=8))
    print(row("all, moments in 8 bits (not offered)", *full, MOMENTS_8BIT))
    print(row("LoRA of rank 16 (the preset)", *adapters, MOMENTS))
    print(row("LoRA of rank 16, moments in 8 bits (not offered)", *adapters, MOMENTS_8BIT))


if __name__ == "__main__":
    main()
