from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raydual.errors import CheckpointError
from raydual.model.counter import DualTaskCounter, Prediction
from raydual.tasks import COORD, DONE
from tests.model.families import FAMILIES, Family, write_checkpoint


def picture(size: tuple[int, int] = (64, 48)) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def outputs(model: DualTaskCounter) -> list[float]:
    model.eval()
    return [*model.predict_coordinates(picture(), 2), model.predict_done(picture(), 2)]


@pytest.mark.parametrize("own", ["train.strategy=independent", "model.lora.r=4"])
@pytest.mark.parametrize("head", ["pointing", "mlp"])
def test_save_and_load_give_equal_predictions(
    small: Callable, tmp_path: Path, own: str, head: str
) -> None:
    model = DualTaskCounter.from_config(small(own, f"model.coord_head={head}"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(tmp_path / "m")
    loaded = DualTaskCounter.from_pretrained(tmp_path / "m")
    assert outputs(loaded) == outputs(model)

    fresh = DualTaskCounter.from_config(small(own, f"model.coord_head={head}", "seed=1"))
    assert outputs(fresh) != outputs(model)
    fresh.load_pretrained(tmp_path / "m")
    assert outputs(fresh) == outputs(model)


def test_a_training_starts_from_trunk_and_heads_of_a_checkpoint(
    small: Callable, tmp_path: Path
) -> None:
    trained = DualTaskCounter.from_config(small("seed=3"))
    trained.save_pretrained(tmp_path / "m")
    start = f"model.trunk={tmp_path / 'm'}"
    assert outputs(DualTaskCounter.from_config(small(start))) == outputs(trained)

    larger = DualTaskCounter.from_config(small(start, "data.image_size=96"))
    places = {n: m.heads["coord"].place.unflatten(0, m.grid) for n, m in
              (("old", trained), ("new", larger))}  # fmt: skip
    assert places["new"].shape == (12, 12, trained.trunks["shared"].hidden_size)
    torch.testing.assert_close(places["new"][0, 0], places["old"][0, 0])
    torch.testing.assert_close(places["new"][-1, 0], places["old"][-1, 0])
    between = places["old"][0, 0] * 0.75 + places["old"][1, 0] * 0.25
    torch.testing.assert_close(places["new"][1, 0], between)

    other = DualTaskCounter.from_config(small(start, "model.coord_head=mlp"))
    assert other.predict_done(picture(), 2) == trained.predict_done(picture(), 2)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_family_becomes_a_counter_and_round_trips(
    small: Callable, tmp_path: Path, family: Family
) -> None:
    base = write_checkpoint(family, tmp_path / "base")
    size = f"data.image_size={family.image_size}"
    config = small(f"model.trunk={base}", size, "model.lora.r=2")
    model = DualTaskCounter.from_config(config)
    x, y, done = outputs(model)
    assert -1 <= x <= 1
    assert -1 <= y <= 1
    assert 0 <= done <= 1
    model.save_pretrained(tmp_path / "m")
    assert outputs(DualTaskCounter.from_pretrained(tmp_path / "m")) == [x, y, done]


def test_predict_is_both_and_knows_the_pixels_of_the_image_given(small: Callable) -> None:
    model = DualTaskCounter.from_config(small()).eval()
    both = model.predict(picture((200, 100)), 1, "circle")
    assert isinstance(both, Prediction)
    assert (both.x, both.y) == model.predict_coordinates(picture((200, 100)), 1, "circle")
    assert both.done == model.predict_done(picture((200, 100)), 1, "circle")
    assert both.pixel == pytest.approx(((both.x + 1) * 100, (both.y + 1) * 100))


def test_the_order_of_tasks_does_not_change_the_heads(
    small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each head draws its weights from its own seed, whatever is built before it."""
    first = DualTaskCounter.from_config(small()).heads.state_dict()
    monkeypatch.setattr("raydual.model.counter.TASKS", (DONE, COORD))
    second = DualTaskCounter.from_config(small()).heads.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_what_is_no_checkpoint_says_so(small: Callable, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        DualTaskCounter.from_pretrained(tmp_path / "nowhere")
    run = tmp_path / "run"
    DualTaskCounter.from_config(small()).save_pretrained(run / "latest_checkpoint")
    with pytest.raises(CheckpointError, match="latest_checkpoint: name one of them"):
        DualTaskCounter.from_pretrained(run)
    with pytest.raises(CheckpointError, match="another architecture"):
        DualTaskCounter.from_config(small("model.coord_head=mlp")).load_pretrained(
            run / "latest_checkpoint"
        )


@pytest.mark.parametrize("file", ["heads.safetensors", "model.safetensors", "readout.safetensors"])
def test_damage_of_equal_size_is_found_and_nothing_is_unpickled(
    small: Callable, tmp_path: Path, file: str
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    folder = tmp_path / "m"
    DualTaskCounter.from_config(small()).save_pretrained(folder)
    bomb = pickle.dumps(Bomb())
    size = (folder / file).stat().st_size
    (folder / file).write_bytes(bomb + b"\0" * (size - len(bomb)))
    with pytest.raises(CheckpointError) as error:
        DualTaskCounter.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "exploded").exists()


def test_remote_code_asked_for_by_the_checkpoint_itself_is_not_trusted(
    small: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    DualTaskCounter.from_config(small()).save_pretrained(folder)
    manifest = json.loads((folder / "raydual.json").read_text())
    manifest["config"]["model"]["trust_remote_code"] = True
    (folder / "raydual.json").write_text(json.dumps(manifest))
    assert not DualTaskCounter.from_pretrained(folder).config.model.trust_remote_code
