"""Whether the marks lie on the objects: one-to-one matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from raydual.counting.ratios import Ratio

RADII: dict[str, float] = {"5px": 5.0, "10px": 10.0, "20px": 20.0}
"""How far a mark may lie from its object, in pixels of the 384-pixel reference side."""

NEIGHBOUR_SHARE = 0.1
NEIGHBOUR_RADIUS = "tenth"
"""Name of the radius that is a tenth of the image's mean distance between neighbours."""


class Matching(NamedTuple):
    """What one image's marks and objects have to do with each other.

    pairs: (matched, 2) int, object and mark. duplicates: the marks without an object of their
    own that lie on one which another mark has. objects, marks: how many there are.
    """

    pairs: np.ndarray
    duplicates: np.ndarray
    objects: int
    marks: int


def match(objects: np.ndarray, marks: np.ndarray, radius: float) -> Matching:
    """Match objects (N, 2) and marks (M, 2) one to one within a radius, in the same unit.

    As many pairs as can be, and among those choices the one of the least total distance: the
    assignment problem (Kuhn, "The Hungarian Method", 1955).
    """
    objects, marks = (np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in (objects, marks))
    distances = cdist(objects, marks)
    near = distances <= radius
    # one pair too far costs more than all that are near together
    too_far = radius * (min(near.shape) + 1) + 1
    rows, columns = linear_sum_assignment(np.where(near, distances, too_far))
    kept = near[rows, columns]
    pairs = np.column_stack([rows[kept], columns[kept]])
    alone = np.setdiff1d(np.arange(len(marks)), pairs[:, 1])
    duplicates = alone[near[:, alone].any(axis=0)]
    return Matching(pairs, duplicates, len(objects), len(marks))


def neighbour_distance(points: np.ndarray) -> float | None:
    """Return the mean distance of points (N, 2) to their nearest other one; None below two."""
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if len(points) < 2:
        return None
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).mean())


def localisation_figures(
    objects: Sequence[np.ndarray], marks: Sequence[np.ndarray]
) -> dict[str, Ratio]:
    """Return the figures of objects and marks, one array (N, 2) an image, at each radius.

    Points are in pixels of the 384-pixel reference side. With TP the matched pairs of all images
    together (see `match`):

    - `precision@10px`: TP / marks; `recall@10px`: TP / objects; `f1@10px`: their harmonic mean
      2 TP / (marks + objects) (van Rijsbergen, 1979).
    - `duplicate_rate@10px`: the share of marks that lie within the radius of an object which
      another mark has already, and have none of their own.

    At `tenth` the radius is a tenth of the mean distance between an object and its nearest other
    one in the image; images with fewer than two objects are left out there.
    """
    figures: dict[str, Ratio] = {}
    for name, radius in RADII.items():
        matchings = [match(o, m, radius) for o, m in zip(objects, marks, strict=True)]
        figures |= _figures(matchings, name)
    tenths = []
    for o, m in zip(objects, marks, strict=True):
        distance = neighbour_distance(o)
        tenths.append(_NONE if distance is None else match(o, m, NEIGHBOUR_SHARE * distance))
    return figures | _figures(tenths, NEIGHBOUR_RADIUS)


_NONE = Matching(np.zeros((0, 2), dtype=int), np.zeros(0, dtype=int), 0, 0)


def _figures(matchings: Sequence[Matching], radius: str) -> dict[str, Ratio]:
    columns = [(len(m.pairs), m.marks, m.objects, len(m.duplicates)) for m in matchings]
    hits, marks, objects, duplicates = np.array(columns, dtype=np.float64).reshape(-1, 4).T
    return {
        f"precision@{radius}": Ratio(hits, marks),
        f"recall@{radius}": Ratio(hits, objects),
        f"f1@{radius}": Ratio(2 * hits, marks + objects),
        f"duplicate_rate@{radius}": Ratio(duplicates, marks),
    }
