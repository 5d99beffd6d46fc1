from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from raydual.config_tree import Config
from raydual.data.batches import BatchStream
from raydual.data.loading import load_here
from raydual.model.counter import DualTaskCounter
from raydual.tasks import SEPARATE, TASKS, objectives
from raydual.training.loop import iteration
from raydual.training.optim import TaskOptimizer, check_ownership, lr_factor
from raydual.training.parallel import ParallelCounter
from raydual.training.run import start
from raydual.training.watch import GradientCosine, Watch
from tests.training.plain import use_sgd

CPU = torch.device("cpu")


def prepared(config: Config) -> tuple[ParallelCounter, dict[str, TaskOptimizer], list, BatchStream]:
    counter = DualTaskCounter.from_config(config)
    stream = BatchStream(config, counter.prompter, load_here)
    optimizers = {o.name: TaskOptimizer(counter, o, config, 100) for o in objectives(config)}
    return ParallelCounter(counter, torch.device("cpu")), optimizers, list(stream.train(1)), stream


@pytest.mark.parametrize("strategy", ["dual", "independent", "mixed"])
def test_every_trainable_parameter_has_its_owner(small: Callable, strategy: str) -> None:
    config = small(f"train.strategy={strategy}")
    model, optimizers, _, _ = prepared(config)
    check_ownership(model.counter, objectives(config), optimizers)


def test_each_optimizer_owns_the_trunk_and_its_own_head_only(small: Callable) -> None:
    model, optimizers, _, _ = prepared(small())
    trunk = {id(p) for p in model.counter.trunks.parameters()}
    for task in TASKS:
        owned = {id(p) for g in optimizers[task.name].optimizer.param_groups for p in g["params"]}
        assert owned == trunk | {id(p) for p in model.counter.heads[task.name].parameters()}


def test_ownership_check_finds_a_stranger_and_an_orphan(small: Callable) -> None:
    config = small()
    model, optimizers, _, _ = prepared(config)
    groups = optimizers["coord"].optimizer.param_groups
    kept = groups[1]["params"]
    groups[1]["params"] = kept[1:]
    with pytest.raises(AssertionError, match="coord"):
        check_ownership(model.counter, SEPARATE, optimizers)
    groups[1]["params"] = [*kept, *model.counter.heads["done"].parameters()]
    with pytest.raises(AssertionError, match="coord"):
        check_ownership(model.counter, SEPARATE, optimizers)


@pytest.mark.parametrize("task", [0, 1])
def test_a_step_leaves_the_other_head_alone_moments_and_decay_included(
    small: Callable, task: int
) -> None:
    """Both tasks step first, so that there are moments; then one steps alone."""
    config = small("coord.weight_decay=0.5", "done.weight_decay=0.5")
    model, optimizers, batches, stream = prepared(config)
    watch = Watch(SEPARATE, 1, stream)
    iteration(model, optimizers, SEPARATE, batches[0], watch, GradientCosine())
    other = SEPARATE[1 - task].name
    head = copy.deepcopy(model.counter.heads[other].state_dict())
    moments = copy.deepcopy(optimizers[other].optimizer.state_dict())
    trunk = copy.deepcopy(model.counter.trunks.state_dict())
    own = copy.deepcopy(model.counter.heads[SEPARATE[task].name].state_dict())

    iteration(model, optimizers, SEPARATE[task : task + 1], batches[1], watch, GradientCosine())

    after = model.counter.heads[other].state_dict()
    assert all(torch.equal(head[k], after[k]) for k in head)
    state = optimizers[other].optimizer.state_dict()["state"]
    for key, values in moments["state"].items():
        assert all(torch.equal(values[k], state[key][k]) for k in values)
    assert all(p.grad is None for p in model.counter.parameters())
    mine = model.counter.heads[SEPARATE[task].name].state_dict()
    assert any(not torch.equal(own[k], mine[k]) for k in own)
    shared = model.counter.trunks.state_dict()
    assert any(not torch.equal(trunk[k], shared[k]) for k in trunk)


def test_independent_tasks_share_no_trunk(small: Callable) -> None:
    config = small("train.strategy=independent")
    model, optimizers, batches, stream = prepared(config)
    before = copy.deepcopy(model.counter.trunks["done"].state_dict())
    iteration(
        model, optimizers, SEPARATE[:1], batches[0], Watch(SEPARATE, 1, stream), GradientCosine()
    )
    after = model.counter.trunks["done"].state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_accumulated_batches_equal_one_joined_batch(small: Callable) -> None:
    """Three passes of 4, with images without objects among them, or one pass of 12."""
    weights = []
    for overrides in (("train.accumulate=3",), ("train.batch_size=12",)):
        model, optimizers, batches, stream = prepared(small(*overrides, "train.max_iterations=1"))
        assert len(batches) == 1
        valid = [b["coord"].targets["coord"].valid for b in batches[0]]
        assert sum(float(v.sum()) for v in valid) < 12
        use_sgd(optimizers)
        watch = Watch(SEPARATE, 1, stream)
        iteration(model, optimizers, SEPARATE, batches[0], watch, GradientCosine())
        weights.append(model.counter.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-6, rtol=0, msg=name)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.5, 0.0]),
    ],
)
def test_lr_schedules_by_hand(small: Callable, schedule: str, expected: list[float]) -> None:
    section = small(f"coord.lr_schedule={schedule}", "coord.warmup=2").coord
    factors = [lr_factor(section, step, 10) for step in (0, 1, 2, 6, 10)]
    assert factors == pytest.approx(expected)


def test_gradient_cosine_by_hand(small: Callable) -> None:
    model, optimizers, _, _ = prepared(small())
    trunk = list(model.counter.trunks["shared"].parameters())
    cosine = GradientCosine()
    for name, sign in (("coord", 1.0), ("done", -2.0)):
        for parameter in trunk:
            parameter.grad = torch.full_like(parameter, sign)
        cosine.see(optimizers[name])
    cosine.next_iteration()
    assert cosine.metrics()["train/grad_cosine"] == pytest.approx(-1.0, abs=1e-4)


def test_fewer_workers_than_may_be_take_smaller_steps(small: Callable) -> None:
    config = small("scale.num_workers=[1,4]", "coord.lr=0.01", "coord.warmup=0")
    counter = DualTaskCounter.from_config(config)
    one, all_four = (
        start(config, counter, BatchStream(config, counter.prompter, load_here, 0, ranks), CPU)[1]
        for ranks in (1, 4)
    )
    assert one.optimizers["coord"].lr == pytest.approx(0.01 / 2)
    assert all_four.optimizers["coord"].lr == pytest.approx(0.01)


def test_with_fewer_workers_the_schedule_goes_on_at_the_same_epoch(small: Callable) -> None:
    config = small("coord.lr_schedule=cosine", "coord.warmup=0", "train.epochs=4")
    counter = DualTaskCounter.from_config(config)
    of_four, of_one = (TaskOptimizer(counter, SEPARATE[0], config, steps) for steps in (10, 40))
    for _ in range(20):
        of_four.step()
    of_one.load_state_dict(of_four.state_dict())
    assert of_one.lr == pytest.approx(of_four.lr)
    assert of_one.lr == pytest.approx(config.coord.lr / 2), "half of a cosine"
