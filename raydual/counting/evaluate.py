"""Count a split of a dataset with a pool of Ray Data actors, and measure the result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import pickle
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.exceptions
import torch

from raydual.counting.calibration import CELLS, Calibrated, best_thresholds
from raydual.counting.evaluation import FIGURES_FILE, REPORT_FILE, Evaluation
from raydual.counting.page import page
from raydual.counting.parts import Parts
from raydual.counting.predictions import SCHEMA, Prediction, Predictor, from_table, to_table
from raydual.counting.subject import CALIBRATION_FILE, Subject
from raydual.counting.summary import Figures, summarise, true_counts
from raydual.data.loading import Preparation, load_unit
from raydual.data.plan import Unit, num_rows
from raydual.errors import DataError, EvaluationError, RaydualError
from raydual.training.cluster import connected, executors_ended, quiet_core
from raydual.training.count_check import MARGIN
from raydual.training.events import Note, OnEvent, Step

NUMBER, FAILURE = "number", "failure"
"""Columns that an actor adds to its predictions: of which part they are; why there are none."""


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found: the flat figures, and the predictions in the dataset's order."""

    figures: Figures
    predictions: list[Prediction]


def evaluate(evaluation: Evaluation, on_event: OnEvent) -> Evaluated:
    """Count what is not counted yet, and write the figures, the predictions and the report.

    Raises:
        CheckpointError, DataError, ConfigError: the model, the dataset or `out` cannot be used.
        EvaluationError: the counting failed; what was finished is kept.
    """
    parts = Parts(evaluation)
    table = evaluation.read_predictions()
    if table is None:
        table = _count(evaluation, parts, on_event)
        evaluation.write_predictions(table)
    else:
        on_event(Note(f"All {table.num_rows} images are counted already"))
    parts.remove()
    predictions, good = _readable(table, evaluation)
    subject = evaluation.subject
    source, baseline = _train_counts(evaluation)
    if source is None:
        on_event(Note("No training split was found, so there are no constants to compare with"))
    elif source != evaluation.data:
        on_event(Note(f"The constants are those of the training split of {source}"))
    figures = summarise(good, baseline, subject.thresholds.done)
    about = evaluation.about() | {"unreadable": len(predictions) - len(good)}
    about["baseline_from"] = source
    content = json.dumps(about | figures, indent=1, allow_nan=False) + "\n"
    evaluation.write(FIGURES_FILE, content.encode())
    evaluation.write(REPORT_FILE, page(evaluation, figures, predictions).encode())
    return Evaluated(figures, predictions)


def _train_counts(evaluation: Evaluation) -> tuple[str | None, np.ndarray | None]:
    """Return the numbers of objects in a training split, and the dataset it is of.

    That of the dataset which is evaluated, or else that of the one which was trained on.
    """
    config = evaluation.subject.config
    for path in (evaluation.data, config.data.path):
        with contextlib.suppress(DataError):
            counts = true_counts(path, "train", config.data.category)
            if counts is not None:
                return path, counts
    return None, None


def calibrate(
    evaluation: Evaluation, on_event: OnEvent, here: bool = False
) -> tuple[Calibrated, list[Prediction]]:
    """Find the thresholds that count best, and store them with the done task's checkpoint.

    Each image is counted as if it were never done, to twice the most objects of the split and a few
    more: that tells what every threshold of done would have counted. Where a look marks many, that
    is done for each of several thresholds of a cell. `max_objects` is not looked at. Writes
    calibration.json into `out`. Returns the images that could not be read, too.

    here: count in this process, without Ray.

    Raises:
        as `evaluate`.
    """
    subject = evaluation.subject
    counts = true_counts(evaluation.data, evaluation.split, subject.config.data.category)
    if counts is not None and not counts.any():
        raise DataError(
            f"no image of the {evaluation.split} split of {evaluation.data} has an object, so that "
            "it says nothing of when a count should end; take another --split or --data"
        )
    most = 0 if counts is None else int(counts.max())
    endless = replace(
        evaluation,
        subject=replace(subject, thresholds=replace(subject.thresholds, done=1.0)),
        max_objects=2 * most + MARGIN,
        cells=CELLS if subject.most > 1 else (),
    )
    parts = Parts(endless)
    predictions, good = _readable(_count(endless, parts, on_event, here), endless)
    found = best_thresholds(good, endless.max_objects)
    about = evaluation.about() | dataclasses.asdict(found)
    evaluation.write(CALIBRATION_FILE, (json.dumps(about, indent=1) + "\n").encode())
    subject.store(found.thresholds)
    parts.remove()
    return found, [p for p in predictions if p.error is not None]


