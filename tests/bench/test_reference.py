"""The plain loop: it computes what raydual leaves out, and the same losses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydual.bench.feed import Rows, busy_seconds, cpu_seconds, loader
from raydual.bench.reference import Reference, world_of_one
from raydual.config_tree import Config
from raydual.data.batches import BatchStream, read_splits
from raydual.data.loading import load_here
from raydual.model.counter import DualTaskCounter
from raydual.tasks import SEPARATE
from raydual.training.loop import iteration
from raydual.training.parallel import ParallelCounter
from raydual.training.run import start
from raydual.training.watch import GradientCosine, Watch
from tests.model.families import FAMILIES, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def group() -> Iterator[None]:
    with world_of_one(CPU):
        yield


def vocabulary_outputs(monkeypatch: pytest.MonkeyPatch, vocabulary: int) -> list[int]:
    """Count the linear layers' outputs that are as wide as the vocabulary."""
    seen: list[int] = []
    forward = nn.Linear.forward

    def spied(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        out = forward(self, x)
        if out.shape[-1] == vocabulary:
            seen.append(out.numel())
        return out

    monkeypatch.setattr(nn.Linear, "forward", spied)
    return seen


def ours(config: Config) -> tuple[DualTaskCounter, BatchStream, dict]:
    counter = DualTaskCounter.from_config(config)
    stream = BatchStream(config, counter.prompter, load_here)
    batches = stream.train(1)
    (by_name,) = next(iter(batches))
    batches.close()
    return counter, stream, by_name


def bare(batch: Any) -> Any:
    return replace(batch, inputs={})


@pytest.mark.parametrize("strategy", ["tiny", "lora", "qwen2_vl"])
def test_the_losses_are_those_of_raydual(
    small: Callable, group: None, tmp_path: Path, strategy: str
) -> None:
    overrides = {
        "tiny": [],
        "lora": ["model.lora.r=4"],
        "qwen2_vl": [f"model.trunk={tmp_path / 'qwen'}", "data.image_size=32", "model.lora.r=2"],
    }[strategy]
    if strategy == "qwen2_vl":
        write_checkpoint(FAMILIES[0], tmp_path / "qwen")
    config = small(*overrides)
    counter, _, by_name = ours(config)
    model = ParallelCounter(counter.eval(), CPU)
    reference = Reference(config, CPU, lambda stage: None)
    reference.ddp.eval()
    for objective in SEPARATE:
        (task,) = objective.tasks
        batch = by_name[objective.name]
        target = batch.targets[task.name]
        with torch.no_grad():
            judged = task.criterion(model.evaluate(batch, task), target, counter.grid, config)
            expected = (judged.objective * target.valid).sum() / target.valid.sum()
            plain = replace(batch, inputs=reference.processor(bare(batch)))
            got = reference.loss(plain, objective)
        pixels = counter.prompter.layout.pixel_inputs(
            batch.inputs["images"], batch.inputs["normalised"]
        )
        assert torch.equal(plain.inputs["pixel_values"], pixels["pixel_values"])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_only_the_reference_computes_vocabulary_logits_and_all_hidden_states(
    small: Callable, group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small()
    counter, stream, by_name = ours(config)
    vocabulary = counter.trunks["shared"].model.config.get_text_config().vocab_size
    seen = vocabulary_outputs(monkeypatch, vocabulary)
    model, state = start(config, counter, stream, CPU)
    watch, cosine = Watch(SEPARATE, 1, stream), GradientCosine()
    iteration(model, state.optimizers, SEPARATE, [by_name], watch, cosine)
    assert not seen
    reference = Reference(config, CPU, lambda stage: None)
    asked: list[Any] = []
    reference.model.trunk.full.register_forward_pre_hook(
        lambda module, args, kwargs: asked.append(kwargs["output_hidden_states"]), with_kwargs=True
    )
    reference.step(bare(by_name["coord"]), SEPARATE[0])
    length = by_name["coord"].inputs["input_ids"].numel()
    assert seen == [length * vocabulary]
    assert asked == [True]


def test_a_step_changes_the_trunk_and_its_own_head_alone(small: Callable, group: None) -> None:
    config = small()
    _, _, by_name = ours(config)
    reference = Reference(config, CPU, lambda stage: None)
    before = {name: tensor.clone() for name, tensor in reference.model.named_parameters()}
    loss = reference.step(bare(by_name["coord"]), SEPARATE[0])
    assert isinstance(loss, float)
    changed = {n for n, p in reference.model.named_parameters() if not torch.equal(p, before[n])}
    assert any(name.startswith("trunk.") for name in changed)
    assert any(name.startswith("heads.coord.") for name in changed)
    assert not any(name.startswith("heads.done.") for name in changed)


def test_the_loader_gives_each_row_once_and_pictures_without_inputs(small: Callable) -> None:
    config = small()
    units, _ = read_splits(config)
    batches = list(loader(Rows(config, units, SEPARATE, 1)))
    rows = [sample.id for by_name in batches for sample in by_name["coord"].samples]
    assert len(rows) == len(set(rows)) == BatchStream(config, None, load_here).train_rows
    assert batches[0]["done"].canvases.shape == (4, 48, 48, 3)
    assert batches[0]["done"].inputs == {}


def test_cpu_time_of_children_counts_while_they_run_and_once_they_have_ended() -> None:
    before = cpu_seconds()
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=-1, stdout=-1, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    running = busy_seconds(before)
    child.communicate("end\n")
    assert running > 0.2  # the system counts in hundredths
    assert busy_seconds(before) >= running - 0.1
