"""Imperfect marks: what is shown, and what is right about it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from raydual.config_tree import MarkSection
from raydual.data.examples import VAL_EPOCH, collate
from raydual.data.imperfect import Shown, imperfect
from raydual.data.loading import Sample
from raydual.data.marking import draw_marks
from raydual.model.prompt import Prompter
from raydual.tasks import SEPARATE

COORD_ONLY, DONE_ONLY = SEPARATE
POINTS = np.array([[-0.8, -0.8], [0.0, -0.8], [0.8, -0.8], [-0.8, 0.8], [0.0, 0.8]])


def show(marked: int, seed: int = 0, **mark: float) -> Shown:
    return imperfect(POINTS, marked, MarkSection(**mark), np.random.default_rng(seed))


def test_perfect_marks_are_the_points_and_draw_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    shown = imperfect(POINTS, 3, MarkSection(), rng)
    assert shown.marks.tolist() == POINTS[:3].tolist()
    assert shown.objects.tolist() == POINTS.tolist()
    assert shown.marked == 3
    assert rng.bit_generator.state == before


def test_all_marks_missing_asks_for_the_first_object() -> None:
    shown = show(3, missing=1.0)
    assert shown.marks.shape == (0, 2)
    assert (shown.marked, shown.objects.tolist()) == (0, POINTS.tolist())


def test_an_object_whose_mark_is_missing_is_the_next_one() -> None:
    """Of three marks the second is missing: it comes right after those that are there."""
    shown = next(s for i in range(99) if (s := show(3, i, missing=0.4)).marks.tolist()
                 == POINTS[[0, 2]].tolist())  # fmt: skip
    assert shown.marked == 2
    assert shown.objects.tolist() == POINTS[[0, 2, 1, 3, 4]].tolist()


def test_all_doubled_marks_change_the_number_of_marks_alone() -> None:
    shown = show(2, doubled=1.0)
    assert shown.marks.tolist() == POINTS[[0, 0, 1, 1]].tolist()
    assert (shown.marked, shown.objects.tolist()) == (2, POINTS.tolist())


def test_rates_are_those_asked_for() -> None:
    many = np.zeros((4000, 2))
    rng = np.random.default_rng(0)
    assert len(imperfect(many, 4000, MarkSection(missing=0.25), rng).marks) == pytest.approx(
        3000, abs=120
    )
    assert len(imperfect(many, 4000, MarkSection(doubled=0.25), rng).marks) == pytest.approx(
        5000, abs=120
    )
    jittered = imperfect(many, 4000, MarkSection(jitter=6.0), rng).marks
    assert (jittered * 384 / 2).std(axis=0) == pytest.approx([6, 6], rel=0.05)
    assert jittered.mean(axis=0) == pytest.approx([0, 0], abs=0.002)


def test_two_marks_of_one_object_are_not_at_one_place() -> None:
    marks = show(1, doubled=1.0, jitter=5.0).marks
    assert len(marks) == 2
    assert np.abs(marks[0] - marks[1]).max() > 0


SPOILT = ("data.mark.jitter=4", "data.mark.missing=0.3", "data.mark.doubled=0.3")


def samples(count: int = 30) -> list[Sample]:
    grey = np.full((48, 48, 3), 90, np.uint8)
    return [Sample(f"row{i}", "circle", grey, POINTS) for i in range(count)]


def test_validation_is_untouched(small: Callable) -> None:
    encoder = Prompter.from_pretrained("tiny", 48)
    for objective in SEPARATE:
        perfect, spoilt = (
            collate(samples(), objective, encoder, small(*own), VAL_EPOCH) for own in ((), SPOILT)
        )
        assert (perfect.canvases == spoilt.canvases).all()
        assert perfect.num_marked == spoilt.num_marked


def test_it_depends_on_seed_epoch_row_and_task_alone(small: Callable) -> None:
    encoder = Prompter.from_pretrained("tiny", 48)

    def canvases(part: list[Sample], epoch: int = 1, objective=DONE_ONLY, *own: str) -> np.ndarray:  # type: ignore[no-untyped-def]
        return collate(part, objective, encoder, small(*SPOILT, *own), epoch).canvases

    together = canvases(samples())
    assert (canvases(samples()[::-1])[::-1] == together).all()
    assert (canvases(samples()[3:5]) == together[3:5]).all()
    assert (canvases(samples(), 2) != together).any()
    assert (canvases(samples(), 1, COORD_ONLY) != together).any()
    assert (canvases(samples(), 1, DONE_ONLY, "seed=1") != together).any()


def test_targets_fit_what_is_shown(small: Callable) -> None:
    """With marks missing and doubled but not moved, the picture says which objects have one."""
    config = small(
        "data.mark.jitter=0", "data.mark.missing=0.4", "data.mark.doubled=0.4",
        "data.mark.style=dots",
    )  # fmt: skip
    encoder = Prompter.from_pretrained("tiny", 48)
    coord = collate(samples(), COORD_ONLY, encoder, config, 1)
    alone = [draw_marks(samples(1)[0].pixels, p[None], "dots", 0.5) != 90 for p in POINTS]
    for i in range(len(coord)):
        marked = [bool((coord.canvases[i] != 90)[spot].all()) for spot in alone]
        first = marked.index(False)
        assert coord.targets["coord"].values[i, 0].tolist() == pytest.approx(POINTS[first].tolist())
        assert coord.num_marked[i] >= sum(marked)
    done = collate(samples(), DONE_ONLY, encoder, config, 1)
    for i in range(len(done)):
        marked = [bool((done.canvases[i] != 90)[spot].all()) for spot in alone]
        assert done.targets["done"].values[i, 0, 0] == float(all(marked))
