import math

import pytest
import torch

from raydual.losses import (
    cell_of,
    cells_of,
    distance_loss,
    done_loss,
    every_object_loss,
    left_loss,
    pointing_loss,
    three_stage_loss,
)


def test_three_stage_loss_by_hand() -> None:
    distance = torch.tensor([0.0, 0.02, 0.05, 0.08, 0.1, 1.0])
    expected = torch.tensor([0.0, 0.004, 0.025, 0.0289, 0.0325, 0.2125])
    torch.testing.assert_close(three_stage_loss(distance), expected)


@pytest.mark.parametrize("edge", [0.05, 0.1])
def test_three_stage_loss_is_continuous(edge: float) -> None:
    below, above = three_stage_loss(torch.tensor([edge - 1e-6, edge], dtype=torch.float64))
    assert abs(float(above - below)) < 2e-6


def test_three_stage_loss_increases() -> None:
    loss = three_stage_loss(torch.linspace(0, 4, 20001, dtype=torch.float64))
    assert (loss.diff() > 0).all()


def test_distance_loss_takes_the_sum_of_both_axes() -> None:
    loss = distance_loss(torch.tensor([[0.01, -0.01]]), torch.tensor([[0.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor([10 * 0.02**2]))


def test_losses_are_float32_whatever_comes_in() -> None:
    position = torch.full((1, 2), 0.999, dtype=torch.bfloat16)
    assert distance_loss(position, torch.ones(1, 2)).dtype == torch.float32
    assert done_loss(torch.zeros(1, dtype=torch.bfloat16), torch.ones(1)).dtype == torch.float32


def test_cell_of_by_hand_with_more_columns_than_rows() -> None:
    points = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [-0.01, 0.99], [0.99, -0.99]])
    assert cell_of(points, (2, 3)).tolist() == [0, 5, 4, 4, 2]


def test_pointing_loss_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0]])
    positions = torch.tensor([[[-0.5, 0.0], [0.48, 0.0]]])
    target = torch.tensor([[0.5, 0.0]])
    loss = pointing_loss(scores, positions, target, (1, 2))
    expected = 10 * 0.02**2 + 0.05 * math.log(1 + math.exp(-2))
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_pointing_loss_does_not_move_the_other_cells() -> None:
    positions = torch.tensor([[[-0.5, 0.0], [0.4, 0.0]]], requires_grad=True)
    pointing_loss(torch.zeros(1, 2), positions, torch.tensor([[0.5, 0.0]]), (1, 2)).backward()
    assert positions.grad is not None
    assert positions.grad[0, 0].tolist() == [0, 0]
    assert positions.grad[0, 1, 0] < 0


def test_done_loss_by_hand() -> None:
    loss = done_loss(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), math.log(1 + math.exp(2))]))


def test_left_loss_by_hand_hardly_counts_cells_that_are_right() -> None:
    scores, held = torch.tensor([[0.0, 2.0, -2.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    chance = [0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]
    expected = 0.2 * sum((1 - p) ** 2 * -math.log(p) for p in chance)
    torch.testing.assert_close(left_loss(scores, held), torch.tensor([expected]))
    torch.testing.assert_close(left_loss(-scores, 1 - held), torch.tensor([expected]))


def test_cells_of_by_hand_leave_padding_out() -> None:
    points = torch.tensor(
        [[[-0.9, 0.0], [-0.8, 0.1], [0.9, 0.0]], [[0.0, 0.0], [0.0, 0.0], [0, 0]]]
    )
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert cells_of(points, mask, (1, 3)).tolist() == [[1, 0, 0], [0, 0, 0]]


def test_every_object_teaches_its_own_cell_by_hand() -> None:
    """Two cells, side by side; the first example has an object in each, the second has none."""
    scores = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    positions = torch.tensor([[[-0.5, 0.0], [0.5, 0.0]]] * 2)
    objects = torch.tensor([[[-0.48, 0.0], [0.5, 0.04]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [False, False]])
    loss = every_object_loss(scores, positions, objects, mask, (1, 2))
    distances = (10 * 0.02**2 + 10 * 0.04**2) / 2
    torch.testing.assert_close(loss, torch.tensor([distances, 0.0]))  # all cells are right
    mask[0, 1] = False
    one = every_object_loss(scores, positions, objects, mask, (1, 2))[0]
    expected = 10 * 0.02**2 + 0.05 * math.log(1 + math.e)
    torch.testing.assert_close(one, torch.tensor(expected))


def test_an_example_without_objects_gives_no_gradient_that_is_no_number() -> None:
    scores = torch.zeros(1, 2, requires_grad=True)
    positions = torch.zeros(1, 2, 2, requires_grad=True)
    none = torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.bool)
    every_object_loss(scores, positions, *none, (1, 2)).sum().backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
