"""Several gloo processes against one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydual.config import build
from raydual.config_tree import Config
from raydual.data.batches import BatchStream
from raydual.data.examples import collate
from raydual.data.loading import load_here
from raydual.model.counter import DualTaskCounter
from raydual.tasks import objectives
from raydual.training.count_check import CountCheck
from raydual.training.loop import iteration, validate
from raydual.training.optim import TaskOptimizer
from raydual.training.parallel import ParallelCounter
from raydual.training.watch import GradientCosine, Watch
from tests.training.plain import use_sgd
from tests.training.processes import in_processes

CPU = torch.device("cpu")


def train_three_iterations(config: Config, rank: int, world: int) -> ParallelCounter:
    """Train on 8 rows an iteration, of which every process takes its part.

    The parts are uneven: rows with objects come first, so that the last rank has fewer
    coordinate targets.
    """
    counter = DualTaskCounter.from_config(config)
    for part in counter.modules():  # each process would drop other values
        if isinstance(part, torch.nn.Dropout | torch.nn.Dropout2d):
            part.p = 0.0
    stream = BatchStream(config, counter.prompter, load_here)
    model = ParallelCounter(counter, CPU)
    goals = objectives(config)
    optimizers = {o.name: TaskOptimizer(counter, o, config, 100) for o in goals}
    use_sgd(optimizers)
    watch, cosine = Watch(goals, 1, stream), GradientCosine()
    for number, micro in enumerate(stream.train(1)):
        samples = [s for b in micro for s in next(iter(b.values())).samples]
        samples.sort(key=lambda s: -len(s.points))
        assert len(samples) == 8
        part = samples[rank * 8 // world : (rank + 1) * 8 // world]
        own = {o.name: collate(part, o, counter.prompter, config, 1) for o in goals}
        iteration(model, optimizers, goals, [own], watch, cosine)
        watch.check()
        if number == 2:
            break
    return model


def save_trained(rank: int, world: int, tree: dict, out: str) -> None:
    model = train_three_iterations(build(tree), rank, world)
    torch.save(model.counter.state_dict(), f"{out}/rank{rank}.pt")


PHOTO = (
    "model.trunk=photo",
    "data.image_size=64",
    "data.mark.style=embedding",
    "coord.match=all",
    "model.freeze_tower=true",
)


@pytest.mark.parametrize(
    "own",
    [("train.strategy=dual",), ("train.strategy=mixed",), ("model.lora.r=4",), PHOTO],
    ids=["dual", "mixed", "lora", "photo"],
)
def test_two_processes_equal_one_on_the_joined_batch(
    small: Callable, tmp_path: Path, own: tuple[str, ...]
) -> None:
    config = small(
        *own,
        "model.lora.dropout=0",
        "train.batch_size=8",
        "data.max_objects=3",
        "coord.clip_norm=5",
    )
    before = DualTaskCounter.from_config(config).state_dict()
    alone = train_three_iterations(config, 0, 1).counter.state_dict()
    in_processes(save_trained, 2, config.model_dump(), str(tmp_path))
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2)]
    moved = 0
    for name, tensor in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], tensor, atol=2e-6, rtol=1e-5, msg=name)
        moved += int(not torch.equal(before[name], tensor))
    assert moved > 10


def save_validation(rank: int, world: int, tree: dict, out: str) -> None:
    config = build(tree)
    counter = DualTaskCounter.from_config(config)
    stream = BatchStream(config, counter.prompter, load_here, rank, world)
    model = ParallelCounter(counter, CPU)
    metrics, _ = validate(model, stream)
    metrics |= CountCheck(stream).after(1, model)
    del metrics["val/seconds"]
    torch.save(metrics, f"{out}/val{world}-{rank}.pt")


def test_validation_is_the_same_for_one_two_and_three_workers(
    small: Callable, tmp_path: Path
) -> None:
    """21 rows: 3 workers have 7 each, 2 have 10 and 11; batches of 4 end differently."""
    tree = small("train.count_every=1").model_dump()
    save_validation(0, 1, tree, str(tmp_path))
    for world in (2, 3):
        in_processes(save_validation, world, tree, str(tmp_path))
    alone = torch.load(tmp_path / "val1-0.pt")
    assert {"val/loss_coord", "val/px_median", "val/done_f1", "val/count_mae"} <= set(alone)
    for world in (2, 3):
        for rank in range(world):
            metrics = torch.load(tmp_path / f"val{world}-{rank}.pt")
            assert metrics == pytest.approx(alone, rel=1e-5, abs=1e-6)
