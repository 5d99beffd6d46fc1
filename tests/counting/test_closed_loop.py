from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raydual.config_tree import Config
from raydual.counting.closed_loop import Counter
from raydual.counting.looks import PerLook, marks_a_look
from raydual.data.letterbox import Letterbox
from raydual.data.marking import draw_mark
from raydual.errors import CheckpointError, ConfigError
from raydual.model.counter import DualTaskCounter
from raydual.model.heads import Position, Verdict
from raydual.model.pyramid import Backbone

SIDE = 48
Points = list[tuple[float, float]]


class Oracle:
    """Stands for a trained model: knows the points, and must be shown the marks to go on.

    The category of an image says which of the lists of points is its own.
    """

    training, can_look = False, False

    def __init__(self, config: object, *lists: Points) -> None:
        self.config, self.lists = config, list(lists)
        self.batches: list[int] = []

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None:
        assert not mode

    def category_or_default(self, category: str | None) -> str:
        return category or "0"

    def encode_marked(
        self, canvases: np.ndarray, categories: Sequence[str], marks: Sequence[np.ndarray]
    ) -> list[tuple[Points, int]]:
        self.batches.append(len(canvases))
        questions = []
        for canvas, category, own in zip(canvases, categories, marks, strict=True):
            number = len(own)
            points = self.lists[int(category)]
            self.check(canvas, points, number)
            questions.append((points, number))
        return questions

    def check(self, canvas: np.ndarray, points: Points, number: int) -> None:
        green = (canvas != 0).any(axis=2)
        centres = [((x + 1) / 2 * SIDE, (y + 1) / 2 * SIDE) for x, y in points]
        marked = [bool(green[min(int(y), 47), min(int(x), 47)]) for x, y in centres]
        assert marked == [i < number for i in range(len(points))]

    def answers(self, inputs: list[tuple[Points, int]], tasks: Sequence[str]) -> list[object]:
        done = torch.tensor([4.0 if number == len(points) else -4.0 for points, number in inputs])
        next_ones = [(*points, (0.0, 0.0))[number] for points, number in inputs]
        position = Position(torch.tensor(next_ones))
        verdict = Verdict(done, torch.zeros(len(done), 1))
        return [{"done": verdict, "coord": position}[task] for task in tasks]


THREE: Points = [(-0.5, -0.5), (0.5, -0.5), (0.0, 0.5)]
SQUARE = Image.new("RGB", (96, 96))


@pytest.fixture
def oracle(small: Callable) -> Callable[..., Oracle]:
    config = small("data.mark.style=dots")
    return lambda *lists: Oracle(config, *lists)


def counter(*models: Oracle) -> Counter:
    return Counter(models[0], models[-1], per_look=1)  # type: ignore[arg-type]


def test_the_loop_marks_what_it_found_and_stops_when_done(oracle: Callable) -> None:
    counted = counter(oracle(THREE)).count(SQUARE)
    assert (counted.count, counted.stopped) == (3, "done")
    assert counted.points.tolist() == [[24, 24], [72, 24], [48, 72]]
    assert counted.done == pytest.approx([0.018, 0.018, 0.018, 0.982], abs=1e-3)


def test_points_are_in_the_pixels_of_the_image_as_given(oracle: Callable) -> None:
    counted = counter(oracle([(0.0, -0.5)])).count(Image.new("RGB", (200, 100)))
    assert counted.points.tolist() == [[100, 50]]


def test_a_point_on_the_padding_is_moved_onto_the_image(oracle: Callable) -> None:
    wide = Image.new("RGB", (200, 100))
    assert counter(oracle([(0.0, -0.01)])).count(wide).points[0, 1] == pytest.approx(99)
    model = oracle([(0.0, 0.5)])
    model.check = lambda canvas, points, number: None  # the mark is not at 0.5
    assert counter(model).count(wide).points[0, 1] == pytest.approx(100)


def test_a_count_that_would_not_end_is_capped(oracle: Callable) -> None:
    counted = counter(oracle(THREE)).count(SQUARE, max_objects=2)
    assert (counted.count, counted.stopped, len(counted.done)) == (2, "max_objects", 2)


def test_an_image_without_objects(oracle: Callable) -> None:
    counted = counter(oracle([])).count(SQUARE)
    assert (counted.count, counted.points.shape, counted.stopped) == (0, (0, 2), "done")


