"""The threshold of done that counts best: by hand, and stored where counting finds it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from typer.testing import CliRunner

from raydual.cli import app
from raydual.config import load
from raydual.counting import calibrate_run
from raydual.counting.calibration import best_thresholds
from raydual.counting.closed_loop import Counter
from raydual.counting.looks import PerLook
from raydual.counting.predictions import Prediction
from raydual.counting.subject import Subject
from raydual.counting.threshold import Thresholds
from raydual.data.images import decode_image
from raydual.data.schema import read_rows, write_dataset
from raydual.errors import CheckpointError, DataError
from raydual.model.counter import DualTaskCounter


def counted(true: int, done: list[float], count: int | None = None) -> Prediction:
    """Return an image whose count went on to the end of `done`, or to `count` marks."""
    marks = len(done) if count is None else count
    looks = list(range(1, marks + 1))
    points = np.zeros((true, 2)), np.zeros((marks, 2))
    return Prediction("a", "c", 9, 9, *points, done, "repeat", looks)


def test_a_threshold_by_hand() -> None:
    """Right at the third and the second step, where done is said above 0.3 and below 0.4.

    Moved by a quarter in its logit, 0.35 is outside of that: off by one in one of three images.
    """
    found = best_thresholds(
        [counted(2, [0.1, 0.2, 0.4, 0.9]), counted(1, [0.3, 0.45, 0.2]), counted(2, [0, 0, 0])], 4
    )
    assert found.threshold == pytest.approx(0.35)
    assert (found.mae, found.images) == (pytest.approx(1 / 3), 3)
    assert found.mae_before == pytest.approx((1 + 2 + 1) / 3)


def test_nothing_better_leaves_a_half() -> None:
    found = best_thresholds([counted(1, [0.1, 0.9]), counted(0, [0.95])], 2)
    assert (found.threshold, found.mae, found.mae_before) == (0.5, 0, 0)


def test_a_count_that_ended_by_a_repeated_mark_is_no_longer_than_its_marks() -> None:
    """Three steps were asked, two marks made: above the highest probability there are two."""
    assert best_thresholds([counted(2, [0.1, 0.2, 0.3], count=2)], 3).mae == 0


def of_cell(cell: float, errors: list[int]) -> list[Prediction]:
    """Return images of 20 objects, never done, counted this much too high."""
    one = counted(20, [0.1])
    points = [np.zeros((20 + error, 2)) for error in errors]
    return [replace(one, points=p, cell_threshold=cell) for p in points]


def test_a_cell_is_chosen_that_is_surely_better_than_the_usual_one() -> None:
    """Two are off by 3 less in each image: the one nearer to the usual one is taken."""
    errors = {0.2: [5, 4, 6, 5], 0.3: [4, 3, 5, 4], 0.4: [1, 0, 2, 1], 0.45: [1, 0, 2, 1]}
    found = best_thresholds([p for c, own in errors.items() for p in of_cell(c, own)], 60)
    assert (found.cell_threshold, found.mae, found.mae_before) == (0.4, 1, 4)
    assert (found.images, found.threshold) == (4, 0.5)


def test_where_images_say_little_the_usual_cell_stays() -> None:
    """Better by 0.5 in the mean, with a standard error of 1.03; then by 1.5, with one of 0.43."""
    images = [*of_cell(0.3, [2, 2, 2, 2]), *of_cell(0.2, [0, 5, 0, 1])]
    assert best_thresholds(images, 60).cell_threshold == 0.3
    surely = [*of_cell(0.3, [2, 2, 2, 2]), *of_cell(0.2, [0, 2, 0, 0])]
    assert best_thresholds(surely, 60).cell_threshold == 0.2


def test_thresholds_equal_counting_with_them() -> None:
    rng = np.random.default_rng(0)
    predictions = [counted(int(rng.integers(9)), rng.random(9).tolist()) for _ in range(40)]

    def mae(threshold: float, shift: float = 0) -> float:
        threshold = 1 / (1 + np.exp(-np.log(threshold / (1 - threshold)) - shift))
        errors = [
            abs(next((i for i, p in enumerate(one.done) if p > threshold), 9) - one.true_count)
            for one in predictions
        ]
        return float(np.mean(errors))

    def moved(threshold: float) -> float:
        return float(np.mean([mae(threshold, s) for s in (-0.25, -0.125, 0, 0.125, 0.25)]))

    found = best_thresholds(predictions, 9)
    assert found.mae == mae(found.threshold)
    assert found.mae_before == mae(0.5)
    steps = sorted({p for one in predictions for p in np.maximum.accumulate(one.done)})
    tried = [0.5, *((a + b) / 2 for a, b in pairwise(steps))]
    assert moved(found.threshold) == pytest.approx(min(moved(t) for t in tried))


def test_no_threshold_is_chosen_just_below_where_counts_do_not_end() -> None:
    """At 0.69 all three are right, a quarter of a logit above it the third goes on to 60.

    At 0.5, and so far to either side of it, the second and the third are off by one.
    """
    endless = [0.1, 0.65, *[0.7] * 58]
    dones = ([0.1, 0.2, 0.95], [0.1, 0.68, 0.95], endless)
    found = best_thresholds([counted(2, done) for done in dones], 60)
    assert (found.threshold, found.mae) == (0.5, pytest.approx(2 / 3))


@pytest.mark.parametrize("per_look", [1, "all"])
def test_a_calibrated_run_counts_with_its_thresholds(
    cluster: None,
    run: Path,
    dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    per_look: PerLook,
) -> None:
    own = tmp_path / "run"
    command = ["calibrate", str(own), "--data", dataset, "--per-look", str(per_look)]
    shutil.copytree(run, own)
    with monkeypatch.context() as patched:  # Ctrl-C at its very end costs no count
        patched.setattr(Subject, "store", Mock(side_effect=KeyboardInterrupt))
        interrupted = CliRunner().invoke(app, command)
    assert (interrupted.exit_code, "are kept" in interrupted.output) == (130, True)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "Going on: 21 of 21 images are counted already" in result.output
    stored = json.loads((own / "calibration" / "calibration.json").read_text())
    assert [p.name for p in (own / "calibration").iterdir()] == ["calibration.json"]
    assert (stored["split"], stored["images"]) == ("val", 21)
    assert f"Done above {stored['threshold']:.4g}" in result.output
    assert f": MAE {stored['mae']:.3f} on 21" in result.output

    counter = Counter.from_run(own, per_look=per_look)
    thresholds = Subject.at(own, per_look).thresholds
    assert counter.threshold == thresholds.done == stored["threshold"]
    assert counter.cell_threshold == thresholds.cell == stored["cell_threshold"]
    other: PerLook = "all" if per_look == 1 else 1
    assert Subject.at(own, other).thresholds == Thresholds()
    assert Subject.at(own).digest != Subject.at(run).digest
    rows = list(read_rows(dataset, "val"))
    cap = 2 * max(len(row.points) for row in rows) + 10
    assert stored["max_objects"] == cap
    assert f"counted to {cap} at the most" in result.output
    usual = Thresholds()
    for found, mae in ((thresholds, stored["mae"]), (usual, stored["mae_before"])):
        counting = replace(counter, threshold=found.done, cell_threshold=found.cell)
        counts = [counting.count(decode_image(r.image), r.category, cap).count for r in rows]
        errors = [abs(n - len(r.points)) for n, r in zip(counts, rows, strict=True)]
        assert np.mean(errors) == pytest.approx(mae)


def test_a_training_finds_its_thresholds_in_the_end(
    small: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_run, "MOST_IMAGES", 3)
    config = small("train.calibrate=true", "train.epochs=1", "coord.match=all")
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    result = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "c.yaml")])
    assert result.exit_code == 0, result.output
    folder = Path(config.run.storage) / "r"
    found = Subject.at(folder).thresholds
    said = f"Done above {found.done:.4g}, cells above {found.cell:.4g}: MAE "
    assert said in result.output
    manifest = json.loads((folder / "best_done_checkpoint" / "raydual.json").read_text())
    assert list(manifest["look_thresholds"].values()) == [{"done": found.done, "cell": found.cell}]
    assert json.loads((folder / "calibration" / "calibration.json").read_text())["images"] == 3


def set_threshold(folder: Path, threshold: float) -> None:
    Subject.at(folder, 1).store(Thresholds(threshold))
    assert Subject.at(folder, 1).thresholds.done == threshold


def test_a_threshold_is_of_the_weights_it_was_found_with(run: Path, tmp_path: Path) -> None:
    for changed in ("coord", "done"):
        own = tmp_path / changed
        shutil.copytree(run, own)
        assert Subject.at(own, 1).note() is None
        set_threshold(own, 0.25)
        assert "above 0.25, as calibrated" in str(Subject.at(own, 1).note())
        config = load(None, ["data.image_size=48", "seed=9"])
        shutil.rmtree(own / f"best_{changed}_checkpoint")
        model = DualTaskCounter.from_config(config)
        model.save_pretrained(own / f"best_{changed}_checkpoint")
        (own / "calibration").mkdir()
        (own / "calibration" / "calibration.json").write_text("{}")
        assert (
            Subject.at(own, 1).thresholds.done == Counter.from_run(own, per_look=1).threshold == 0.5
        )
        assert "calibrated for other weights" in str(Subject.at(own).note())


def test_a_threshold_is_of_the_marks_a_look_it_was_found_with(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(run / "best_done_checkpoint", folder)
    ways: dict[PerLook, Thresholds] = {
        2: Thresholds(0.7, 0.2), 3: Thresholds(0.6, 0.4), "all": Thresholds(0.8, 0.5)
    }  # fmt: skip
    for most, found in ways.items():
        Subject.at(folder, most).store(found)
    assert {most: Subject.at(folder, most).thresholds for most in ways} == ways
    assert Subject.at(folder, 4).thresholds == Thresholds()
    assert "another --per-look" in str(Subject.at(folder, 4).note())


def test_a_checkpoint_alone_has_its_own_threshold(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(run / "best_done_checkpoint", folder)
    set_threshold(folder, 0.25)
    assert Counter.from_pretrained(folder, per_look=1).threshold == 0.25
    assert Subject.at(folder).beside("calibration") == f"{folder}-calibration"


def test_a_checkpoint_that_is_calibrated_leaves_its_run_as_it_was(
    run: Path, tmp_path: Path
) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own)
    model = DualTaskCounter.from_config(load(None, ["data.image_size=48", "seed=9"]))
    shutil.rmtree(own / "best_coord_checkpoint")
    model.save_pretrained(own / "best_coord_checkpoint")
    set_threshold(own, 0.25)
    set_threshold(own / "best_done_checkpoint", 0.75)
    assert Subject.at(own, 1).thresholds.done == Counter.from_run(own, per_look=1).threshold == 0.25


def test_images_without_objects_do_not_say_when_a_count_ends(
    run: Path, dataset: str, tmp_path: Path
) -> None:
    """Which is said before any is counted: no cluster is needed."""
    empty = [replace(row, points=np.zeros((0, 2))) for row in read_rows(dataset, "val")]
    write_dataset(empty, tmp_path / "empty", source="tests")
    own = tmp_path / "run"
    shutil.copytree(run, own)
    result = CliRunner().invoke(app, ["calibrate", str(own), "--data", str(tmp_path / "empty")])
    assert isinstance(result.exception, DataError)
    assert "no image of the val split" in str(result.exception)
    assert Subject.at(own).note() is None


@pytest.mark.parametrize(
    "wrong", ["high", 0.5, {"a": "high"}, {"a": 1.5}, {"a": None}, {"a": float("nan")}]
)
@pytest.mark.parametrize(("key", "per_look"), [("done_thresholds", 1), ("look_thresholds", 2)])
def test_a_threshold_that_is_none_is_one_line(
    run: Path, tmp_path: Path, wrong: object, key: str, per_look: int
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(run / "best_done_checkpoint", folder)
    manifest = json.loads((folder / "raydual.json").read_text())
    (folder / "raydual.json").write_text(json.dumps(manifest | {key: wrong}))
    for read in (Counter.from_pretrained, Subject.at):
        with pytest.raises(CheckpointError, match="expected 0 to 1"):
            read(folder, per_look=per_look)
