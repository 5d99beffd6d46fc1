"""Write Qwen2-VL-2B with random weights: enough to measure speed and memory on.

python benchmarks/random_qwen.py FOLDER    # 4.4 GB
raydual bench --preset qwen2-vl-2b --device cuda model.trunk=FOLDER

Shapes, positions and the image processor are the published ones; the tokenizer is that of the tiny
trunk, whose prompts are some tokens longer.
"""

from __future__ import annotations

import sys

import torch
from memory import TEXT, VISION
from transformers import AutoModel, AutoTokenizer, Qwen2VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from raydual.model.source import TINY_FOLDER

TOKENS = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}


def main(folder: str) -> None:
    """Write the folder."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_FOLDER)
    tokenizer.add_special_tokens({"additional_special_tokens": TOKENS})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    config = Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE, "pad_token_id": tokenizer.pad_token_id},
        vision_config=VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        tie_word_embeddings=True,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModel.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
