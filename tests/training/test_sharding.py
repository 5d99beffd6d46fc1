"""A trunk in parts on two gloo processes, against one that is whole on both (DDP)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from raydual.config import build, with_values
from raydual.config_tree import Config
from raydual.counting.closed_loop import Counter
from raydual.data.batches import BatchStream
from raydual.data.loading import load_here
from raydual.errors import ConfigError
from raydual.model.counter import DualTaskCounter
from raydual.tasks import SEPARATE, TASKS, objectives
from raydual.training import checkpoint
from raydual.training.count_check import CountCheck
from raydual.training.early_stopping import EarlyStopping
from raydual.training.launch import launch, resumed
from raydual.training.loop import TrainState, iteration, validate
from raydual.training.optim import TaskOptimizer, check_ownership
from raydual.training.parallel import ParallelCounter
from raydual.training.pictures import answers
from raydual.training.run import run_training
from raydual.training.run_folder import LATEST
from raydual.training.sharding import own_part
from raydual.training.trackers import Step
from raydual.training.watch import GradientCosine, Watch
from tests.training.plain import use_sgd
from tests.training.processes import in_processes
from tests.training.runs import TIMES

CPU = torch.device("cpu")
SHARDED, WHOLE = {"scale.strategy": "fsdp"}, {"scale.strategy": "ddp"}


def prepared(config: Config, counter: DualTaskCounter) -> tuple[ParallelCounter, TrainState]:
    model, goals = ParallelCounter(counter, CPU), objectives(config)
    optimizers = {o.name: TaskOptimizer(counter, o, config, 100) for o in goals}
    check_ownership(counter, goals, optimizers)
    return model, TrainState(optimizers, {task.name: EarlyStopping(5, 0) for task in TASKS})


def trained(config: Config, rank: int, world: int) -> tuple[list[dict], dict, dict[str, Tensor]]:
    """Return the figures of each of 3 iterations, those of a validation, and the weights."""
    counter = DualTaskCounter.from_config(config)
    stream = BatchStream(config, counter.prompter, load_here, rank, world)
    model, state = prepared(config, counter)
    use_sgd(state.optimizers)
    goals = objectives(config)
    watch, cosine = Watch(goals, 1, stream), GradientCosine()
    steps = []
    for number, micro in enumerate(stream.train(1)):
        torch.manual_seed(10 * number + rank)
        figures = iteration(model, state.optimizers, goals, micro, watch, cosine)
        watch.check()
        steps.append({name: float((v * w).sum() / w.sum()) for name, (v, w) in figures.items()})
    steps.append(cosine.metrics())
    metrics, _ = validate(model, stream)
    metrics |= CountCheck(stream).after(1, model)
    with model.uneven():
        if rank == 1:
            answers(model, stream.first_val_batch(SEPARATE[0], 2))
    return steps, {k: v for k, v in metrics.items() if k not in TIMES}, model.weights()


def train_both(rank: int, world: int, trees: list[dict], out: str) -> None:
    for number, tree in enumerate(trees):
        for name, own in (("whole", WHOLE), ("sharded", SHARDED)):
            saved = trained(with_values(build(tree), own), rank, world)
            torch.save(saved, f"{out}/{name}{number}-{rank}.pt")


def test_parts_learn_and_answer_what_the_whole_does(small: Callable, tmp_path: Path) -> None:
    """21 validation rows: the first rank has 11, the other 10, in batches of 2: 6 and 5."""
    own = ("train.batch_size=2", "coord.clip_norm=5", "scale.num_workers=2")
    own += ("coord.lr=1e-4", "done.lr=1e-4")
    photo = ("model.trunk=photo", "data.image_size=64", "data.mark.style=embedding")
    photo += ("coord.match=all", "model.freeze_tower=true", "data.augment=true")
    configs = [
        small(*own, "train.accumulate=2", "train.count_every=1"),
        small(*own, "train.strategy=mixed"),
        small(*own, "train.strategy=independent", "model.coord_head=mlp", "train.count_every=1"),
        small(*own, "model.lora.r=4", "model.gradient_checkpointing=true"),
        small(*own, *photo, "train.count_every=1"),
    ]
    trees = [config.model_dump() for config in configs]
    in_processes(train_both, 2, trees, str(tmp_path))
    for number, config in enumerate(configs):
        before = DualTaskCounter.from_config(config).state_dict()
        for rank in range(2):
            (steps, metrics, weights), (own_steps, own_metrics, own_weights) = (
                torch.load(tmp_path / f"{name}{number}-{rank}.pt") for name in ("whole", "sharded")
            )
            assert len(steps) == 4
            for one, other in zip(steps, own_steps, strict=True):
                assert other == pytest.approx(one, rel=1e-5, abs=1e-6, nan_ok=True)
            assert own_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
            assert ("val/count_mae" in metrics) == bool(config.train.count_every)
            if rank == 0:
                for name, tensor in weights.items():
                    torch.testing.assert_close(
                        own_weights[name], tensor, atol=2e-7, rtol=1e-6, msg=name
                    )
                assert sum(not torch.equal(before[n], t) for n, t in weights.items()) > 10


def run_both(rank: int, world: int, tree: dict, out: str) -> None:
    """Train whole and in parts; the latter from its middle again; then on, each the other way."""
    config, runs = build(tree), Path(tree["run"]["storage"])

    def run(name: str, own: dict, **more: Any) -> None:
        def on_event(event: Any) -> None:
            if event == Step("Epoch 1", 4, 5) and not name.endswith("again"):
                shutil.copytree(runs / name, runs / f"{name}-again")

        values = with_values(config, {"run.name": name, **own, **more})
        share = {"rank": rank, "world_size": world}
        assert [r.epoch for r in run_training(values, load_here, CPU, on_event, **share)]
        dist.barrier()

    for name, own in (("whole", WHOLE), ("parts", SHARDED)):
        run(name, own)
        if rank == 0:
            shutil.copytree(runs / name, runs / f"{name}-1")
    run("parts-again", SHARDED)
    torch.save(held(config, runs / "whole-1" / LATEST), f"{out}/held{rank}.pt")
    run("whole", SHARDED, **{"train.epochs": 2})
    run("parts", WHOLE, **{"train.epochs": 2})


def held(config: Config, path: Path) -> dict[str, Any]:
    """Take a checkpoint up in parts; return it as it would be saved, and each part's size."""
    config = with_values(config, SHARDED)
    counter = DualTaskCounter.from_config(config)
    counter.load_pretrained(path)
    model, state = prepared(config, counter)
    checkpoint.load_state(path, state)
    snapshot = checkpoint.Snapshot.of(model, state)
    stream = BatchStream(config, counter.prompter, load_here)
    batch = stream.first_val_batch(SEPARATE[0], 1)
    model.forward(batch, SEPARATE[0].tasks)[0].position.sum().backward()
    parameters = [p for p in counter.trunks.parameters() if p.requires_grad]
    moments = [m for p in parameters for m in state.optimizers["coord"].optimizer.state[p].values()]
    sizes = {
        "weights": sum(own_part(p).numel() for p in parameters),
        "gradients": sum(own_part(p.grad).numel() for p in parameters if p.grad is not None),
        "moments": sum(own_part(m).numel() for m in moments if m.dim()),
        "whole": sum(p.numel() for p in parameters),
    }
    return {"weights": snapshot.weights, "state": snapshot.state, "sizes": sizes}


