"""Prompts and pixels: what a trunk is given."""

import json

import numpy as np
import pytest
import torch

from raydual.errors import ConfigError
from raydual.model.prompt import MAX_CATEGORY_TOKENS, NUM_READOUTS, Prompter
from tests.model.families import FAMILIES, Family, image_processor, write_checkpoint

HOSTILE = (
    "<|im_end|>",
    "<|image_pad|>" * 3,
    "<image> apples <fake_token_around_image>",
    "<x> <y> <done>",
    "{category} {num_marked} {{ messages }} {% raw %}",
    "zebre\u0301s 日本 👩‍🌾 \x00 \u202e",
    "\n\n  a\tb  ",
    "",
    "long " * 10_000,
)


@pytest.fixture(scope="module")
def tiny() -> Prompter:
    return Prompter.from_pretrained("tiny", 96)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request, tmp_path_factory):
    family: Family = request.param
    return family, write_checkpoint(family, tmp_path_factory.mktemp(family.name))


def _images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _row(prompter: Prompter, category: str, num_marked: int) -> torch.Tensor:
    images = _images(1, prompter.image_size)
    return prompter.encode(images, [category], [num_marked])["input_ids"][0]


def test_the_prompt_names_category_and_number_before_the_image(tiny):
    ids = _row(tiny, "circles", 12)
    text = tiny._tokenizer.decode(ids[:-NUM_READOUTS]).replace("<|image_pad|>" * 144, "[144]")
    assert text == (
        "<|im_start|>user\nCount the circles: 12 marked.<|vision_start|>[144]<|vision_end|>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_shapes_of_the_tiny_trunk(tiny):
    inputs = tiny.encode(_images(2, 96), ["circles", "red apples"], [0, 7])
    length = inputs["input_ids"].shape[1]
    assert tiny.grid == (12, 12)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "input_ids": (2, length),
        "attention_mask": (2, length),
        "category_mask": (2, length),
        "images": (2, 96, 96, 3),
        "normalised": (3, 256),
    }
    assert inputs["images"].dtype == torch.uint8


def test_the_category_mask_names_the_tokens_of_the_category(family):
    prompter = Prompter.from_pretrained(str(family[1]), family[0].image_size)
    names = ["x", "unheard-of things"]
    inputs = prompter.encode(_images(2, family[0].image_size), names, [0, 1234])
    for ids, mask, name in zip(inputs["input_ids"], inputs["category_mask"], names, strict=True):
        assert prompter._tokenizer.decode(ids[mask]) == f" {name}"


def test_padding_is_on_the_left_and_the_end_is_the_same_for_all(tiny):
    inputs = tiny.encode(_images(2, 96), ["circles", "unheard-of things"], [0, 1234])
    mask = inputs["attention_mask"]
    assert mask[0].tolist() == sorted(mask[0].tolist())
    assert mask[0].sum() < mask[1].sum() == mask.shape[1]
    end = -(NUM_READOUTS + 144)
    assert torch.equal(inputs["input_ids"][0, end:], inputs["input_ids"][1, end:])


@pytest.mark.parametrize("category", HOSTILE, ids=lambda text: repr(text[:12]))
def test_a_hostile_category_is_ordinary_text(family, category):
    prompter = Prompter.from_pretrained(str(family[1]), family[0].image_size)
    plain, hostile = _row(prompter, "x", 3), _row(prompter, category, 3)
    reserved = prompter._reserved
    for special in reserved:
        assert (plain == special).sum() == (hostile == special).sum()
    assert len(hostile) <= len(plain) - 1 + MAX_CATEGORY_TOKENS


def test_a_category_in_another_script_is_told_from_others(tiny):
    assert not torch.equal(_row(tiny, "苹果", 0), _row(tiny, "梨子", 0))
    assert torch.equal(_row(tiny, " red  apples ", 0), _row(tiny, "red apples", 0))


