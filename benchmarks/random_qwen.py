"""Write Qwen2-VL-2B with random weights: enough to measure speed and memory on.

python benchmarks/random_qwen.py FOLDER    # 4.4 GB
raydual bench --preset qwen2-vl-2b --device cuda model.trunk=FOLDER

Shapes, positions and the image processor are the published ones; the tokenizer is that of the tiny
trunk, whose prompts are some tokens longer.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from memory import TEXT, VISION
from transformers import AutoModel, AutoTokenizer, Qwen2VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from raydual.model.source import TINY_FOLDER, quiet_transformers

TOKENS = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write(folder: str, text: dict[str, Any], vision: dict[str, Any]) -> None:
    """Write a Qwen2-VL of these shapes.

    text, vision: what its config says of the language model and of the tower.
    """
    tokenizer = AutoTokenizer.from_pretrained(TINY_FOLDER)
    tokenizer.add_special_tokens({"additional_special_tokens": TOKENS})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    config = Qwen2VLConfig(
        text_config=text | {"rope_parameters": rope(text), "pad_token_id": tokenizer.pad_token_id},
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        tie_word_embeddings=True,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModel.from_config(config, dtype=torch.bfloat16)
    with quiet_transformers():
        model.save_pretrained(folder)


def rope(text: dict[str, Any]) -> dict[str, Any]:
    """Return positions in time, height and width as Qwen2-VL splits a head's: 1, 1.5 and 1.5."""
    eighth = text["hidden_size"] // text["num_attention_heads"] // 16
    parts = [2 * eighth, 3 * eighth, 3 * eighth]
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": parts}


if __name__ == "__main__":
    write(sys.argv[1], TEXT, VISION)