def test_finished_images_leave_the_batch_and_others_take_their_place(oracle: Callable) -> None:
    lists = [THREE, [], THREE[:1], THREE[1:], THREE]
    model = oracle(*lists)
    sizes = [(96, 96), (10, 40), (200, 100), (1, 1), (48, 48)]
    images = [Image.new("RGB", size) for size in sizes]
    model.check = lambda canvas, points, number: None
    names = [str(i) for i in range(5)]
    counted = counter(model).count_batch(images, names, batch_size=2)
    assert [c.count for c in counted] == [3, 0, 1, 2, 3]
    assert [c.stopped for c in counted] == ["done"] * 5
    one_by_one = [counter(model).count(i, c) for i, c in zip(images, names, strict=True)]
    for together, alone in zip(counted, one_by_one, strict=True):
        assert together.points.tolist() == alone.points.tolist()
        assert together.done == alone.done


def test_the_batch_is_bounded_and_pictures_are_taken_when_there_is_room(oracle: Callable) -> None:
    model = oracle(THREE)
    taken = []

    def pictures():
        for number in range(7):
            taken.append(number)
            yield SQUARE, "0"

    stream = counter(model).count_stream(pictures(), batch_size=3)
    first = next(stream)
    assert (first[0], taken) == (0, [0, 1, 2])
    assert sorted(index for index, _ in [first, *stream]) == list(range(7))
    assert max(model.batches) == 3
    assert sum(model.batches) == 7 * 4


def test_a_point_on_a_mark_is_not_counted_twice(oracle: Callable) -> None:
    near = 2.9 / 192
    model = oracle([(0.2, 0.2), (-0.5, 0.0), (0.2, 0.2 + near), (0.9, 0.9)])
    model.check = lambda canvas, points, number: None
    counted = counter(model).count(SQUARE)
    assert (counted.count, counted.stopped, len(counted.done)) == (2, "repeat", 3)
    assert counter(model).count(SQUARE, repeat_radius=2.8).count == 4
    assert counter(model).count(SQUARE, repeat_radius=0).stopped == "done"


def test_where_the_likeliest_place_has_a_mark_the_next_likely_one_is_taken(
    oracle: Callable,
) -> None:
    model = oracle(THREE)
    model.check = lambda canvas, points, number: None
    places = torch.tensor([[[0.0, 0.0], [-0.5, -0.5], [0.5, 0.5]]])
    scores = torch.tensor([[1.0, 3.0, 3.0 + np.log(0.11)]])  # 0.14, 1 and 0.11 of the likeliest
    model.answers = lambda inputs, tasks: [
        Verdict(torch.tensor([-4.0]), torch.zeros(1, 3))
        if task == "done"
        else Position(places[:, 1], scores, places, scores)
        for task in tasks
    ]
    counted = counter(model).count(SQUARE)
    assert counted.points.tolist() == [[24, 24], [48, 48], [72, 72]]
    assert counted.stopped == "repeat"
    scores[0, 2] = 3.0 + np.log(0.09)
    assert counter(model).count(SQUARE).count == 2


def test_two_models_are_asked_apart_and_give_the_same(oracle: Callable) -> None:
    lists = (THREE, THREE[:1], [])
    coord, done = oracle(*lists), oracle(*lists)
    names = ["0", "1", "2"]
    apart = counter(coord, done).count_batch([SQUARE] * 3, names)
    assert done.batches == [3, 2, 1, 1]
    assert coord.batches == [2, 1, 1]
    together = counter(oracle(*lists)).count_batch([SQUARE] * 3, names)
    assert [c.points.tolist() for c in apart] == [c.points.tolist() for c in together]


def test_models_that_see_differently_are_refused(small: Callable) -> None:
    model = SimpleNamespace(config=small())
    for override in ("data.mark.style=dots", "data.image_size=96"):
        with pytest.raises(CheckpointError, match="take both from one run"):
            Counter(model, SimpleNamespace(config=small(override)))  # type: ignore[arg-type]


@pytest.fixture
def never_done(small: Callable) -> DualTaskCounter:
    """A model with random weights that always sees another object."""
    model = DualTaskCounter.from_config(small())
    with torch.no_grad():
        model.heads["done"].done_head[-1].bias.fill_(-50)
    return model


