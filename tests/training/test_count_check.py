"""Closed-loop counts while training: due when asked for, and without any effect on training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from raydual.config_tree import Config
from raydual.counting.closed_loop import Counter
from raydual.data.images import decode_image
from raydual.data.schema import read_rows
from raydual.training.events import EpochResult
from raydual.training.launch import launch, resumed
from raydual.training.run_folder import LATEST
from raydual.training.trackers import epoch_lines
from tests.training.runs import history, run, weights
from tests.training.test_resume import interrupt_after


def without_counts(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if "count_mae" not in k} for line in lines]


def test_training_is_the_same_with_and_without(small: Callable) -> None:
    configs: list[Config] = [
        small(f"run.name=every{n}", f"train.count_every={n}", "train.epochs=2", "model.lora.r=4")
        for n in (0, 1)
    ]
    for config in configs:
        run(config)
    one, other = (history(config) for config in configs)
    assert without_counts(one) == without_counts(other)
    assert ["val/count_mae" in line for line in one + other] == [False, False, True, True]
    tensors = [weights(config, LATEST) for config in configs]
    assert all(torch.equal(tensors[0][k], tensors[1][k]) for k in tensors[0])


def test_it_is_the_mean_error_of_counting_the_images(small: Callable, dataset: str) -> None:
    config = small("train.count_every=1", "train.epochs=1")
    (result,) = run(config)
    counter = Counter.from_pretrained(f"{config.run.storage}/r/{LATEST}")
    rows = list(read_rows(dataset, "val"))
    cap = max(len(row.points) for row in rows) + 10
    errors = [
        abs(counter.count(decode_image(r.image), r.category, cap).count - len(r.points))
        for r in rows
    ]
    assert result.metrics["val/count_mae"] == pytest.approx(sum(errors) / len(rows))
    assert result.metrics["val/count_mae_best"] == result.metrics["val/count_mae"]


def test_only_when_it_is_due_and_the_best_survives_resumption(
    small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {2: 1.5, 4: 3.0}
    after = "raydual.training.count_check.count_samples"
    asked: list[int] = []

    def counts(counter: Counter, samples: list, max_objects: int) -> list:
        asked.append(max_objects)
        wrong = errors[2 * len(asked)]
        return [type("C", (), {"count": len(s.points) + wrong})() for s in samples]

    monkeypatch.setattr(after, counts)
    config = small("train.count_every=2", "train.epochs=5", "train.max_iterations=1")
    with pytest.raises(KeyboardInterrupt):
        launch(config, interrupt_after(3))
    run(resumed(f"{config.run.storage}/r", None, []))
    lines = history(config)
    assert [line.get("val/count_mae") for line in lines] == [None, 1.5, None, 3.0, None]
    assert [line.get("val/count_mae_best") for line in lines] == [None, 1.5, None, 1.5, None]
    assert asked == [15, 15]


def test_the_console_says_it_and_the_best(small: Callable) -> None:
    config = small()
    stalled = {"coord": 0, "done": 0}
    metrics = {"val/count_mae": 1.25, "val/count_mae_best": 0.5}
    shown = epoch_lines(EpochResult(3, metrics, [], stalled, False), config)
    assert "  Count - mae: 1.2500, best: 0.5000" in shown
    assert not [
        s for s in epoch_lines(EpochResult(3, {}, [], stalled, False), config) if "mae" in s
    ]
