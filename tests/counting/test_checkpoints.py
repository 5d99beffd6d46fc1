"""Which checkpoints a counter is made of, and what two of them share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raydual.config_tree import Config
from raydual.counting.closed_loop import Counter
from raydual.errors import CheckpointError, RaydualError
from raydual.model.counter import DualTaskCounter
from raydual.training.events import EpochResult
from raydual.training.run import run_here

LORA = ("model.lora.r=4", "model.lora.dropout=0.5")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def trained(config: Config, seed: int) -> DualTaskCounter:
    """A model some steps away from where the training of `config` starts."""
    model = DualTaskCounter.from_config(config)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture
def run(small: Callable, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a run whose two best checkpoints are of different steps."""

    def write(*overrides: str) -> Path:
        config = small(*overrides)
        for seed, name in enumerate(("best_coord_checkpoint", "best_done_checkpoint")):
            trained(config, seed).save_pretrained(tmp_path / "run" / name)
        return tmp_path / "run"

    return write


def says(model: DualTaskCounter) -> tuple[float, ...]:
    return (*model.predict_coordinates(PICTURE, 2), model.predict_done(PICTURE, 2))


@pytest.mark.parametrize(
    "overrides", [(), LORA, (*LORA, "train.strategy=independent")], ids=["full", "lora", "two"]
)
def test_each_task_is_answered_by_its_own_best_checkpoint(run: Callable, overrides: tuple) -> None:
    folder = run(*overrides)
    counter = Counter.from_run(folder)
    for loaded, name in ((counter.coord, "coord"), (counter.done, "done")):
        alone = DualTaskCounter.from_pretrained(folder / f"best_{name}_checkpoint")
        assert says(loaded) == says(alone)
    assert says(counter.coord) != says(counter.done)
    counted = counter.count(PICTURE, max_objects=1)
    assert counted.done[0] == pytest.approx(counter.done.predict_done(PICTURE, 0), abs=1e-6)
    if counted.count:
        x, y = counter.coord.predict(PICTURE, 0).pixel
        assert counted.points[0].tolist() == pytest.approx([x, y], abs=1e-4)


def test_under_lora_the_two_share_one_base(run: Callable) -> None:
    folder = run(*LORA)
    counter = Counter.from_run(folder)
    alone = DualTaskCounter.from_pretrained(folder / "best_coord_checkpoint")
    own = sum(p.numel() for p in alone.parameters() if p.requires_grad)
    both = {id(p): p.numel() for m in (counter.coord, counter.done) for p in m.parameters()}
    assert sum(both.values()) == sum(p.numel() for p in alone.parameters()) + own
    assert not counter.done.training
    assert not any(module.training for module in counter.done.modules())


def test_what_shares_a_base_is_saved_as_it_was(run: Callable, tmp_path: Path) -> None:
    counter = Counter.from_run(run(*LORA))
    for name, model in (("a", counter.done), ("b", counter.coord)):
        model.save_pretrained(tmp_path / name)
        assert says(DualTaskCounter.from_pretrained(tmp_path / name)) == says(model)


def test_bases_that_may_differ_are_not_shared(small: Callable, tmp_path: Path) -> None:
    for seed, name in enumerate(("best_coord_checkpoint", "best_done_checkpoint")):
        trained(small(*LORA, f"seed={seed}"), seed).save_pretrained(tmp_path / name)
    counter = Counter.from_run(tmp_path)
    alone = DualTaskCounter.from_pretrained(tmp_path / "best_done_checkpoint")
    assert says(counter.done) == says(alone)


def test_a_base_in_bfloat16_is_counted_with_on_the_cpu(small: Callable, tmp_path: Path) -> None:
    model = DualTaskCounter.from_config(small(*LORA), base_dtype=torch.bfloat16)
    for name in ("best_coord_checkpoint", "best_done_checkpoint"):
        with torch.no_grad():
            model.heads["done"].done_head[-1].bias.sub_(20)
        model.save_pretrained(tmp_path / name)
    counted = Counter.from_run(tmp_path).count(PICTURE, max_objects=3, repeat_radius=0)
    assert (counted.count, counted.stopped) == (3, "max_objects")


def test_best_checkpoints_of_one_epoch_are_one_model(small: Callable, tmp_path: Path) -> None:
    for name in ("best_coord_checkpoint", "best_done_checkpoint"):
        trained(small(), 0).save_pretrained(tmp_path / name)
    counter = Counter.from_run(tmp_path)
    assert counter.coord is counter.done


def test_a_checkpoint_alone_answers_both(run: Callable) -> None:
    folder = run()
    counter = Counter.from_pretrained(str(folder / "best_done_checkpoint"))
    assert counter.coord is counter.done
    with pytest.raises(CheckpointError, match="name one of them"):
        Counter.from_pretrained(folder)


@pytest.mark.parametrize("missing", ["run", "best_coord_checkpoint", "best_done_checkpoint"])
def test_what_is_missing_is_named(run: Callable, missing: str) -> None:
    folder = run()
    (folder / missing if missing != "run" else folder).rename(folder.parent / "elsewhere")
    with pytest.raises(RaydualError, match=missing) as error:
        Counter.from_run(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("category", ["circle", None])
def test_a_training_leaves_the_categories_it_saw(small: Callable, category: str | None) -> None:
    config = small(*([f"data.category={category}"] if category else []), "train.epochs=1")
    events: list = []
    run_here(config, events.append)
    assert any(isinstance(event, EpochResult) for event in events)
    model = Counter.from_run(f"{config.run.storage}/r").coord
    if category:
        assert model.categories == ("circle",)
        assert model.category_or_default(None) == "circle"
        assert model.predict_done(PICTURE, 0) == model.predict_done(PICTURE, 0, "circle")
    else:
        assert set(model.categories) == {"circle", "square", "triangle", "star"}
        assert model.predict_done(PICTURE, 0) == model.predict_done(PICTURE, 0, "object")
    assert model.category_or_default("pear") == "pear"