def test_lock_step_equals_one_by_one_on_a_real_model(never_done: DualTaskCounter) -> None:
    rng = np.random.default_rng(0)
    sizes = [(64, 48), (30, 90), (48, 48), (100, 20), (5, 5)]
    images = [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    names = ["circle", "red blood cell", "a", "square", "星"]
    never_done.train()
    model = Counter(coord=never_done, done=never_done)
    together = model.count_batch(images, names, max_objects=12, repeat_radius=0, batch_size=3)
    assert never_done.training
    for image, name, counted in zip(images, names, together, strict=True):
        alone = model.count(image, name, max_objects=12, repeat_radius=0)
        assert (counted.count, counted.stopped) == (alone.count, alone.stopped)
        np.testing.assert_allclose(counted.points, alone.points, atol=1e-3)
        np.testing.assert_allclose(counted.done, alone.done, atol=1e-5)
        assert (counted.points >= 0).all()
        assert (counted.points <= image.size).all()


@pytest.mark.parametrize("options", [{"max_objects": 0}, {"batch_size": 0}])
def test_limits_below_one_are_refused(oracle: Callable, options: dict) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        counter(oracle(THREE)).count_batch([SQUARE], **options)


@pytest.mark.parametrize("head", ["coord", "done"])
def test_a_model_that_answers_nan_is_named_as_the_cause(
    never_done: DualTaskCounter, head: str
) -> None:
    with torch.no_grad():
        for parameter in never_done.heads[head].parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="NaN"):
        Counter(never_done, never_done).count(SQUARE)


def one_by_one(model: DualTaskCounter, image: Image.Image, most: int) -> tuple[list, list]:
    """The loop of version 0.1, written out for one image: points in [-1, 1], and done."""
    config = model.config
    box = Letterbox(*image.size, config.data.image_size)
    canvas, found, done = box.apply(image), [], []
    while True:
        inputs = model.encode(canvas[None], ["circle"], [len(found)])
        with torch.no_grad():
            verdict, position = model.answers(inputs, ["done", "coord"])
        done.append(verdict.logit.double().sigmoid().item())
        if done[-1] > 0.5 or len(found) == most:
            return found, done[: most + 1]
        places, chances, _ = (part[0].double().numpy() for part in position.ranked())
        likely = box.clip(places[chances >= 0.1 * chances[0]])
        marks = np.array(found).reshape(-1, 2)
        free = [p for p in likely if (np.hypot(*(marks - p).T) * 192 >= 3).all()]
        if not free:
            return found, done
        found.append(free[0])
        draw_mark(canvas, free[0], len(found), config.data.mark.style, config.data.mark.alpha)


