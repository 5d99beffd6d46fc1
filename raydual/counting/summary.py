"""From predictions to the flat figures of evaluation.json."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from raydual.counting.count_figures import BUCKETS, count_figures, in_bucket
from raydual.counting.done_figures import auroc, done_figures, stop_figures
from raydual.counting.localisation import localisation_figures
from raydual.counting.predictions import Figure, Prediction
from raydual.counting.ratios import Ratio, intervals, mean
from raydual.counting.threshold import USUAL
from raydual.data.manifest import read_manifest
from raydual.data.schema import read_rows

Figures = dict[str, float | None]


def summarise(
    predictions: Sequence[Prediction],
    train_counts: np.ndarray | None,
    threshold: float = USUAL.done,
) -> Figures:
    """Return every figure of images that could be read; None where one is not defined.

    - `count/*`, `loc/*`, `done/*`: see `count_figures`, `localisation_figures`, `done_figures` and
      `stop_figures`; `count/mae_low` and `count/mae_high` are the ends of the interval of
      `count/mae`, see `intervals`; `count/images@1-5` is the number of images in a bucket,
      `count/looks` the mean number of looks at an image.
    - `baseline_mean/*`, `baseline_median/*`: the count figures of answering every image with
      the mean or the median of `train_counts`, which is `baseline_mean/count`.
    - `teacher_forced/*`: what training calls `val/*`, on these images.

    train_counts: (images,) the numbers of objects in the training split; None: no baselines.
    threshold: the probability above which done is believed.
    """
    true = np.array([p.true_count for p in predictions])
    counted = np.array([p.count for p in predictions])
    ratios = _prefixed("count", count_figures(true, counted))
    ratios["count/looks"] = mean(np.array([len(p.done) for p in predictions]))
    points = [p.reference_points for p in predictions]
    ratios |= _prefixed("loc", localisation_figures([t for t, _ in points], [f for _, f in points]))
    probability = np.array([p.shown_done for p in predictions], dtype=np.float64)
    label = np.array([p.shown_marks == p.true_count for p in predictions])
    stops = stop_figures(true, counted, [str(p.stopped) for p in predictions])
    ratios |= _prefixed("done", done_figures(probability, label, threshold) | stops)
    figures: Figures = {"count/images": float(len(true))}
    figures |= {f"count/images@{b}": float(in_bucket(true, b).sum()) for b in BUCKETS}
    figures |= _with_intervals(ratios)
    figures["done/auroc"] = auroc(probability, label)
    figures |= _baselines(true, train_counts)
    return figures | _teacher_forced([f for p in predictions for f in p.figures])


def true_counts(path: str, split: str, category: str | None) -> np.ndarray | None:
    """Return the numbers of objects in the images (of the category) of a split.

    None where the dataset has no such images.

    Raises:
        DataError: the dataset cannot be read.
    """
    info = read_manifest(path).splits.get(split)
    if info is None or not info.images:
        return None
    rows = read_rows(path, split, columns=["category", "points"])
    counts = [len(row.points) for row in rows if category in (None, row.category)]
    return np.array(counts) if counts else None


def edge(name: str, end: str) -> str:
    """Return the key of the `low` or `high` end of a figure's interval: `mae@0` -> `mae_low@0`."""
    stem, at, where = name.partition("@")
    return f"{stem}_{end}{at}{where}"


def _with_intervals(ratios: Mapping[str, Ratio]) -> Figures:
    figures: Figures = {}
    for name, ends in intervals(ratios).items():
        low, high = (None, None) if ends is None else ends
        figures |= {name: ratios[name].value, edge(name, "low"): low, edge(name, "high"): high}
    return figures


def _baselines(true: np.ndarray, train_counts: np.ndarray | None) -> Figures:
    if train_counts is None:
        return {}
    figures: Figures = {}
    for name, constant in (("mean", np.mean(train_counts)), ("median", np.median(train_counts))):
        figures[f"baseline_{name}/count"] = float(constant)
        of_constant = count_figures(true, np.full(len(true), constant))
        figures |= _with_intervals(_prefixed(f"baseline_{name}", of_constant))
    return figures


def _teacher_forced(figures: Sequence[Figure]) -> Figures:
    by_name: dict[tuple[str, bool], list[Figure]] = {}
    for figure in figures:
        by_name.setdefault((figure.name, figure.median), []).append(figure)
    return {
        f"teacher_forced/{name}": (
            statistics.median(f.value for f in own)
            if median
            else sum(f.value * f.weight for f in own) / sum(f.weight for f in own)
        )
        for (name, median), own in by_name.items()
    }


def _prefixed(prefix: str, figures: Mapping[str, Ratio]) -> dict[str, Ratio]:
    return {f"{prefix}/{name}": ratio for name, ratio in figures.items()}
