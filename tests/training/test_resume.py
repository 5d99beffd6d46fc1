"""A training that is interrupted ends as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from raydual.config_tree import Config
from raydual.training.events import EpochResult, Note, Step
from raydual.training.launch import launch, resumed
from tests.training.runs import history, run, weights


@pytest.mark.parametrize("strategy", ["dual", "mixed", "independent"])
def test_six_epochs_equal_three_then_three_resumed(small: Callable, strategy: str) -> None:
    own = (f"train.strategy={strategy}", "coord.lr_schedule=cosine", "coord.patience=50")
    whole = small(*own, "run.name=whole", "train.epochs=6")
    run(whole)

    parts = small(*own, "run.name=parts", "train.epochs=6")
    with pytest.raises(KeyboardInterrupt):
        launch(parts, interrupt_after(3))
    again = resumed(f"{parts.run.storage}/parts", None, [])
    assert [r.epoch for r in run(again)] == [4, 5, 6]

    assert history(whole) == history(parts)
    for checkpoint in ("latest_checkpoint", "best_coord_checkpoint", "best_done_checkpoint"):
        one, other = weights(whole, checkpoint), weights(parts, checkpoint)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("own", [(), ("model.lora.r=4", "model.lora.dropout=0.2")])
def test_an_epoch_left_in_its_middle_goes_on_there(small: Callable, own: tuple[str, ...]) -> None:
    own += ("train.batch_size=4", "train.max_iterations=null", "train.checkpoint_every=5")
    whole, parts = (small(*own, f"run.name={name}", "train.epochs=3") for name in ("w", "p"))
    run(whole)
    for epoch, iteration in ((1, 7), (1, 11), (2, 11)):
        with pytest.raises(KeyboardInterrupt):
            launch(_going_on(parts), interrupt_at(f"Epoch {epoch}", iteration))
    seen: list[Step] = []
    launch(_going_on(parts), lambda e: seen.append(e) if isinstance(e, Step) else None)
    first = next(step for step in seen if step.label == "Epoch 2")
    assert (first.done, first.total) == (10, 12)

    assert history(whole) == history(parts)
    names = ("readout.safetensors", "heads.safetensors", "model.safetensors")
    for name in (*names, *(["adapter/adapter_model.safetensors"] if len(own) > 3 else [])):
        one, other = (
            load_file(Path(c.run.storage) / str(c.run.name) / "latest_checkpoint" / name)
            for c in (whole, parts)
        )
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_the_middle_of_an_epoch_goes_on_with_other_batches(small: Callable) -> None:
    own = ("train.max_iterations=null", "train.checkpoint_every=5", "train.epochs=2")
    config = small(*own, "train.batch_size=4")
    with pytest.raises(KeyboardInterrupt):
        launch(config, interrupt_at("Epoch 1", 7))
    events: list = []
    launch(resumed(f"{config.run.storage}/r", None, ["train.batch_size=3"]), events.append)
    steps = [e for e in events if isinstance(e, Step) and e.label == "Epoch 1"]
    assert (steps[0].done, steps[0].total) == (5, 5 + 10), "20 of 48 rows were read by fours"
    assert next(e for e in events if isinstance(e, Step) and e.label == "Epoch 2").total == 16


def test_the_middle_of_an_epoch_with_other_images_begins_anew(small: Callable) -> None:
    config = small("train.max_iterations=null", "train.checkpoint_every=5", "train.batch_size=4")
    with pytest.raises(KeyboardInterrupt):
        launch(config, interrupt_at("Epoch 1", 7))
    events: list = []
    launch(resumed(f"{config.run.storage}/r", None, ["data.min_objects=2"]), events.append)
    assert any(isinstance(e, Note) and "begins anew" in e.text for e in events)
    assert next(e for e in events if isinstance(e, Step) and e.label == "Epoch 1").done == 0


def _going_on(config: Config) -> Config:
    folder = f"{config.run.storage}/{config.run.name}"
    return resumed(folder, None, []) if Path(folder).exists() else config


def interrupt_at(label: str, done: int) -> Callable:
    def on_event(event: object) -> None:
        if isinstance(event, Step) and (event.label, event.done) == (label, done):
            raise KeyboardInterrupt

    return on_event


def interrupt_after(epoch: int) -> Callable:
    def on_event(event: object) -> None:
        if isinstance(event, EpochResult) and event.epoch == epoch:
            raise KeyboardInterrupt

    return on_event
