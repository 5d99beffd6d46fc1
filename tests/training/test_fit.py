"""The loop in one process: stopping, bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers.models.bit.modeling_bit import BitModel

from raydual.data.batches import BatchStream
from raydual.data.schema import read_rows, write_dataset
from raydual.errors import CheckpointError, ConfigError, DataError, TrainingError
from raydual.model.counter import DualTaskCounter
from raydual.training import loop
from raydual.training.launch import resumed
from raydual.training.parallel import ParallelCounter
from tests.training.runs import TIMES, history, run, weights


@pytest.mark.parametrize("strategy", ["dual", "mixed", "independent"])
def test_a_run_leaves_what_the_design_promises(small: Callable, strategy: str) -> None:
    config = small(f"train.strategy={strategy}")
    assert [r.epoch for r in run(config)] == [1, 2]
    folder = Path(config.run.storage) / "r"
    for name in ("best_coord_checkpoint", "best_done_checkpoint", "latest_checkpoint"):
        assert (folder / name / "raydual.json").is_file()
    assert (folder / "samples" / "epoch_0002.png").is_file()
    assert (folder / "config.yaml").is_file()
    lines = history(config)
    assert [line["epoch"] for line in lines] == [1, 2]
    wanted = {f"{s}/loss_{n}" for s in ("train", "val") for n in ("coord", "x", "y", "done")}
    wanted |= {"val/px_median", "val/px_mean", "val/within_5px", "val/done_accuracy"}
    wanted |= {"val/done_accuracy_natural", "val/done_f1"}
    assert wanted <= set(lines[-1])
    assert ("train/grad_cosine" in lines[-1]) == (strategy == "dual")


@pytest.mark.parametrize(("stop", "epochs"), [("any", 3), ("all", 5)])
def test_patience_ends_a_run_when_any_or_all_tasks_have_stalled(
    small: Callable, monkeypatch: pytest.MonkeyPatch, stop: str, epochs: int
) -> None:
    """coord never improves after epoch 1 and has patience 2; done has patience 4."""
    monkeypatch.setattr(
        "raydual.training.loop.validate",
        lambda model, stream: ({"val/loss_coord": 1.0, "val/loss_done": 1.0}, []),
    )
    config = small(
        f"train.stop={stop}", "train.epochs=9", "coord.patience=2", "done.patience=4",
        "train.max_iterations=1",
    )  # fmt: skip
    results = run(config)
    assert len(results) == epochs
    assert [r.ended for r in results] == [False] * (epochs - 1) + [True]
    again = resumed(f"{config.run.storage}/r", None, [])
    assert run(again) == []


def test_the_next_epoch_is_read_from_the_middle_of_this_one(
    small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small epochs would wait for their reading to begin; what is not needed is closed."""
    happened: list[Any] = []
    started: list[Any] = []
    train, iteration = BatchStream.train, loop.iteration

    def reading(self: BatchStream, epoch: int, *legs: Any) -> Any:
        happened.append(f"reads {epoch}")
        started.append(train(self, epoch, *legs))
        return started[-1]

    def stepping(*args: Any) -> Any:
        happened.append("step")
        return iteration(*args)

    monkeypatch.setattr(BatchStream, "train", reading)
    monkeypatch.setattr(loop, "iteration", stepping)
    monkeypatch.setattr(
        loop, "validate", lambda *_: ({"val/loss_coord": 1.0, "val/loss_done": 1.0}, [])
    )
    own = ("train.epochs=4", "coord.patience=1", "done.patience=1", "train.max_iterations=4")
    assert len(run(small(*own))) == 2
    step = "step"
    assert happened == [
        "reads 1", step, step, "reads 2", step, step,
        step, step, "reads 3", step, step,
    ]  # fmt: skip
    assert not any(batches._thread.is_alive() for batches in started)


@pytest.mark.parametrize(
    ("done", "seconds", "near"),
    [(0, 0.0, False), (49, 4.9, False), (50, 5.0, True), (50, 50.0, False), (81, 81.0, True)],
)
def test_the_next_epoch_of_long_ones_is_read_shortly_before_their_end(
    done: int, seconds: float, near: bool
) -> None:
    """Of 100 iterations, the middle at the most, and then 20 seconds before the end."""
    progress: Any = SimpleNamespace(done=done, iterations=100, seconds=seconds)
    assert loop._nears_its_end(progress) == near


