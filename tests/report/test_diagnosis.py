"""Every verdict on a history made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from raydual.report.diagnosis import Diagnosis, course_of, diagnose

TASKS = ["coord", "done"]
FALLING = [1.0, 0.5, 0.3, 0.2, 0.18, 0.17]


def history(**losses: list[float]) -> list[dict[str, Any]]:
    """Return lines from val_coord, train_coord, ...; training losses equal those of validation."""
    lines = []
    for i in range(len(losses["val_coord"])):
        line: dict[str, Any] = {"epoch": i + 1}
        for task in TASKS:
            val = losses[f"val_{task}"]
            line[f"val/loss_{task}"] = val[i]
            line[f"train/loss_{task}"] = losses.get(f"train_{task}", val)[i]
        lines.append(line)
    return lines


def kinds(found: Diagnosis) -> list[tuple[str, str | None, int | None]]:
    return [(f.kind, f.task, f.since) for f in found.findings if f.kind != "improving"]


def test_healthy_when_both_fall() -> None:
    found = diagnose(history(val_coord=FALLING, val_done=FALLING), TASKS)
    assert found.headline == "Healthy: every task learns and none overfits"
    assert kinds(found) == [("healthy", "coord", None), ("healthy", "done", None)]
    assert [f.task for f in found.findings if f.kind == "improving"] == TASKS
    assert found.harder is None
    assert "about equally hard" in found.evidence


def test_overfitting_since_the_epoch_after_the_best() -> None:
    # best 0.2 in epoch 4; the median of the last three, 0.26, is 30 % above it
    val = [1.0, 0.5, 0.3, 0.2, 0.21, 0.24, 0.26, 0.29]
    train = [1.0, 0.5, 0.3, 0.2, 0.15, 0.12, 0.1, 0.08]
    steady = [1.0, 0.5, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2]
    found = diagnose(history(val_coord=val, train_coord=train, val_done=steady), TASKS)
    assert kinds(found) == [("overfitting", "coord", 5)]
    assert found.headline == "coord overfits since epoch 5"
    text = found.findings[0].text
    assert "(0.2 to 0.1)" in text
    assert "(0.2 to 0.26)" in text
    assert "epoch 4" in text


@pytest.mark.parametrize(
    ("val", "train"),
    [
        ([1.0, 0.2, 0.25, 0.26], [1.0, 0.3, 0.2, 0.1]),  # two epochs after the best one
        ([1.0, 0.2, 0.21, 0.21, 0.22], [1.0, 0.3, 0.2, 0.1, 0.1]),  # 5 % above it
        ([1.0, 0.2, 0.25, 0.26, 0.27], [1.0, 0.3, 0.3, 0.3, 0.3]),  # training does not fall
    ],
)
def test_not_overfitting(val: list[float], train: list[float]) -> None:
    found = diagnose(history(val_coord=val, train_coord=train, val_done=val), TASKS)
    assert "overfitting" not in {f.kind for f in found.findings}


def test_a_task_that_never_learned() -> None:
    # 0.69 to 0.65: 94 % is left
    flat = [0.69, 0.68, 0.66, 0.65, 0.66, 0.66]
    found = diagnose(history(val_coord=FALLING, val_done=flat), TASKS)
    assert kinds(found) == [("never_learned", "done", None)]
    assert "94 %" in found.findings[0].text
    assert "done.lr" in found.findings[0].text
    assert found.harder == "done"


def test_a_task_that_learned_the_training_images_only() -> None:
    flat, fell = [0.69, 0.68, 0.68, 0.68], [0.69, 0.6, 0.5, 0.4]
    found = diagnose(history(val_coord=FALLING[:4], val_done=flat, train_done=fell), TASKS)
    assert kinds(found) == [("never_learned", "done", None)]
    assert "does not carry over" in found.findings[0].text


def test_imbalance() -> None:
    # coord has 17 % left, done 60 %
    slow = [1.0, 0.9, 0.8, 0.7, 0.65, 0.6]
    found = diagnose(history(val_coord=FALLING, val_done=slow), TASKS)
    assert kinds(found) == [("imbalance", "done", None)]
    assert "17 %" in found.findings[0].text
    assert "60 %" in found.findings[0].text
    assert found.harder == "done"
    assert "by the loss that is left" in found.evidence


def test_the_slower_task_is_the_harder_one_where_both_get_as_far() -> None:
    # 90 % of the gain: 1 - 0.9 * 0.8 = 0.28; coord is below in epoch 2, done in epoch 5
    fast, slow = [1.0, 0.25, 0.22, 0.21, 0.2], [1.0, 0.8, 0.6, 0.4, 0.2]
    found = diagnose(history(val_coord=fast, val_done=slow), TASKS)
    assert found.harder == "done"
    assert "by the epochs it took" in found.evidence
    assert "in epoch 2" in found.evidence
    assert "in epoch 5" in found.evidence


def test_both_tasks_can_be_ill() -> None:
    val, train = [1.0, 0.2, 0.3, 0.3, 0.3], [1.0, 0.2, 0.1, 0.1, 0.1]
    flat = [1.0, 1.0, 1.0, 1.0, 1.0]
    found = diagnose(history(val_coord=val, train_coord=train, val_done=flat), TASKS)
    assert found.headline == "coord overfits since epoch 3; done never learned"
    assert found.harder == "done"
    assert found.evidence.count("90 % of its gain") == 1  # done has gained nothing


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_loss_that_is_no_number(value: float | None) -> None:
    lines = history(val_coord=FALLING, val_done=FALLING)
    for line in lines[3:]:
        line["val/loss_done"] = value
    found = diagnose(lines, TASKS)
    assert kinds(found) == [("not_finite", "done", 4)]
    assert found.headline == "done broke down in epoch 4"


def test_a_gap_of_numbers_is_left_out() -> None:
    lines = history(val_coord=FALLING, val_done=FALLING)
    lines[2]["val/loss_coord"] = math.nan
    course = course_of(lines, "coord")
    assert course is not None
    assert course.epochs == [1, 2, 4, 5, 6]
    assert diagnose(lines, TASKS).headline.startswith("Healthy")


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_too_early(epochs: int) -> None:
    found = diagnose(history(val_coord=FALLING, val_done=FALLING)[:epochs], TASKS)
    assert found.headline.startswith("Too early")
    assert not found.findings


def test_nothing_to_learn() -> None:
    found = diagnose(history(val_coord=[0.0] * 5, val_done=FALLING[:5]), TASKS)
    assert found.harder == "done"
    assert "overfitting" not in {f.kind for f in found.findings}
