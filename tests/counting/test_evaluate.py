"""A whole evaluation with Ray Data: the files, going on after an interruption, bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from raydual.cli import app
from raydual.config import with_values
from raydual.counting.closed_loop import Counter
from raydual.counting.evaluate import Evaluated, evaluate
from raydual.counting.evaluation import Evaluation
from raydual.counting.predictions import Predictor
from raydual.counting.subject import Subject
from raydual.data.batches import BatchStream, read_splits
from raydual.data.images import decode_image
from raydual.data.loading import Preparation, load_here
from raydual.data.schema import read_rows, write_dataset
from raydual.errors import CheckpointError, ConfigError, DataError, RaydualError
from raydual.model.counter import DualTaskCounter
from raydual.training.events import Note, Step
from raydual.training.loop import validate
from raydual.training.parallel import ParallelCounter
from raydual.training.trackers import ConsoleTracker

CAP = 6


@pytest.fixture
def val(cluster: None, run: Path, dataset: str, tmp_path: Path) -> Evaluation:
    """Return the evaluation of the 21 validation images: two parts."""
    return Evaluation(Subject.at(run), dataset, "val", str(tmp_path / "out"), max_objects=CAP)


def quiet(event: object) -> None: ...


@pytest.fixture(scope="session")
def evaluated(
    cluster: None, run: Path, dataset: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluated, Path, list[Step]]:
    """Return what the evaluation `val` finds, the folder with its results, and its steps."""
    out = tmp_path_factory.mktemp("evaluated")
    steps: list[Step] = []
    whole = Evaluation(Subject.at(run), dataset, "val", str(out), max_objects=CAP)
    found = evaluate(whole, lambda e: steps.append(e) if isinstance(e, Step) else None)
    return found, out, steps


def test_an_evaluation_leaves_figures_predictions_and_a_report(evaluated: tuple) -> None:
    found, out, steps = evaluated
    assert sorted(p.name for p in out.iterdir()) == [
        "evaluation.json", "predictions.parquet", "report.html",
    ]  # fmt: skip
    assert [(s.done, s.total) for s in steps] in ([(0, 21), (n, 21), (21, 21)] for n in (5, 16))
    figures = json.loads((out / "evaluation.json").read_text())
    assert {"count/mae", "count/rmse", "loc/f1@10px", "done/auroc"} <= set(figures)
    assert all(not isinstance(value, dict | list) for value in figures.values())
    assert (figures["split"], figures["epoch_coord"], figures["epoch_done"]) == ("val", 1, 2)
    assert found.figures.items() <= figures.items()
    errors = [abs(p.count - p.true_count) for p in found.predictions]
    assert figures["count/mae"] == pytest.approx(sum(errors) / 21)


def test_predictions_are_what_the_closed_loop_says(
    evaluated: tuple, run: Path, dataset: str
) -> None:
    rows = list(read_rows(dataset, "val"))
    table = pq.read_table(evaluated[1] / "predictions.parquet").to_pylist()
    assert [row["id"] for row in table] == [row.id for row in rows]
    counter = Counter.from_run(run)
    for row, said in zip(rows, table, strict=True):
        alone = counter.count(decode_image(row.image), row.category, CAP)
        points = [(point["x"], point["y"]) for point in said["points"]]
        assert points == [pytest.approx(point, abs=1e-3) for point in alone.points.tolist()]
        assert (said["count"], said["stopped"]) == (alone.count, alone.stopped)
        assert said["true_count"] == len(row.points)
        true = sorted((point["x"], point["y"]) for point in said["true_points"])
        assert true == [pytest.approx(point) for point in sorted(map(tuple, row.points.tolist()))]


def test_rows_of_one_id_are_told_apart(run: Path, dataset: str) -> None:
    """Files from others may hold an id twice."""
    (units, _) = read_splits(Counter.from_run(run).coord.config)
    samples = list(islice(load_here(units, Preparation(48, "reading_order")), 4))
    same = [replace(s, id="same") for s in samples]
    same[1] = replace(same[1], error="cannot be read")
    predictor = Predictor(Counter.from_run(run), CAP, 0)
    one, bad, *others = predictor.predict(same)
    assert (bad.error, bad.true_count) == ("cannot be read", 0)
    wanted = [samples[i] for i in (0, 2, 3)]
    assert [p.true_count for p in (one, *others)] == [len(s.points) for s in wanted]
    assert len({len(s.points) for s in wanted}) > 1


def test_teacher_forced_figures_are_those_of_validation(evaluated: tuple, run: Path) -> None:
    figures = evaluated[0].figures
    for task in ("coord", "done"):
        model = DualTaskCounter.from_pretrained(run / f"best_{task}_checkpoint")
        stream = BatchStream(model.config, model.prompter, load_here)
        wanted, _ = validate(ParallelCounter(model, model.device), stream)
        own = [name for name in wanted if name.startswith(f"val/loss_{task}")]
        own += ["val/px_median", "val/within_5px"] if task == "coord" else ["val/done_f1"]
        for name in own:
            teacher = figures[f"teacher_forced/{name.removeprefix('val/')}"]
            assert teacher == pytest.approx(wanted[name], rel=1e-4)
    assert figures["done/accuracy"] == pytest.approx(figures["teacher_forced/done_accuracy"])


def test_an_interrupted_evaluation_goes_on(val: Evaluation, evaluated: tuple) -> None:
    """The finished part is changed in between: what it says shows that it is not counted again."""

    def interrupt(event: object) -> None:
        if isinstance(event, Step) and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(val, interrupt)
    (part,) = Path(val.out).rglob("*.parquet")
    table = pq.read_table(part)
    told = table.schema.get_field_index("stopped")
    pq.write_table(table.set_column(told, "stopped", [["told"] * table.num_rows]), part)

    notes: list[str] = []
    resumed = evaluate(val, lambda e: notes.append(e.text) if isinstance(e, Note) else None)
    assert notes == [f"Going on: {table.num_rows} of 21 images are counted already"]
    assert sum(p.stopped == "told" for p in resumed.predictions) == table.num_rows
    assert not list(Path(val.out).rglob(".parts"))
    whole, figures = evaluated[0].figures, resumed.figures
    assert all(figures[k] == v for k, v in whole.items() if "stopped_by" not in k)

    notes.clear()
    assert evaluate(val, lambda e: notes.append(e.text)).figures == figures
    assert notes == ["All 21 images are counted already"]


def test_ctrl_c_says_that_what_was_counted_is_kept(
    val: Evaluation, run: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["evaluate", str(run), "--data", dataset, "--split", "val"]
    args += ["--out", val.out, "--max-objects", str(CAP)]

    def interrupt(tracker: ConsoleTracker, step: Step) -> None:
        if step.done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ConsoleTracker, "_show_step", interrupt)
        result = CliRunner().invoke(app, args)
    assert (result.exit_code, "give the same command to go on" in result.output) == (130, True)
    again = CliRunner().invoke(app, args)
    assert again.exit_code == 0
    assert re.search(r"Going on: \d+ of 21 images are counted already", again.output)


def test_other_settings_are_another_evaluation(val: Evaluation, run: Path, dataset: str) -> None:
    others = [
        replace(val, max_objects=2),
        replace(val, repeat_radius=1.0),
        replace(val, split="test"),
        replace(val, subject=Subject.at(run / "best_done_checkpoint")),
    ]
    assert len({e.fingerprint for e in [val, *others]}) == 5
    shutil.copytree(dataset, corrected := Path(val.out) / "corrected")
    copy = replace(val, data=str(corrected))
    before = copy.fingerprint
    os.utime(next((corrected / "val").glob("*.parquet")), (0, 0))  # written anew, to the same size
    assert replace(copy, max_objects=CAP).fingerprint != before
    assert replace(val, out="elsewhere").fingerprint == val.fingerprint


def test_one_checkpoint_folder_on_a_test_split_alone_with_an_image_that_cannot_be_read(
    cluster: None, run: Path, dataset: str, tmp_path: Path
) -> None:
    rows = list(read_rows(dataset, "test"))
    rows[0] = replace(rows[0], image=rows[0].image[:50])
    write_dataset(rows, tmp_path / "test-only", source="tests")
    folder, out = run / "best_coord_checkpoint", tmp_path / "results"
    args = ["--data", tmp_path / "test-only", "--out", out, "--max-objects", CAP]
    result = CliRunner().invoke(app, ["evaluate", str(folder), *map(str, args)])
    assert result.exit_code == 1
    assert f"{rows[0].id}: skipped, image cannot be decoded" in result.output
    assert f"The constants are those of the training split of {dataset}" in result.output

    counter = Counter.from_pretrained(folder)
    wanted = {r.id: counter.count(decode_image(r.image), r.category, CAP).count for r in rows[1:]}
    said = {row["id"]: row for row in pq.read_table(out / "predictions.parquet").to_pylist()}
    assert {name: said[name]["count"] for name in wanted} == wanted
    assert (said[rows[0].id]["count"], said[rows[0].id]["true_count"]) == (None, None)
    figures = json.loads((out / "evaluation.json").read_text())
    assert (figures["count/images"], figures["unreadable"]) == (5, 1)
    assert figures["baseline_from"] == dataset  # what the model was trained on
    trained = [len(row.points) for row in read_rows(dataset, "train")]
    assert figures["baseline_mean/count"] == pytest.approx(np.mean(trained))

    subject = Subject.at(folder)
    config = with_values(subject.config, {"data.path": "/nowhere"})
    lost = Evaluation(
        replace(subject, config=config), f"{tmp_path}/test-only", "test", str(out), CAP
    )
    notes: list[str] = []
    assert "baseline_mean/mae" not in evaluate(lost, lambda e: notes.append(e.text)).figures
    assert "there are no constants to compare with" in notes[-1]
    assert rows[0].id in (out / "report.html").read_text()


def test_images_without_objects_are_counted(
    cluster: None, run: Path, dataset: str, tmp_path: Path
) -> None:
    rows = [replace(row, points=np.empty((0, 2))) for row in read_rows(dataset, "test")][:3]
    write_dataset(rows, tmp_path / "none", source="tests")
    found = evaluate(
        Evaluation(Subject.at(run), f"{tmp_path}/none", "test", f"{tmp_path}/out", CAP), quiet
    )
    assert found.figures["count/images@0"] == 3
    assert found.figures["count/bias"] == np.mean([p.count for p in found.predictions])


def failing(evaluation: Evaluation) -> RaydualError:
    with pytest.raises(RaydualError) as error:
        evaluate(evaluation, quiet)
    assert "\n" not in str(error.value)
    return error.value


def test_what_cannot_work_is_one_line(val: Evaluation, dataset: str, tmp_path: Path) -> None:
    assert "nowhere" in str(failing(replace(val, data=str(tmp_path / "nowhere"))))
    assert "'validation'" in str(failing(replace(val, split="validation")))
    (tmp_path / "file").write_text("")
    occupied = failing(replace(val, out=str(tmp_path / "file")))
    assert isinstance(occupied, ConfigError)
    assert "--out" in str(occupied)
    with pytest.raises(CheckpointError, match="neither a run nor a checkpoint"):
        Subject.at(tmp_path)


def test_a_damaged_shard_is_one_line_through_ray(
    val: Evaluation, dataset: str, tmp_path: Path
) -> None:
    shutil.copytree(dataset, tmp_path / "cut")
    shard = next((tmp_path / "cut" / "val").glob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[2000:6000] = b"x" * 4000
    shard.write_bytes(content)
    error = failing(replace(val, data=str(tmp_path / "cut")))
    assert isinstance(error, DataError)
    assert "cannot be read" in str(error)
