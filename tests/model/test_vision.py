"""Whole batches through a tower, and positions computed here: equal to what transformers does."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModel

from raydual.model.prompt import Prompter
from raydual.model.vision import take_batches
from tests.model.families import FAMILIES, Family, write_checkpoint

PACKED = [family for family in FAMILIES if family.name.startswith("qwen")]


@pytest.fixture(scope="module", params=PACKED, ids=lambda f: f.name)
def case(request, tmp_path_factory):
    family: Family = request.param
    folder = str(write_checkpoint(family, tmp_path_factory.mktemp(family.name)))
    images = np.random.default_rng(0).integers(
        0, 256, (3, family.image_size, family.image_size, 3), dtype=np.uint8
    )
    prompter = Prompter.from_pretrained(folder, family.image_size)
    inputs = prompter.encode(images, ["circles", "unheard-of things", "日本"], [0, 1234, 56])
    inputs |= prompter.layout.pixel_inputs(inputs.pop("images"), inputs.pop("normalised"))
    return AutoModel.from_pretrained(folder).eval(), inputs


def test_the_tower_gives_the_same_features_and_gradients(case):
    model, inputs = case
    plain, batched = model.visual, copy.deepcopy(model.visual)
    take_batches(batched)
    assert plain.state_dict().keys() == batched.state_dict().keys()
    outputs = []
    for tower in (plain, batched):
        out = tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        out.square().sum().backward()
        outputs.append([out, *(p.grad for p in tower.parameters())])
    for theirs, ours in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert batched.config.to_dict() == plain.config.to_dict()


def test_positions_are_those_of_transformers(case):
    model, inputs = case
    is_image = inputs["input_ids"] == model.config.image_token_id
    expected, _ = model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=is_image.int(),
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    assert not inputs["attention_mask"].bool().all()
    assert torch.equal(inputs["position_ids"], expected)