def _readable(table: pa.Table, evaluation: Evaluation) -> tuple[list[Prediction], list[Prediction]]:
    """Return all predictions, and those of images that could be read."""
    predictions = from_table(table)
    good = [p for p in predictions if p.error is None]
    if not good:
        raise DataError(
            f"no image of the {evaluation.split} split of {evaluation.data} can be read; "
            "see `raydual data check`"
        )
    return predictions, good


def _count(evaluation: Evaluation, parts: Parts, on_event: OnEvent, here: bool = False) -> pa.Table:
    """Count the parts that are not finished, storing each as soon as it is; return all."""
    parts.begin()
    finished = parts.finished()
    if finished:
        at = _progress(evaluation, finished)
        on_event(Note(f"Going on: {at.done} of {at.total} images are counted already"))
    if len(finished) == len(evaluation.parts):
        return parts.read()
    if here:
        _run_here(evaluation, parts, finished, on_event)
        return parts.read()
    with connected(on_event):
        try:
            with quiet_core(), executors_ended():
                _run(evaluation, parts, finished, on_event)
        except ray.exceptions.RayError as error:
            last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
            raise EvaluationError(
                f"counting failed with {len(finished)} of {len(evaluation.parts)} parts finished: "
                f"{last}; the same command goes on from there"
            ) from error
    return parts.read()


def _run_here(evaluation: Evaluation, parts: Parts, finished: set[int], on_event: OnEvent) -> None:
    """Count what is not finished in this process, and add it there."""
    predictor = None
    for number, unit in enumerate(evaluation.parts):
        if number in finished:
            continue
        if predictor is None:
            predictor = _predictor(evaluation, "cpu")
        on_event(_progress(evaluation, finished))
        parts.write(number, _predicted(evaluation.subject, predictor, unit))
        finished.add(number)
    on_event(_progress(evaluation, finished))


def _predictor(evaluation: Evaluation, device: str) -> Predictor:
    counter = evaluation.subject.load(device)
    return Predictor(counter, evaluation.max_objects, evaluation.repeat_radius, evaluation.cells)


def _predicted(subject: Subject, predictor: Predictor, unit: Unit) -> pa.Table:
    data = subject.config.data
    samples = load_unit(unit, Preparation(data.image_size, data.order))
    return to_table(predictor.predict(samples))


def _run(evaluation: Evaluation, parts: Parts, finished: set[int], on_event: OnEvent) -> None:
    """Have a pool of actors count what is not finished, and add it there.

    One actor a GPU where the cluster has any, else one a CPU.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    left = [
        {NUMBER: number, **dataclasses.asdict(unit)}
        for number, unit in enumerate(evaluation.parts)
        if number not in finished
    ]
    dataset = ray.data.from_items(left, override_num_blocks=len(left)).map_batches(
        _Actor,
        fn_constructor_args=(evaluation,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=max(1, min(gpus or cpus, len(left)))
        ),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    dataset.context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    on_event(_progress(evaluation, finished))
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        number, failure = (table[name][0].as_py() for name in (NUMBER, FAILURE))
        if failure is not None:
            raise pickle.loads(failure)  # noqa: S301 - of our own actor, from its memory
        parts.write(number, table.drop_columns([NUMBER, FAILURE]))
        finished.add(number)
        on_event(_progress(evaluation, finished))


def _progress(evaluation: Evaluation, finished: set[int]) -> Step:
    done = num_rows([evaluation.parts[number] for number in finished])
    return Step("Counting", done, num_rows(evaluation.parts))


class _Actor:
    """One model of the pool, loaded with its first part."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation

    @cached_property
    def _predictor(self) -> Predictor:
        on_gpu = torch.cuda.is_available()
        if not on_gpu:
            torch.set_num_threads(1)  # a CPU each
        return _predictor(self._evaluation, "cuda" if on_gpu else "cpu")

    def __call__(self, part: pa.Table) -> pa.Table:
        (row,) = part.to_pylist()
        number = row.pop(NUMBER)
        try:
            table = _predicted(self._evaluation.subject, self._predictor, Unit(**row))
            failure = None
        except RaydualError as error:  # Ray Data would hand on its text alone
            table, failure = pa.Table.from_pylist([{}], schema=SCHEMA), pickle.dumps(error)
        rows = table.num_rows
        table = table.append_column(NUMBER, pa.array([number] * rows, pa.int64()))
        return table.append_column(FAILURE, pa.array([failure] * rows, pa.binary()))