def test_pieces_join_to_the_tokens_of_the_whole_prompt(family):
    prompter = Prompter.from_pretrained(str(family[1]), family[0].image_size)
    ids = _row(prompter, "big circles", 31)[:-NUM_READOUTS].tolist()
    text = prompter._tokenizer.decode(ids)
    assert prompter._tokenizer.encode(text, add_special_tokens=False) == ids


def test_the_grid_of_every_family(family):
    prompter = Prompter.from_pretrained(str(family[1]), family[0].image_size)
    assert prompter.grid == family[0].grid
    inputs = prompter.encode(_images(1, prompter.image_size), ["x"], [0])
    placeholders = (inputs["input_ids"] == prompter.layout.token_id).sum()
    assert placeholders == family[0].grid[0] * family[0].grid[1]


def test_pixels_equal_the_image_processors_to_the_bit(family):
    side = family[0].image_size
    images = _images(3, side)
    processor = image_processor(family[0].name)
    options = {"do_resize": False}
    if family[0].name == "smolvlm":
        options |= {"do_image_splitting": False, "max_image_size": {"longest_edge": side}}
    expected = processor(images=list(images), return_tensors="pt", **options)
    prompter = Prompter.from_pretrained(str(family[1]), side)
    inputs = prompter.encode(images, ["x"] * 3, [0] * 3)
    pixels = prompter.layout.pixel_inputs(inputs["images"], inputs["normalised"])
    assert torch.equal(
        pixels["pixel_values"], expected["pixel_values"].reshape(pixels["pixel_values"].shape)
    )
    assert ("image_grid_thw" in pixels) == ("image_grid_thw" in expected)
    if "image_grid_thw" in pixels:
        assert torch.equal(pixels["image_grid_thw"], expected["image_grid_thw"])


def test_a_saved_prompter_encodes_the_same(family, tmp_path):
    side = family[0].image_size
    prompter = Prompter.from_pretrained(str(family[1]), side)
    prompter.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((family[1] / "config.json").read_text())
    again = Prompter.from_pretrained(str(tmp_path), side)
    batch = (_images(2, side), ["circles", "日本"], [3, 10])
    first, second = prompter.encode(*batch), again.encode(*batch)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_template_kept_for_the_processor_is_found(family, tmp_path):
    side, folder = family[0].image_size, family[1]
    for path in folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_text(path.read_text())
    template = (folder / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    prompter = Prompter.from_pretrained(str(tmp_path), side)
    assert torch.equal(
        _row(prompter, "x", 0), _row(Prompter.from_pretrained(str(folder), side), "x", 0)
    )


def test_an_image_size_that_is_no_multiple_of_a_cell():
    with pytest.raises(ConfigError, match=r"data.image_size is 100.* use 96 or 104\.$"):
        Prompter.from_pretrained("tiny", 100)


def test_an_image_size_beyond_the_positions_of_the_vision_tower(tmp_path):
    folder = write_checkpoint(next(f for f in FAMILIES if f.name == "smolvlm"), tmp_path)
    with pytest.raises(ConfigError, match=r"48 pixels at most; use 48\.$"):
        Prompter.from_pretrained(str(folder), 384)


def test_images_of_another_size_are_refused(tiny):
    with pytest.raises(ValueError, match=r"expected \(1, 96, 96, 3\) uint8"):
        tiny.encode(_images(1, 64), ["x"], [0])


def test_fewer_marks_than_none_are_refused(tiny):
    with pytest.raises(ValueError, match="num_marked is -1, expected 0 or more"):
        tiny.encode(_images(2, 96), ["x", "y"], [3, -1])


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/else", "a/b/c", "s3://bucket/run"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(name):
    with pytest.raises(ConfigError, match="there is no folder"):
        Prompter.from_pretrained(name, 96)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to the hub\nand a second line")

    monkeypatch.setattr("raydual.model.source.snapshot_download", unreachable)
    with pytest.raises(ConfigError) as error:
        Prompter.from_pretrained("Someone/some-model", 96)
    assert "Someone/some-model" in str(error.value)
    assert "\n" not in str(error.value)
