"""How far counts are from the truth."""

from __future__ import annotations

import numpy as np

from raydual.counting.ratios import Ratio, mean

BUCKETS: dict[str, tuple[int, float]] = {
    "0": (0, 0),
    "1-5": (1, 5),
    "6-10": (6, 10),
    "11-50": (11, 50),
    "51-100": (51, 100),
    ">100": (101, np.inf),
}
"""Images by their true number of objects: the fewest and the most."""


def count_figures(true: np.ndarray, counted: np.ndarray) -> dict[str, Ratio]:
    """Return the figures of counts (images,), overall and by bucket as `mae@1-5`.

    With t the true number of objects in an image and e = counted - t, over the images:

    - `mae`: the mean of |e|; `rmse`: the root of the mean of e². As Hsieh, Lin and Hsu, "Drone-
      based Object Counting by Spatially Regularized Regional Proposal Network" (ICCV 2017).
    - `nae`: the mean of |e| / t; `sre`: the root of the mean of e² / t. As Nguyen et al.,
      "Few-shot Object Counting and Detection" (ECCV 2022), whose code (Counting-DETR,
      eval_all.py) this follows. Images without objects, where both are undefined, are left out.
    - `bias`: the mean of e, above 0 where too many are counted.
    - `exact`, `within_1`: the share of images with e = 0, with |e| <= 1.
    - `over`, `under`: the share of images with e > 0, with e < 0.
    """
    truth = np.asarray(true, dtype=np.float64)
    error = np.asarray(counted, dtype=np.float64) - truth
    some = truth > 0
    per_object = np.where(some, truth, 1.0)
    squared, relative = mean(error**2), mean(error**2 / per_object, some)
    figures = {
        "mae": mean(abs(error)),
        "rmse": Ratio(squared.numerator, squared.denominator, root=True),
        "nae": mean(abs(error) / per_object, some),
        "sre": Ratio(relative.numerator, relative.denominator, root=True),
        "bias": mean(error),
        "exact": mean(error == 0),
        "within_1": mean(abs(error) <= 1),
        "over": mean(error > 0),
        "under": mean(error < 0),
    }
    return figures | {
        f"{name}@{bucket}": figure.among(in_bucket(truth, bucket))
        for bucket in BUCKETS
        for name, figure in figures.items()
    }


def in_bucket(true: np.ndarray, bucket: str) -> np.ndarray:
    """Return which images, bool (images,), have as many objects as the bucket says."""
    fewest, most = BUCKETS[bucket]
    return (true >= fewest) & (true <= most)
