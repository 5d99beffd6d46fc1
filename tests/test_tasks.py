import numpy as np
import pytest
import torch

from raydual.config import load
from raydual.losses import left_loss
from raydual.model.heads import Position, Verdict
from raydual.tasks import (
    COORD,
    DONE,
    SEPARATE,
    SUMMED,
    Target,
    judge_coord,
    judge_done,
    nearest_candidate,
    objectives,
)

CONFIG = load()


def draws(sample, num_objects: int, config=CONFIG) -> list[int]:
    rng = np.random.default_rng(0)
    return [sample(num_objects, rng, config) for _ in range(4000)]


def test_where_a_look_marks_many_the_first_look_is_learned_often() -> None:
    every = load(None, ["coord.match=all"])
    counts = np.bincount(draws(COORD.sample_marks, 4, every), minlength=5) / 4000
    assert counts[0] == pytest.approx(0.3 + 0.7 / 4, abs=0.03)
    assert counts[1:4] == pytest.approx(0.7 / 4, abs=0.03)
    assert counts[4] == 0


def test_coord_marks_are_uniform_below_n() -> None:
    counts = np.bincount(draws(COORD.sample_marks, 4), minlength=5)
    assert counts[4] == 0
    assert (abs(counts[:4] - 1000) < 120).all()


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_done_marks_are_balanced_and_include_early_states(fraction: float) -> None:
    config = load(None, [f"done.positive_fraction={fraction}"])
    counts = np.bincount(draws(DONE.sample_marks, 4, config), minlength=5) / 4000
    assert counts[4] == pytest.approx(fraction, abs=0.03)
    assert counts[:4] == pytest.approx((1 - fraction) / 4, abs=0.03)


def test_an_image_without_objects_is_done_and_has_no_coordinate() -> None:
    assert set(draws(COORD.sample_marks, 0)) == {0}
    assert set(draws(DONE.sample_marks, 0)) == {0}
    assert COORD.target(np.zeros((0, 2)), 0, CONFIG)[0].shape == (0, 2)
    assert DONE.target(np.zeros((0, 2)), 0, CONFIG)[0].tolist() == [[1.0]]


def test_ordered_has_one_candidate_and_nearest_all_that_are_left() -> None:
    points = np.array([[0.1, 0], [0.2, 0], [0.3, 0]])
    nearest = load(None, ["coord.match=nearest"])
    assert COORD.target(points, 1, CONFIG)[0].tolist() == [[0.2, 0]]
    assert COORD.target(points, 1, nearest)[0].tolist() == [[0.2, 0], [0.3, 0]]


def test_nearest_candidate_by_hand_skips_padding() -> None:
    values = torch.tensor([[[0.5, 0.0], [0.0, 0.0]], [[0.9, 0.9], [0.1, 0.1]]])
    mask = torch.tensor([[True, False], [True, True]])
    chosen = nearest_candidate(torch.zeros(2, 2), target(values, mask))
    torch.testing.assert_close(chosen, torch.tensor([[0.5, 0.0], [0.1, 0.1]]))


def test_loss_coord_is_that_of_the_position_read_out() -> None:
    wanted = target(torch.tensor([[[0.0, 0.0]]]), torch.ones(1, 1, dtype=torch.bool))
    position = torch.tensor([[1.0, 0.0]])
    positions = torch.tensor([[[-0.5, 0.0], [0.0, 0.0]]])
    head_says = Position(position, torch.zeros(1, 2), positions, torch.zeros(1, 2))
    judged = judge_coord(head_says, wanted, (1, 2), CONFIG)
    assert float(judged.figures["loss_coord"][0]) == pytest.approx(0.2125)
    assert float(judged.figures["loss_pointing"][0]) == pytest.approx(0.05 * np.log(2))
    assert float(judged.figures["loss_x"][0]) == pytest.approx(1.0)
    assert float(judged.medians["px_median"][0]) == pytest.approx(192)
    taught = left_loss(torch.zeros(1, 2), torch.zeros(1, 2))
    assert float(judged.objective) == pytest.approx(0.05 * np.log(2) + float(taught))


def test_the_done_task_is_judged_by_its_verdict_and_taught_where_something_is_left() -> None:
    left = torch.tensor([[[-0.5, 0.0], [-0.4, 0.1]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [False, False]])
    wanted = Target(
        torch.tensor([[[0.0]], [[1.0]]]),
        torch.ones(2, 1, dtype=torch.bool),
        torch.ones(2),
        left,
        mask,
    )
    verdict = Verdict(torch.tensor([0.0, 2.0]), torch.tensor([[1.0, -1.0], [3.0, -3.0]]))
    judged = judge_done(verdict, wanted, (1, 2), CONFIG)
    loss = torch.tensor([np.log(2), np.log(1 + np.exp(-2))], dtype=torch.float32)
    torch.testing.assert_close(judged.figures["loss_done"][0], loss)
    taught = left_loss(verdict.left, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(judged.figures["loss_left"][0], taught)
    torch.testing.assert_close(judged.objective, loss + taught)


def target(values: torch.Tensor, mask: torch.Tensor) -> Target:
    nothing = torch.zeros(len(values), 1, 2), torch.zeros(len(values), 1, dtype=torch.bool)
    return Target(values, mask, torch.ones(len(values)), *nothing)


def test_strategies() -> None:
    assert objectives(load(None, ["train.strategy=dual"])) == SEPARATE
    assert objectives(load(None, ["train.strategy=independent"])) == SEPARATE
    assert objectives(load(None, ["train.strategy=mixed"])) == SUMMED
    (mixed,) = SUMMED
    assert [mixed.weight(t) for t in mixed.tasks] == [1.0, 3.0]
    assert [o.weight(o.tasks[0]) for o in SEPARATE] == [1.0, 1.0]
