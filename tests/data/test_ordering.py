import numpy as np
import pytest

from raydual.data.ordering import (
    ORDERS,
    left_to_right,
    nearest_neighbor,
    reading_order,
    to_reference,
)

# 0: first row right; 1: second row; 2: first row left; 3: on the upper edge of the third row
POINTS = np.array([[300.0, 10.0], [50.0, 60.0], [20.0, 49.9], [10.0, 100.0]])


def test_reading_order_by_hand():
    assert reading_order(POINTS).tolist() == [2, 0, 1, 3]


def test_left_to_right_by_hand():
    assert left_to_right(POINTS).tolist() == [3, 2, 1, 0]


def test_nearest_neighbor_by_hand():
    # from (0, 0): point 2 (53.9 away, point 1 is 78.1); then 1 (31.6), 3 (56.6), 0
    assert nearest_neighbor(POINTS).tolist() == [2, 1, 3, 0]


def test_ties_go_by_the_other_coordinate():
    column = np.array([[5.0, 30.0], [5.0, 10.0], [5.0, 20.0]])
    assert left_to_right(column).tolist() == [1, 2, 0]
    assert reading_order(column).tolist() == [1, 2, 0]
    square = np.array([[10.0, 0.0], [0.0, 10.0]])  # equally far from the corner
    assert nearest_neighbor(square).tolist() == [1, 0]


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_order_depends_on_the_set_of_points_alone(order):
    rng = np.random.default_rng(0)
    points = rng.integers(0, 20, (60, 2)).astype(float) * 19  # many ties and duplicates
    expected = points[order(points)]
    assert sorted(order(points)) == list(range(60))
    for _ in range(5):
        shuffled = rng.permutation(points)
        np.testing.assert_array_equal(shuffled[order(shuffled)], expected)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_none_and_one(order):
    assert order(np.empty((0, 2))).tolist() == []
    assert order(np.array([[3.0, 4.0]])).tolist() == [0]


def test_reference_frame_has_its_longest_side_at_384():
    points = to_reference(np.array([[640.0, 480.0]]), 640, 480)
    np.testing.assert_allclose(points, [[384.0, 288.0]])