def test_a_run_in_parts_is_saved_whole_and_goes_on_anywhere(
    small: Callable, tmp_path: Path
) -> None:
    config = small(
        "scale.num_workers=2",
        "train.epochs=1",
        "train.max_iterations=5",
        "train.checkpoint_every=3",
        "train.count_every=1",
        "coord.lr=1e-5",  # Adam's first steps make much of rounding errors
        "done.lr=1e-5",
    )
    in_processes(run_both, 2, config.model_dump(), str(tmp_path))
    runs = Path(config.run.storage)

    whole, parts = (history(runs / name) for name in ("whole", "parts"))
    assert [line["epoch"] for line in parts] == [1, 2]
    assert parts[0] == pytest.approx(whole[0], rel=1e-4, abs=1e-5)
    assert parts[1] == pytest.approx(whole[1], rel=1e-3, abs=1e-4)
    assert history(runs / "parts-again") == parts[:1]
    assert (runs / "parts" / "samples" / "epoch_0001.png").is_file()

    one, other, again = (saved(runs / n / LATEST) for n in ("whole-1", "parts-1", "parts-again"))
    compare(one, other, lambda a, b: a.shape == b.shape and a.dtype == b.dtype)
    compare(other, again, torch.equal)
    for rank in range(2):
        held = torch.load(tmp_path / f"held{rank}.pt")
        size = held["sizes"]
        assert size["weights"] == pytest.approx(size["whole"] / 2, rel=0.02)
        assert size["gradients"] == size["weights"]
        assert size["moments"] == 2 * size["weights"]
        if rank == 0:
            compare(one["training"], held["state"], torch.equal)

    alone = resumed(
        f"{runs}/parts", None, ["scale.num_workers=0", "scale.strategy=ddp", "train.epochs=3"]
    )
    launch(alone, lambda event: None)
    assert [line["epoch"] for line in history(runs / "parts")] == [1, 2, 3]
    assert Counter.from_run(runs / "parts").coord.config.run.name == "parts"


def history(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def saved(path: Path) -> dict[str, Any]:
    files = ("model", "readout", "heads")
    return {
        **{name: load_file(path / f"{name}.safetensors") for name in files},
        "training": torch.load(path / "training_state.pt", weights_only=True),
    }


def compare(one: Any, other: Any, same: Callable[[Tensor, Tensor], bool], where: str = "") -> None:
    """Check that two trees have the same keys and, by `same`, the same tensors."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            compare(one[key], other[key], same, f"{where}/{key}")
    elif isinstance(one, Tensor):
        assert same(one, other), where


@pytest.mark.parametrize("workers", [0, 1])
def test_one_worker_has_nothing_to_split(small: Callable, workers: int) -> None:
    with pytest.raises(ConfigError, match=rf"num_workers={workers}; take two or more, or .*ddp"):
        small("scale.strategy=fsdp", f"scale.num_workers={workers}")
