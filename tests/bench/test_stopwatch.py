"""From the stages that a loop names to a split that adds up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydual.bench.stopwatch import Stopwatch, figures, phase

STAGES = {
    "waiting for data": 0.010,
    "copying to the device": 0.002,
    "agreement on the batch": 0.001,
    "forward pass of coord": 0.020,
    "backward pass of coord": 0.040,
    "gradients of coord": 0.001,
    "clipping of coord": 0.003,
    "step of coord": 0.004,
    "figures": 0.005,
}


def record(epochs: int = 3, iterations: int = 2) -> dict:
    """A training whose stages take what STAGES says, thrice as long in its last epoch."""
    marks, now = [(0.0, "making the model")], 10.0
    for epoch in range(1, epochs + 1):
        for iteration in range(1, iterations + 1):
            for stage, seconds in STAGES.items():
                marks.append((now, f"epoch {epoch}, iteration {iteration}, {stage}"))
                now += seconds * (3 if epoch == epochs else 1)
        marks.append((now, f"epoch {epoch}, iteration {iterations + 1}, waiting for data"))
        marks.append((now, f"validation after epoch {epoch}"))
        marks.append((now + 1.5, f"saving after epoch {epoch}"))
        now += 2.0
    peaks = {"host_before_gib": 1.0, "host_peak_gib": 1.25, "device_peak_gib": 0.0}
    return {"marks": marks, "clock": 100.0, **peaks}


def test_the_split_adds_up_and_only_later_epochs_count() -> None:
    found = figures(record(), started=105.0, images=8, device="cpu")
    whole = 1000 * sum(STAGES.values())
    assert found["ms_iteration"] == pytest.approx(2 * whole)
    assert sum(found["ms"].values()) == pytest.approx(found["ms_iteration"])
    assert found["iterations_per_s"] == pytest.approx(1000 / (2 * whole))
    assert found["images_per_s"] == pytest.approx(8 * found["iterations_per_s"])
    assert found["ms"]["coord backward"] == pytest.approx(80)
    assert found["ms"]["rest"] == pytest.approx(2 * 7)
    assert found["start_up_s"] == pytest.approx(5.01)
    assert found["first_batch_s"] == pytest.approx(0.02)
    assert found["validation_s"] == pytest.approx(1.5)
    assert found["saving_s"] == pytest.approx(0.5)
    assert found["host_growth_gib"] == pytest.approx(0.25)


def test_on_a_gpu_the_split_is_of_the_last_epoch_and_the_rate_of_those_before() -> None:
    found = figures(record(), started=0.0, images=8, device="cuda")
    whole = 1000 * sum(STAGES.values())
    assert found["ms_iteration"] == pytest.approx(3 * whole)
    assert found["iterations_per_s"] == pytest.approx(1000 / whole)


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("epoch 2, iteration 7, forward pass of coord", "coord forward"),
        ("epoch 2, iteration 7, clipping of done", "done clip"),
        ("epoch 2, iteration 7, step of mixed", "mixed step"),
        ("epoch 2, iteration 7, processor of done", "processor"),
        ("epoch 2, iteration 7, waiting for data", "waiting for data"),
        ("epoch 2, iteration 7, gradients of done", "rest"),
    ],
)
def test_phases(stage: str, name: str) -> None:
    assert phase(stage) == name


def test_a_stopwatch_writes_once_the_last_epoch_is_to_be_saved(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    watch = Stopwatch(file, 2, "cpu")
    for epoch in (1, 2):
        assert not file.exists()
        watch(f"epoch {epoch}, iteration 1, waiting for data")
        watch(f"saving after epoch {epoch}")
    marks = json.loads(file.read_text())["marks"]
    assert [stage for _, stage in marks][::3] == [
        "epoch 1, iteration 1, waiting for data", "saving after epoch 2",
    ]  # fmt: skip
