"""What the model says of an image, closed loop and teacher-forced, and how that is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raydual.counting.closed_loop import Counter
from raydual.counting.samples import count_samples
from raydual.data.examples import VAL_EPOCH, collate
from raydual.data.loading import Sample
from raydual.data.ordering import to_reference
from raydual.tasks import COORD, DONE, SEPARATE, Judgement
from raydual.training.parallel import ParallelCounter

_POINTS = pa.list_(pa.struct([("x", pa.float64()), ("y", pa.float64())]))
_FIGURE = pa.struct(
    [
        ("name", pa.string()),
        ("value", pa.float64()),
        ("weight", pa.float64()),
        ("median", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("category", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("true_count", pa.int32()),
        ("count", pa.int32()),
        ("true_points", _POINTS),
        ("points", _POINTS),
        ("done", pa.list_(pa.float64())),
        ("stopped", pa.string()),
        ("looks", pa.list_(pa.int32())),
        ("sure", pa.list_(pa.float64())),
        ("cell_threshold", pa.float64()),
        ("shown_marks", pa.int32()),
        ("shown_done", pa.float64()),
        ("figures", pa.list_(_FIGURE)),
        ("error", pa.string()),
    ]
)


class Figure(NamedTuple):
    """What a criterion says of one example: averaged over images by weight, or their median."""

    name: str
    value: float
    weight: float
    median: bool


@dataclass(frozen=True)
class Prediction:
    """One row of predictions.parquet: an image, what is there and what was counted.

    true_points (N, 2), points (M, 2): in pixels of the image, each in the order of counting.
    done, stopped, looks, sure: see `Counted`. cell_threshold: see `Thresholds`. shown_marks,
    shown_done: how many true objects were marked in the teacher-forced question of the done task,
    and the probability it was answered with.
    figures: of the teacher-forced examples that training validates with. error: why the image
    could not be read; nothing else is known then, and the counts are null in the file.
    """

    id: str
    category: str
    width: int = 0
    height: int = 0
    true_points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    done: list[float] = field(default_factory=list)
    stopped: str | None = None
    looks: list[int] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)
    cell_threshold: float | None = None
    shown_marks: int | None = None
    shown_done: float | None = None
    figures: list[Figure] = field(default_factory=list)
    error: str | None = None

    @property
    def true_count(self) -> int:
        """How many objects there are."""
        return len(self.true_points)

    @property
    def count(self) -> int:
        """How many objects were counted."""
        return len(self.points)

    @property
    def reference_points(self) -> tuple[np.ndarray, np.ndarray]:
        """The true points and those counted, in pixels of the 384-pixel reference side."""
        return (
            to_reference(self.true_points, self.width, self.height),
            to_reference(self.points, self.width, self.height),
        )


class Predictor:
    """Counts samples, and asks about each the teacher-forced questions of validation."""

    def __init__(
        self,
        counter: Counter,
        max_objects: int,
        repeat_radius: float,
        cells: Sequence[float] = (),
    ) -> None:
        """Take a counter; cells: thresholds of a cell to count with, each in the place of its."""
        self._counters = [replace(counter, cell_threshold=cell) for cell in cells] or [counter]
        self._limits = max_objects, repeat_radius
        by_task = {COORD.name: counter.coord, DONE.name: counter.done}
        self._models = {name: ParallelCounter(m, m.device) for name, m in by_task.items()}

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """Return a prediction for each sample, in their order; one for each threshold of a cell."""
        good = [sample for sample in samples if sample.error is None]
        known = iter(self._predict_good(good) if good else [])
        return [
            prediction
            for sample in samples
            for prediction in (
                [Prediction(sample.id, sample.category, error=sample.error)]
                if sample.error
                else islice(known, len(self._counters))
            )
        ]

    def _predict_good(self, samples: Sequence[Sample]) -> Iterator[Prediction]:
        figures: list[list[Figure]] = [[] for _ in samples]
        for objective in SEPARATE:
            (task,) = objective.tasks
            model = self._models[task.name]
            model.counter.eval()
            encoder, config = model.counter.prompter, model.counter.config
            batch = collate(samples, objective, encoder, config, VAL_EPOCH).to(model.device)
            output = model.evaluate(batch, task)
            judged = task.criterion(output, batch.targets[task.name], model.counter.grid, config)
            for own, more in zip(figures, _by_example(judged), strict=True):
                own += more
            if task is DONE:
                shown = batch.num_marked, output.logit.float().sigmoid().tolist()
        counts = [count_samples(counter, samples, *self._limits) for counter in self._counters]
        for i, sample in enumerate(samples):
            for counter, by_image in zip(self._counters, counts, strict=True):
                counted = by_image[i]
                yield Prediction(
                    sample.id,
                    sample.category,
                    *sample.size,
                    sample.letterbox.to_pixels(sample.points),
                    counted.points,
                    counted.done,
                    counted.stopped,
                    counted.looks.tolist(),
                    counted.sure.tolist(),
                    counter.cell_threshold,
                    shown[0][i],
                    shown[1][i],
                    figures[i],
                )


def _by_example(judged: Judgement) -> Iterator[list[Figure]]:
    """What a criterion said of a batch, example by example; weights of 0 are left out."""
    columns = [
        (name, values.double().tolist(), weights.double().tolist(), median)
        for part, median in ((judged.figures, False), (judged.medians, True))
        for name, (values, weights) in part.items()
    ]
    for i in range(len(columns[0][1])):
        yield [Figure(n, v[i], w[i], median) for n, v, w, median in columns if w[i] > 0]


def to_table(predictions: Iterable[Prediction]) -> pa.Table:
    """Return the rows of predictions.parquet."""
    return pa.Table.from_pylist([_to_row(p) for p in predictions], schema=SCHEMA)


def _to_row(prediction: Prediction) -> dict[str, Any]:
    row = {name: getattr(prediction, name) for name in SCHEMA.names}
    for name in ("true_points", "points"):
        row[name] = [{"x": x, "y": y} for x, y in row[name].tolist()]
    row["figures"] = [figure._asdict() for figure in prediction.figures]
    if prediction.error is not None:
        row |= dict.fromkeys(("width", "height", "true_count", "count", "points", "true_points"))
    return row


def from_table(table: pa.Table) -> list[Prediction]:
    """Return the predictions that `to_table` stored."""
    return [_from_row(row) for row in table.select(SCHEMA.names).to_pylist()]


def _from_row(row: Mapping[str, Any]) -> Prediction:
    if row["error"] is not None:
        return Prediction(row["id"], row["category"], error=row["error"])
    known = {name: row[name] for name in SCHEMA.names if name not in ("true_count", "count")}
    for name in ("true_points", "points"):
        pairs = [(point["x"], point["y"]) for point in row[name]]
        known[name] = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    known["figures"] = [Figure(**figure) for figure in row["figures"]]
    return Prediction(**known)
