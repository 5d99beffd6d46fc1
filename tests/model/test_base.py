"""Checkpoints under LoRA name the frozen weights instead of holding them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from raydual.config_tree import LoraSection
from raydual.errors import CheckpointError
from raydual.model.prompt import Prompter
from raydual.model.trunk import Trunk
from tests.model.families import FAMILIES, write_checkpoint

FAMILY = FAMILIES[0]
LORA = LoraSection(r=4, alpha=8, dropout=0.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(FAMILY, tmp_path / "qwen")


def trunk(source: Path | str, **options) -> Trunk:
    options = {"lora": LORA, "seed": 0, "image_size": FAMILY.image_size} | options
    return Trunk.from_pretrained(str(source), **options).eval()


def saved(source: Path, folder: Path, **options) -> tuple[Trunk, Path]:
    made = trunk(source, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    made.save_pretrained(folder)
    Prompter.from_pretrained(str(source), FAMILY.image_size).save_pretrained(folder)
    return made, folder


def load(folder: Path) -> Trunk:
    return Trunk.load(folder, image_size=FAMILY.image_size).eval()


def answers(made: Trunk, source: Path) -> torch.Tensor:
    prompter = Prompter.from_pretrained(str(source), FAMILY.image_size)
    shape = (2, FAMILY.image_size, FAMILY.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with torch.no_grad():
        return made(prompter.encode(images, ["circles", "stars"], [0, 3])).cells


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_holds_what_was_trained_and_reads_the_same(source, tmp_path, dtype):
    made, folder = saved(source, tmp_path / "checkpoint", base_dtype=dtype)
    weights = {path.name for path in folder.rglob("*.safetensors")}
    assert weights == {"readout.safetensors", "adapter_model.safetensors"}
    about = json.loads((folder / "base.json").read_text())
    assert about["source"] == str(source.absolute())
    assert about["dtype"] == str(dtype).removeprefix("torch.")
    again = load(folder)
    assert torch.equal(answers(made, source), answers(again, source))
    again.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/base.json").read_text()) == about


def test_a_training_starts_from_the_merged_weights_which_then_go_with_it(source, tmp_path):
    made, folder = saved(source, tmp_path / "checkpoint")
    second = trunk(folder)
    torch.testing.assert_close(answers(second, source), answers(made, source))
    second.save_pretrained(tmp_path / "second")
    assert not (tmp_path / "second/base.json").exists()
    shutil.rmtree(source)
    assert torch.equal(answers(second, folder), answers(load(tmp_path / "second"), folder))


def test_the_tiny_trunk_goes_with_its_checkpoint(tmp_path):
    trunk("tiny", image_size=48).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert not (tmp_path / "base.json").exists()


def test_weights_that_have_changed_since_are_refused(source, tmp_path):
    _, folder = saved(source, tmp_path / "checkpoint")
    weights = load_file(source / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="whose weights have changed"):
        load(folder)


def test_weights_that_are_gone_are_named(source, tmp_path):
    _, folder = saved(source, tmp_path / "checkpoint")
    source.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"adapters for .*qwen, which cannot be found"):
        load(folder)
    source.symlink_to(tmp_path / "moved")
    load(folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"source": "x"}',
        '{"source": "x", "dtype": "int8", "sha256": ""}',
        '{"source": 5, "dtype": "float32", "sha256": ""}',
        "[" * 100_000,
    ],
)
def test_a_damaged_note_is_named(source, tmp_path, content):
    _, folder = saved(source, tmp_path / "checkpoint")
    (folder / "base.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"base.json cannot be read"):
        load(folder)