def test_one_mark_a_look_is_the_loop_as_it_was_bit_for_bit(never_done: DualTaskCounter) -> None:
    model = never_done.eval()
    pixels = np.random.default_rng(1).integers(0, 255, (48, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    counted = Counter(model, model, per_look=1).count(image, "circle", max_objects=9)
    found, done = one_by_one(model, image, 9)
    assert counted.count == len(found) > 3
    expected = Letterbox(60, 48, 48).to_pixels(np.array(found))
    assert counted.points.tolist() == expected.clip(0, (60, 48)).tolist()
    assert counted.done == done[: len(counted.done)]
    assert counted.looks.tolist() == list(range(1, len(found) + 1))


class Seer:
    """Answers with a grid of 4 x 4 cells: each look says of every cell how likely it holds one.

    looks: for each look the logits by cell, and that of done; the last one goes on.
    """

    training, grid, can_look = False, (4, 4), False

    def __init__(self, config: Config, *looks: tuple[dict[int, float], float]) -> None:
        self.config, self.looks, self.marked = config, looks, []

    def eval(self) -> None: ...

    def category_or_default(self, category: str | None) -> str:
        return category or "thing"

    def encode_marked(self, canvases: np.ndarray, categories: list, marks: list) -> None:
        self.marked.append(len(marks[0]))

    def answers(self, inputs: None, tasks: Sequence[str]) -> list[object]:
        cells, done = self.looks[min(len(self.marked), len(self.looks)) - 1]
        left = torch.full((1, 16), -9.0)
        for cell, logit in cells.items():
            left[0, cell] = logit
        y, x = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        centres = (torch.stack([x, y], -1).reshape(1, 16, 2) + 0.5) / 2 - 1
        position = Position(centres[:, 0], left, centres, left)
        verdict = Verdict(torch.tensor([done]), left)
        return [{"done": verdict, "coord": position}[task] for task in tasks]


def seer(small: Callable, *looks: tuple[dict[int, float], float], **own: Any) -> Counter:
    model = Seer(small("coord.match=all"), *looks)
    return Counter(model, model, **own)  # type: ignore[arg-type]


MANY = {0: 3.0, 2: 2.0, 8: 1.0, 10: -1.0}
"""In cells that do not touch: with 95, 88, 73 and 27 %."""


def test_a_look_marks_all_cells_above_the_threshold_the_surest_first(small: Callable) -> None:
    counting = seer(small, (MANY, -4.0), ({}, 4.0))
    counted = counting.count(SQUARE)
    assert (counted.count, counted.stopped, len(counted.done)) == (3, "done", 2)
    assert counted.points.tolist() == [[12, 12], [60, 12], [12, 60]]
    assert counted.sure == pytest.approx([0.953, 0.881, 0.731], abs=1e-3)
    assert counted.looks.tolist() == [1, 1, 1]
    assert counting.coord.marked == [0, 3]
    assert seer(small, (MANY, -4.0), ({}, 4.0), cell_threshold=0.2).count(SQUARE).count == 4


@pytest.mark.parametrize(
    ("match", "head", "most"),
    [("ordered", "pointing", 1), ("all", "pointing", sys.maxsize), ("ordered", "mlp", 1)],
)
def test_a_look_marks_many_by_itself_where_every_object_has_taught_its_cell(
    small: Callable, match: str, head: str, most: int
) -> None:
    config = small(f"coord.match={match}", f"model.coord_head={head}")
    assert marks_a_look(None, config) == most


def test_a_look_marks_no_more_than_it_may_and_the_next_goes_on(small: Callable) -> None:
    looks = [(MANY, -4.0), ({2: 2.0, 8: 1.0}, -4.0), ({}, 4.0)]
    counted = seer(small, *looks, per_look=2).count(SQUARE)
    assert (counted.count, counted.looks.tolist(), counted.stopped) == (3, [1, 1, 2], "done")
    assert seer(small, *looks, per_look="all").count(SQUARE, max_objects=2).stopped == "max_objects"
    assert seer(small, *looks, per_look="all").count(SQUARE, max_objects=2).count == 2


def test_of_cells_that_touch_the_surest_is_marked(small: Callable) -> None:
    counted = seer(small, ({0: 3.0, 1: 2.9, 5: 2.8, 3: 1.0}, -4.0), ({}, 4.0)).count(SQUARE)
    assert counted.points.tolist() == [[12, 12], [84, 12]]


def test_a_count_ends_unsure_or_on_marks_already_made(small: Callable) -> None:
    assert seer(small, (MANY, -4.0), ({10: -1.0}, -4.0)).count(SQUARE).stopped == "unsure"
    again = seer(small, (MANY, -4.0)).count(SQUARE)
    assert (again.stopped, again.count) == ("repeat", 3)
    assert seer(small, ({}, -4.0)).count(SQUARE).stopped == "unsure"


@pytest.mark.parametrize("wrong", [0, -1, "many", True, 2.5])
def test_a_number_a_look_that_is_none_is_refused(small: Callable, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="a number of 1 or more, or `all`"):
        seer(small, (MANY, 0.0), per_look=wrong)


def test_many_a_look_need_a_head_with_a_grid(small: Callable) -> None:
    model = DualTaskCounter.from_config(small("model.coord_head=mlp")).eval()
    assert Counter(model, model).most_per_look == 1
    with pytest.raises(ConfigError, match=r"per_look=2 needs .*coord_head=pointing"):
        Counter(model, model, per_look=2)


@pytest.mark.parametrize("two_models", [False, True])
@pytest.mark.parametrize("per_look", [1, 2, "all"])
def test_embedded_marks_take_one_look_at_the_pixels_of_an_image(
    small: Callable, monkeypatch: pytest.MonkeyPatch, per_look: PerLook, two_models: bool
) -> None:
    own = ("model.trunk=photo", "data.image_size=64", "data.mark.style=embedding")
    own += ("coord.match=all", "model.freeze_tower=true", "model.lora.r=0")
    model = DualTaskCounter.from_config(small(*own)).eval()
    other = DualTaskCounter.from_config(small(*own, "seed=1")).eval() if two_models else model
    with torch.no_grad():
        other.heads["done"].done_head[-1].bias.fill_(-50)
    seen: list[int] = []
    forward = Backbone.forward
    monkeypatch.setattr(
        Backbone, "forward", lambda self, x: seen.append(len(x)) or forward(self, x)
    )
    images = [SQUARE, Image.new("RGB", (50, 90), "white"), SQUARE]
    counting = Counter(model, other, per_look=per_look, cell_threshold=0.0)
    most = 400 if per_look == "all" else 7
    counted = counting.count_batch(images, max_objects=most, batch_size=2)
    assert all(len(one.done) >= 2 for one in counted)
    assert sum(seen) == 3
