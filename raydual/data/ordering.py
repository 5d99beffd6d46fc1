"""The orders in which the objects of an image can be counted.

Each takes points (N, 2) in pixels of the 384-pixel reference frame (longest side 384, x to the
right, y down) and returns the permutation (N,) that puts them in order. The order depends on the
set of points alone, not on how they were listed.
"""

from collections.abc import Callable

import numpy as np

from raydual.data.letterbox import REFERENCE_SIDE

ROW_HEIGHT = 50.0
"""Height in pixels of a row in `reading_order`."""


def to_reference(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Points (N, 2) in pixels of an image, in the reference frame: its longest side is 384."""
    return np.asarray(points, dtype=np.float64) * (REFERENCE_SIDE / max(width, height))


def reading_order(points: np.ndarray) -> np.ndarray:
    """Row by row from the top, each row from left to right, as text is read.

    Rows are `ROW_HEIGHT` pixels high, counted from the upper edge; ties in x go by y.
    """
    x, y = _columns(points)
    return np.lexsort((y, x, np.floor(y / ROW_HEIGHT)))


def left_to_right(points: np.ndarray) -> np.ndarray:
    """By x; ties go by y."""
    x, y = _columns(points)
    return np.lexsort((y, x))


def nearest_neighbor(points: np.ndarray) -> np.ndarray:
    """From the point nearest to the top left corner, each time to the nearest one left.

    Ties go to the point further left, then further up.
    """
    start = left_to_right(points)
    ordered = np.stack(_columns(points), axis=1)[start]
    left = np.ones(len(ordered), dtype=bool)
    here, path = np.zeros(2), []
    while left.any():
        distance = np.where(left, ((ordered - here) ** 2).sum(axis=1), np.inf)
        nearest = int(distance.argmin())
        left[nearest] = False
        here = ordered[nearest]
        path.append(nearest)
    return start[np.array(path, dtype=np.intp)]


def _columns(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reading_order": reading_order,
    "left_to_right": left_to_right,
    "nearest_neighbor": nearest_neighbor,
}