def test_a_loss_that_is_not_finite_names_task_epoch_and_iteration(small: Callable) -> None:
    config = small("train.epochs=1")
    run(config)
    before = weights(config, "latest_checkpoint")
    broken = resumed(f"{config.run.storage}/r", None, ["train.epochs=2", "done.lr=1e30"])
    with pytest.raises(TrainingError, match=r"loss_(coord|done) .*epoch 2, iteration \d") as error:
        run(broken)
    assert "\n" not in str(error.value)
    after = weights(config, "latest_checkpoint")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_weights_that_diverge_in_the_last_step_are_not_saved(small: Callable) -> None:
    config = small("train.epochs=1")
    run(config)
    before = weights(config, "latest_checkpoint")
    own = ["train.epochs=2", "train.max_iterations=1", "done.lr=1e38", "done.warmup=0"]
    own += ["done.lr_schedule=constant"]
    with pytest.raises(TrainingError, match=r"val/loss_.* is not finite after epoch 2"):
        run(resumed(f"{config.run.storage}/r", None, own))
    after = weights(config, "latest_checkpoint")
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert [line["epoch"] for line in history(config)] == [1]


@pytest.mark.parametrize(
    "override", ["model.coord_head=mlp", "train.strategy=mixed", "data.image_size=60"]
)
def test_another_architecture_cannot_be_resumed(small: Callable, override: str) -> None:
    config = small("train.epochs=1")
    run(config)
    key = override.split("=")[0]
    with pytest.raises(ConfigError, match=f"^{key}=.* cannot go on"):
        run(resumed(f"{config.run.storage}/r", None, [override]))


def test_a_run_that_failed_before_its_first_checkpoint_can_start_over(small: Callable) -> None:
    with pytest.raises(TrainingError):
        run(small("coord.lr=1e30", "coord.warmup=0"))
    assert [r.epoch for r in run(small())] == [1, 2]


def test_a_number_can_be_a_name(small: Callable) -> None:
    config = small("run.name='2024'", "train.epochs=1")
    run(config)
    assert resumed(f"{config.run.storage}/2024", None, []).run.name == "2024"


def test_bfloat16_with_adapters_trains(small: Callable) -> None:
    """Arithmetic in bfloat16 on a frozen bfloat16 base; losses stay float32 numbers."""
    (result,) = run(small("model.dtype=bfloat16", "model.lora.r=4", "train.epochs=1"))
    assert result.improved == ["coord", "done"]


