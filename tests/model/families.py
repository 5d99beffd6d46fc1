"""Tiny random checkpoints of the proven families, in the layout that the real ones have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from raydual.model.source import TINY_FOLDER, quiet_transformers

QWEN_TOKENS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
SMOL_TOKENS = ("<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<image>")

QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A family in miniature: one image size, and the grid that it gives."""

    name: str
    image_size: int
    grid: tuple[int, int]


FAMILIES = (
    Family("qwen2_vl", 32, (4, 4)),
    Family("qwen2_5_vl", 48, (6, 6)),
    Family("qwen3_vl", 32, (4, 4)),
    Family("fast_vlm", 64, (8, 8)),
    Family("smolvlm", 32, (4, 4)),
)


def write_checkpoint(family: Family, folder: Path) -> Path:
    """Write weights with the language-model head, tokenizer, template and image processor."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_FOLDER)
    is_smol = family.name == "smolvlm"
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(SMOL_TOKENS if is_smol else QWEN_TOKENS)}
    )
    tokenizer.chat_template = SMOL_TEMPLATE if is_smol else QWEN_TEMPLATE
    tokenizer.save_pretrained(folder)
    image_processor(family.name).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(1)
        _model(family.name, tokenizer).save_pretrained(folder)
    return folder


def image_processor(name: str) -> Any:
    """The processor of transformers that a family has, without torchvision."""
    if name == "smolvlm":
        return SmolVLMImageProcessorPil()
    if name == "fast_vlm":
        return CLIPImageProcessorPil(do_center_crop=False)
    return Qwen2VLImageProcessorPil(patch_size=4)


def _model(name: str, tokenizer: Any) -> Any:
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 3, 3],
        },
    }
    if name == "smolvlm":
        return _smolvlm(text, tokenizer)
    if name == "fast_vlm":
        return _fast_vlm(text, tokenizer)
    tokens = {
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": -1,
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    }
    vision = {"depth": 2, "num_heads": 2, "patch_size": 4}
    if name == "qwen2_vl":
        vision |= {"embed_dim": 16, "hidden_size": 32}
        config = Qwen2VLConfig(text_config=text, vision_config=vision, **tokens)
        return Qwen2VLForConditionalGeneration(config)
    vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32}
    if name == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
        return Qwen2_5_VLForConditionalGeneration(config)
    vision |= {"num_position_embeddings": 36, "deepstack_visual_indexes": [0]}
    text |= {"head_dim": 16}
    text["rope_parameters"]["mrope_interleaved"] = True
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **tokens)
    return Qwen3VLForConditionalGeneration(config)


def _smolvlm(text: dict[str, Any], tokenizer: Any) -> Any:
    del text["rope_parameters"]
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 4,
    }
    config = SmolVLMConfig(
        text_config=text | {"model_type": "llama"},
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    return SmolVLMForConditionalGeneration(config)


def _fast_vlm(text: dict[str, Any], tokenizer: Any) -> Any:
    del text["rope_parameters"]
    vision = {
        "model_type": "bit",
        "hidden_size": 16,
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "num_groups": 2,
    }
    config = FastVlmConfig(
        text_config=text | {"model_type": "qwen2"},
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    return FastVlmForConditionalGeneration(config)
