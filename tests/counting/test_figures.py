"""Every figure against cases worked out by hand, and against an independent computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from raydual.counting.count_figures import BUCKETS, count_figures, in_bucket
from raydual.counting.done_figures import auroc, done_figures, stop_figures
from raydual.counting.localisation import localisation_figures, match, neighbour_distance
from raydual.counting.ratios import Ratio, intervals, mean


def values(figures: dict[str, Ratio]) -> dict[str, float | None]:
    return {name: figure.value for name, figure in figures.items()}


def test_counts_by_hand() -> None:
    """Errors: +2, 0, -2, +1, -20."""
    got = values(count_figures([0, 4, 4, 10, 100], [2, 4, 2, 11, 80]))
    assert got["mae"] == pytest.approx((2 + 0 + 2 + 1 + 20) / 5)
    assert got["rmse"] == pytest.approx(math.sqrt((4 + 0 + 4 + 1 + 400) / 5))
    assert got["nae"] == pytest.approx((0 + 2 / 4 + 1 / 10 + 20 / 100) / 4)
    assert got["sre"] == pytest.approx(math.sqrt((0 + 4 / 4 + 1 / 10 + 400 / 100) / 4))
    assert got["bias"] == pytest.approx((2 + 0 - 2 + 1 - 20) / 5)
    assert (got["exact"], got["within_1"]) == (1 / 5, 2 / 5)
    assert (got["over"], got["under"]) == (2 / 5, 2 / 5)


def test_buckets_by_hand() -> None:
    got = values(count_figures([0, 4, 4, 10, 100], [2, 4, 2, 11, 80]))
    assert (got["mae@0"], got["mae@1-5"], got["mae@6-10"]) == (2, 1, 1)
    assert (got["bias@51-100"], got["nae@51-100"]) == (-20, 0.2)
    assert got["mae@11-50"] is None
    assert got["nae@0"] is None
    assert got["rmse@1-5"] == pytest.approx(math.sqrt((0 + 4) / 2))


def test_every_count_is_in_one_bucket() -> None:
    counts = np.array([0, 1, 5, 6, 10, 11, 50, 51, 100, 101, 4000])
    members = [in_bucket(counts, bucket) for bucket in BUCKETS]
    assert np.sum(members, axis=0).tolist() == [1] * len(counts)
    assert [int(m.sum()) for m in members] == [1, 2, 2, 2, 2, 2]


def test_errors_equal_the_plain_formulas() -> None:
    rng = np.random.default_rng(1)
    true, counted = rng.integers(0, 200, 300), rng.integers(0, 200, 300)
    errors = [int(c) - int(t) for t, c in zip(true, counted, strict=True)]
    got = values(count_figures(true, counted))
    assert got["mae"] == pytest.approx(sum(map(abs, errors)) / 300)
    assert got["rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / 300))


def test_intervals_are_those_of_resampled_images() -> None:
    true = np.random.default_rng(0).integers(0, 30, 80)
    counted = true + np.random.default_rng(1).integers(-6, 9, 80)
    figures = count_figures(true, counted)
    got = intervals(figures)
    rng = np.random.default_rng(7)
    draws = [rng.integers(80, size=80) for _ in range(4000)]
    error = (counted - true).astype(float)
    for name, of in {
        "mae": lambda e: abs(e).mean(),
        "rmse": lambda e: math.sqrt((e**2).mean()),
        "bias": lambda e: e.mean(),
    }.items():
        low, high = np.percentile([of(error[d]) for d in draws], [2.5, 97.5])
        assert got[name] == pytest.approx((low, high), abs=0.15)
        assert got[name][0] < figures[name].value < got[name][1]
    assert got == intervals(figures)
    assert got["mae@>100"] is None


def test_an_interval_of_equal_values_has_no_width() -> None:
    assert intervals({"a": mean(np.full(7, 3.0))}) == {"a": (3.0, 3.0)}
    assert intervals({}) == {}


def test_matching_by_hand() -> None:
    objects = np.array([[0, 0], [10, 0], [50, 50]])
    marks = np.array([[1, 0], [0, 2], [14, 0], [90, 90]])
    got = match(objects, marks, 5)
    assert got.pairs.tolist() == [[0, 0], [1, 2]]
    assert got.duplicates.tolist() == [1]
    figures = values(localisation_figures([objects], [marks]))
    assert figures["precision@5px"] == 2 / 4
    assert figures["recall@5px"] == 2 / 3
    assert figures["f1@5px"] == pytest.approx(4 / 7)
    assert figures["duplicate_rate@5px"] == 1 / 4


def test_a_mark_goes_to_the_farther_object_where_that_makes_more_pairs() -> None:
    """The first mark is nearest to the second object, which is all that the second one has."""
    objects = np.array([[0.0, 0], [4, 0]])
    marks = np.array([[3.0, 0], [8, 0]])
    assert match(objects, marks, 4).pairs.tolist() == [[0, 0], [1, 1]]


def most_pairs(objects: np.ndarray, marks: np.ndarray, radius: float) -> tuple[int, float]:
    """Try every way to give marks to objects: the most pairs, and their least distance."""
    best = (0, 0.0)
    if len(objects) > len(marks):
        objects, marks = marks, objects
    for chosen in itertools.permutations(range(len(marks)), len(objects)):
        apart = [math.dist(o, marks[m]) for o, m in zip(objects, chosen, strict=True)]
        near = [a for a in apart if a <= radius]
        best = min(best, (-len(near), sum(near)))
    return -best[0], best[1]


@pytest.mark.parametrize("seed", range(60))
def test_matching_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects, marks = (rng.uniform(0, 40, (rng.integers(0, 7), 2)) for _ in range(2))
    for radius in (0.0, 5.0, 12.0, 60.0):
        got = match(objects, marks, radius)
        total = sum(math.dist(objects[o], marks[m]) for o, m in got.pairs)
        assert (len(got.pairs), total) == pytest.approx(most_pairs(objects, marks, radius))
        assert len(set(got.pairs[:, 0])) == len(set(got.pairs[:, 1])) == len(got.pairs)
        lonely = set(range(len(marks))) - set(got.pairs[:, 1].tolist())
        twice = [m for m in lonely if any(math.dist(o, marks[m]) <= radius for o in objects)]
        assert sorted(twice) == got.duplicates.tolist()


def test_localisation_sums_over_images_and_survives_empty_ones() -> None:
    none = np.zeros((0, 2))
    one = np.array([[5.0, 5.0]])
    got = values(localisation_figures([one, none, one, none], [one, one, none, none]))
    assert (got["precision@10px"], got["recall@10px"], got["f1@10px"]) == (0.5, 0.5, 0.5)
    assert got["f1@tenth"] is None
    empty = values(localisation_figures([none], [none]))
    assert set(empty.values()) == {None}


def test_a_tenth_of_the_distance_between_neighbours() -> None:
    """Distances to the nearest other one: 10, 10, 40. A tenth of their mean is 2."""
    objects = np.array([[0.0, 0], [10, 0], [50, 0]])
    assert neighbour_distance(objects) == 20
    assert neighbour_distance(objects[:1]) is None
    marks = np.array([[1.9, 0], [12.1, 0], [50, 2]])
    got = values(localisation_figures([objects], [marks]))
    assert got["recall@tenth"] == pytest.approx(2 / 3)


def test_done_by_hand() -> None:
    probability = np.array([0.9, 0.8, 0.4, 0.3, 0.6])
    label = np.array([True, True, True, False, False])
    got = values(done_figures(probability, label, 0.5))
    assert got == pytest.approx(
        {"accuracy": 3 / 5, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    )
    assert values(done_figures(probability, label, 0.7))["precision"] == 1
    assert values(done_figures(probability, label, 0.95))["precision"] is None


def test_auroc_equals_counting_pairs() -> None:
    rng = np.random.default_rng(3)
    score, label = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.4
    pairs = [(p > n) + (p == n) / 2 for p in score[label] for n in score[~label]]
    assert auroc(score, label) == pytest.approx(np.mean(pairs))
    assert auroc(np.array([0.1, 0.9]), np.array([False, True])) == 1
    assert auroc(np.array([0.5, 0.5]), np.array([False, True])) == 0.5
    assert auroc(score, np.ones(60, bool)) is None


def test_stopping_by_hand() -> None:
    """Too few by 2 and by 1 (repeat), right, too many by 4, and cut off by the cap."""
    stopped = ["done", "repeat", "done", "done", "max_objects"]
    got = values(stop_figures([5, 5, 5, 5, 9], [3, 4, 5, 9, 8], stopped))
    assert (got["stopped_too_early"], got["stopped_too_early_by"]) == (2 / 5, 1.5)
    assert (got["stopped_too_late"], got["stopped_too_late_by"]) == (1 / 5, 4)
    assert got["stopped_by_done"] == 3 / 5
    assert (got["stopped_by_repeat"], got["stopped_by_max_objects"]) == (1 / 5, 1 / 5)
    assert values(stop_figures([1], [1], ["done"]))["stopped_too_late_by"] is None