def test_a_frozen_tower_runs_once_an_iteration_and_changes_no_figure(
    small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two epochs of two iterations, and their validations; full training runs it every pass."""
    towers: list[int] = []
    forward = BitModel.forward

    def counted(self: BitModel, pixels: torch.Tensor, **options: Any) -> Any:
        if pixels.device.type != "meta":
            towers.append(len(pixels))
        return forward(self, pixels, **options)

    monkeypatch.setattr(BitModel, "forward", counted)
    own = ("model.lora.r=4", "train.max_iterations=2", "train.max_val_batches=1", "log.images=0")
    once = small("run.name=once", *own)
    run(once)
    assert len(towers) == 2 * (2 + 1)
    monkeypatch.setattr(ParallelCounter, "tower_is_frozen", False)
    towers.clear()
    twice = small("run.name=twice", *own)
    run(twice)
    assert len(towers) == 2 * (2 * 2 + 2)
    for one, two in zip(history(once), history(twice), strict=True):
        names = one.keys() - TIMES
        assert {n: one[n] for n in names} == pytest.approx({n: two[n] for n in names}, rel=1e-4)


@pytest.mark.parametrize(
    ("own", "may"),
    [
        ("train.accumulate=1", True),
        ("train.accumulate=2", False),
        ("model.gradient_checkpointing=true", False),
        ("model.compile=false", False),
        ("model.lora.r=0", False),
    ],
)
def test_graphs_are_for_passes_that_only_compute(small: Callable, own: str, may: bool) -> None:
    config = small("model.lora.r=4", own)
    model = ParallelCounter(DualTaskCounter.from_config(config), torch.device("cpu"))
    assert model._may_graph() == may


def test_adapters_make_no_float32_copies_under_autocast(
    small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: set[torch.dtype] = set()
    linear = torch.nn.functional.linear

    def spied(x: torch.Tensor, weight: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if weight.shape[0] == 3:
            given.add(x.dtype)
        return linear(x, weight, *rest)

    monkeypatch.setattr(torch.nn.functional, "linear", spied)
    run(small("model.dtype=bfloat16", "model.lora.r=3", "train.max_iterations=1", "train.epochs=1"))
    assert given == {torch.bfloat16}


def corrupted(dataset: str, out: Path, rows: int, split: str = "train") -> str:
    """Copy a dataset, with the images of the first rows of a split cut short."""
    left = rows
    copied = []
    for row in read_rows(dataset):
        image = row.image
        if row.split == split and left:
            image, left = image[: len(image) // 3], left - 1
        copied.append(type(row)(**{**row.__dict__, "image": image}))
    write_dataset(copied, out, source="tests")
    return str(out)


def test_a_corrupt_image_is_skipped_counted_and_named(
    small: Callable, dataset: str, tmp_path: Path
) -> None:
    path = corrupted(dataset, tmp_path / "bad", 2)
    config = small(
        f"data.path={path}", "data.max_bad_fraction=0.05", "train.max_iterations=99",
        "train.epochs=1",
    )  # fmt: skip
    (result,) = run(config)
    assert len(result.bad_rows) == 2
    ids = {row.id for row in read_rows(path, "train")}
    assert {row for row, _ in result.bad_rows} <= ids
    assert result.metrics["train/bad_rows"] == 2


def test_too_many_corrupt_images_fail_the_run(
    small: Callable, dataset: str, tmp_path: Path
) -> None:
    path = corrupted(dataset, tmp_path / "bad", 2)
    with pytest.raises(TrainingError, match=r"2 of 48 .*max_bad_fraction"):
        run(small(f"data.path={path}", "train.max_iterations=99"))


def test_too_many_corrupt_validation_images_fail_the_run(
    small: Callable, dataset: str, tmp_path: Path
) -> None:
    path = corrupted(dataset, tmp_path / "bad", 2, "val")
    with pytest.raises(TrainingError, match=r"2 of 21 images of validation .*max_bad_fraction"):
        run(small(f"data.path={path}"))


def test_a_damaged_shard_is_one_line(small: Callable, dataset: str, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "cut")
    shard = next((tmp_path / "cut" / "train").glob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[2000:6000] = b"x" * 4000
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard .*cannot be read"):
        run(small(f"data.path={tmp_path / 'cut'}", "train.max_iterations=99"))
    shard.write_bytes(content[:5000])
    with pytest.raises(DataError, match=r"shard .*cannot be read"):
        run(small(f"data.path={tmp_path / 'cut'}", "run.name=again"))


def test_a_run_is_not_overwritten(small: Callable) -> None:
    run(small("train.epochs=1"))
    with pytest.raises(ConfigError, match="--resume"):
        run(small())


def test_resuming_nothing() -> None:
    with pytest.raises(CheckpointError, match="latest_checkpoint"):
        resumed("nowhere/run", None, [])


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("data.category=pear", DataError, "pear"),
        ("data.path=nowhere", DataError, "nowhere"),
        ("data.max_objects=0", DataError, "no image of the train split has an object"),
        ("data.min_objects=99", DataError, "min_objects=99"),
        ("data.image_size=50", ConfigError, "48"),
        ("model.trunk=./no-such-folder", ConfigError, "no-such-folder"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    small: Callable, override: str, error: type[Exception], words: str
) -> None:
    config = small(override)
    with pytest.raises(error, match=words) as raised:
        run(config)
    assert "\n" not in str(raised.value)
    assert not (Path(config.run.storage) / "r" / "latest_checkpoint").exists()


def test_stored_datasets_are_plain_parquet(dataset: str) -> None:
    shard = next(Path(dataset).glob("train/*.parquet"))
    assert pq.read_schema(shard).names == [
        "id", "split", "category", "image", "width", "height", "points",
    ]  # fmt: skip
