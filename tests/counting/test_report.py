"""The report and its pictures, from predictions written down by hand."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from PIL import Image

from raydual.cli_count import evaluate
from raydual.config import load
from raydual.counting.closed_loop import MAX_OBJECTS, REPEAT_RADIUS
from raydual.counting.evaluation import Evaluation
from raydual.counting.page import page
from raydual.counting.predictions import Figure, Prediction, from_table, to_table
from raydual.counting.subject import Subject
from raydual.counting.summary import edge, summarise, true_counts
from raydual.counting.threshold import Thresholds
from raydual.counting.worst import FOUND, MISSED, TWICE, WRONG, draw, worst
from raydual.data.schema import read_rows

NASTY = "</script><b>&amp;"


def prediction(true: list, found: list, name: str = "a", **values: object) -> Prediction:
    defaults: dict = {"stopped": "done", "done": [0.1], "shown_marks": 0, "shown_done": 0.2}
    points = [np.array(p, dtype=float).reshape(-1, 2) for p in (true, found)]
    return Prediction(name, "cell", 384, 192, *points, **(defaults | values))


RIGHT = prediction([[10, 10]], [[12, 10]])
TOO_MANY = prediction([[10, 10]], [[12, 10], [10, 12], [300, 100]])
ELSEWHERE = prediction([[10, 10]], [[300, 100]])
UNREADABLE = Prediction("b", "cell", error="cut short")


def test_the_file_gives_back_what_was_stored() -> None:
    figured = prediction([], [[1, 2]], figures=[Figure("loss", 0.5, 2.0, False)])
    table = to_table([RIGHT, figured, UNREADABLE])
    back = from_table(table)
    assert back[1].figures == figured.figures
    assert back[0].points.tolist() == [[12, 10]]
    assert back[1].true_points.shape == (0, 2)
    assert (back[2].id, back[2].error) == ("b", "cut short")
    assert table["true_count"].to_pylist() == [1, 0, None]


def test_summary_by_hand() -> None:
    figures = summarise(
        [
            prediction([[0, 0]], [], shown_marks=1, shown_done=0.9),
            prediction(
                [[0, 0], [50, 50]], [[1, 0], [50, 52], [90, 90]], figures=[
                    Figure("loss", 1.0, 1.0, False), Figure("px", 4.0, 1.0, True)]
            ),
            prediction([], [], shown_marks=0, shown_done=0.4, figures=[
                Figure("loss", 4.0, 3.0, False), Figure("px", 1.0, 1.0, True),
                Figure("px", 2.0, 1.0, True)]),
        ],
        np.array([1, 2, 6]),
    )  # fmt: skip
    assert (figures["count/images"], figures["count/images@1-5"]) == (3, 2)
    assert figures["count/mae"] == pytest.approx(2 / 3)
    assert (figures["baseline_mean/count"], figures["baseline_median/count"]) == (3, 2)
    assert figures["baseline_mean/mae"] == pytest.approx((2 + 1 + 3) / 3)
    assert figures["baseline_median/mae@1-5"] == pytest.approx(1 / 2)
    assert figures["baseline_mean/mae_low"] <= 2 <= figures["baseline_mean/mae_high"]
    assert (figures["loc/precision@5px"], figures["loc/recall@5px"]) == (2 / 3, 2 / 3)
    assert figures["done/accuracy"] == pytest.approx(2 / 3)
    assert figures["teacher_forced/loss"] == (1 + 3 * 4) / 4
    assert figures["teacher_forced/px"] == 2
    assert figures["count/mae_low"] <= figures["count/mae"] <= figures["count/mae_high"]
    assert figures["count/mae@>100"] is None
    assert figures[edge("count/mae@>100", "low")] is None


def test_points_are_judged_in_pixels_of_384() -> None:
    """In an image twice as large, 8 px are 4."""
    large = Prediction("a", "c", 768, 300, np.array([[0.0, 0]]), np.array([[8.0, 0]]),
                       stopped="done", shown_marks=0, shown_done=0.1)  # fmt: skip
    assert summarise([large], None)["loc/f1@5px"] == 1


def test_training_counts_are_of_the_category(dataset: str) -> None:
    rows = list(read_rows(dataset, "train"))
    every = true_counts(dataset, "train", None)
    assert every is not None
    assert every.tolist() == [len(row.points) for row in rows]
    circles = true_counts(dataset, "train", "circle")
    assert circles is not None
    assert circles.tolist() == [len(r.points) for r in rows if r.category == "circle"]
    assert true_counts(dataset, "train", "no such thing") is None


def test_the_worst_are_those_that_are_off_then_those_that_lie_wrong() -> None:
    predictions = [RIGHT, UNREADABLE, ELSEWHERE, TOO_MANY]
    assert worst(predictions, 9) == [3, 2]
    assert worst(predictions, 1) == [3]
    assert worst([RIGHT, UNREADABLE], 9) == []


def test_pictures_tell_found_missed_wrong_and_twice_apart() -> None:
    picture = draw(Image.new("RGB", (384, 192), "white"), TOO_MANY)
    assert picture.size == (480, 240)
    colors = {color for _, color in picture.getcolors(10000)}
    assert {FOUND, WRONG, TWICE} <= colors
    assert MISSED not in colors
    colors = {c for _, c in draw(Image.new("RGB", (384, 192)), ELSEWHERE).getcolors(10000)}
    assert {MISSED, WRONG} <= colors
    assert not {FOUND, TWICE} & colors


@pytest.fixture
def evaluation(dataset: str) -> Evaluation:
    epochs = {"coord": 3, "done": None}
    subject = Subject(
        f"/runs/{NASTY}",
        True,
        load(),
        epochs,
        (),
        "digest",
        "weights",
        Thresholds(),
        None,
        stale=False,
    )
    return Evaluation(subject, dataset, "val", "/nowhere")


def test_the_page_needs_no_network_and_trusts_no_name(evaluation: Evaluation) -> None:
    """The worst images are read from the dataset: their places are those of its rows."""
    predictions = [prediction([[10, 10]], [[300, 9]] * 4, NASTY), UNREADABLE, RIGHT]
    good = [p for p in predictions if p.error is None]
    text = page(evaluation, summarise(good, np.array([1])), predictions)
    assert text.count("data:image/jpeg;base64,") >= 1
    own = re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!data:)', own)
    assert NASTY not in text
    assert "&lt;/script&gt;&lt;b&gt;" in own
    assert "no better than" in own
    assert "cut short" in own


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        (0, ": better than"),
        (6, "not surely better (the intervals overlap) than"),
        (12, "no better than"),
    ],
)
def test_better_is_said_of_intervals_that_do_not_overlap(
    evaluation: Evaluation, wrong: int, verdict: str
) -> None:
    """Of 12 images with one object or three, always answering two is off by one each time."""
    predictions = [
        prediction([[50 * i, 9] for i in range(1, n + 1)], [[50 * i, 9] for i in range(1, n + 1)])
        for n in (1, 3) * 6
    ]
    predictions[:wrong] = [prediction([[50, 9]], [[50, 9]] * 2 + [[90, 90]] * (i % 2))
                           for i in range(wrong)]  # fmt: skip
    assert verdict in page(evaluation, summarise(predictions, np.array([2])), predictions)


def test_a_page_without_baselines_and_without_a_wrong_image(evaluation: Evaluation) -> None:
    text = page(evaluation, summarise([RIGHT], None), [RIGHT])
    assert "Every image was counted right" in text
    assert "always" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)


def test_a_row_is_found_by_the_place_of_its_prediction(evaluation: Evaluation) -> None:
    rows = list(read_rows(evaluation.data, "val"))
    assert [len(unit.rows) for unit in evaluation.parts] == [16, 5]
    for place in (0, 15, 16, 20):
        assert evaluation.row(place).id == rows[place].id


def test_options_are_those_of_the_closed_loop() -> None:
    parameters = inspect.signature(evaluate).parameters
    assert parameters["max_objects"].default == MAX_OBJECTS
    assert parameters["repeat_radius"].default == REPEAT_RADIUS
