from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from raydual.counting.closed_loop import Counter, annotate
from raydual.model.counter import DualTaskCounter
from raydual.model.heads import Position


class Oracle:
    """Stands for a trained model: knows the points, and must be shown the marks to go on."""

    def __init__(self, config: object, points: list[tuple[float, float]]) -> None:
        self.config, self.points = config, points
        self.seen: list[int] = []

    def encode(self, canvases: np.ndarray, categories: list[str], num_marked: list[int]) -> int:
        green = (canvases[0] != 0).any(axis=2)
        centres = [((x + 1) / 2 * 48, (y + 1) / 2 * 48) for x, y in self.points]
        marked = sum(bool(green[int(y), int(x)]) for x, y in centres)
        assert marked == num_marked[0]
        self.seen.append(marked)
        return marked

    def __call__(self, marked: int, task: str) -> object:
        if task == "done":
            return torch.tensor([4.0 if marked == len(self.points) else -4.0])
        return Position(torch.tensor([self.points[marked]]))


POINTS = [(-0.5, -0.5), (0.5, -0.5), (0.0, 0.5)]


@pytest.fixture
def oracle(small: Callable) -> Oracle:
    return Oracle(SimpleNamespace(data=small("data.mark.style=dots").data), POINTS)


def test_the_loop_marks_what_it_found_and_stops_when_done(oracle: Oracle) -> None:
    counted = Counter(oracle, oracle).count(Image.new("RGB", (96, 96)))
    assert (counted.count, counted.stopped) == (3, "done")
    assert counted.points.tolist() == [[24, 24], [72, 24], [48, 72]]
    assert len(counted.done) == 4
    assert counted.done[-1] > 0.9 > counted.done[0]


def test_points_are_in_the_pixels_of_the_image_as_given(oracle: Oracle) -> None:
    oracle.points = [(0.0, -0.5)]
    counted = Counter(oracle, oracle).count(Image.new("RGB", (200, 100)))
    assert counted.points.tolist() == [[100, 50]]


def test_a_point_on_the_padding_is_moved_onto_the_image(oracle: Oracle) -> None:
    oracle.points = [(0.0, -0.01)]
    assert Counter(oracle, oracle).count(Image.new("RGB", (200, 100))).points[
        0, 1
    ] == pytest.approx(99)
    oracle.points = [(0.0, 0.5)]
    oracle.encode = lambda canvases, categories, marked: marked[0]  # the mark is not at 0.5
    assert Counter(oracle, oracle).count(Image.new("RGB", (200, 100))).points[
        0, 1
    ] == pytest.approx(100)


def test_a_count_that_would_not_end_is_capped(oracle: Oracle) -> None:
    counted = Counter(oracle, oracle).count(Image.new("RGB", (96, 96)), max_objects=2)
    assert (counted.count, counted.stopped) == (2, "max_objects")


def test_an_image_without_objects(oracle: Oracle) -> None:
    oracle.points = []
    counted = Counter(oracle, oracle).count(Image.new("RGB", (96, 96)))
    assert (counted.count, counted.points.shape) == (0, (0, 2))
    assert annotate(Image.new("RGB", (96, 96)), counted).size == (384, 384)


def test_a_real_model_counts_something(small: Callable, tmp_path) -> None:
    DualTaskCounter.from_config(small()).save_pretrained(tmp_path / "a")
    counter = Counter.from_pretrained(tmp_path / "a", tmp_path / "a")
    counted = counter.count(Image.new("RGB", (50, 30), "white"), max_objects=3)
    assert 0 <= counted.count <= 3
    assert (counted.points <= [50, 50]).all()
