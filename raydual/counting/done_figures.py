"""Whether the model knows when every object is marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from raydual.counting.ratios import Ratio, mean


def done_figures(probability: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, Ratio]:
    """Return the figures of one teacher-forced question an image: is every object marked?

    probability: (images,) of being done, in [0, 1]. label: (images,) bool. done is said above
    `threshold`. `accuracy`: the share of right answers; `precision`: TP / (TP + FP); `recall`:
    TP / (TP + FN); `f1`: 2 TP / (2 TP + FP + FN) (van Rijsbergen, 1979).
    """
    said, label = np.asarray(probability) > threshold, np.asarray(label, dtype=bool)
    hits = (said & label).astype(np.float64)
    return {
        "accuracy": mean(said == label),
        "precision": Ratio(hits, said.astype(np.float64)),
        "recall": Ratio(hits, label.astype(np.float64)),
        "f1": Ratio(2 * hits, said.astype(np.float64) + label),
    }


def auroc(score: np.ndarray, label: np.ndarray) -> float | None:
    """Return the area under the ROC curve; None where all labels are alike.

    The probability that a true one scores above a false one, ties counting half (Hanley and
    McNeil, 1982), from the sum of ranks of the true ones. score, label: (images,).
    """
    label = np.asarray(label, dtype=bool)
    positives, negatives = int(label.sum()), int((~label).sum())
    if not positives or not negatives:
        return None
    ranks = float(rankdata(score)[label].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def stop_figures(true: np.ndarray, counted: np.ndarray, stopped: Sequence[str]) -> dict[str, Ratio]:
    """Return when counting ended, closed loop: true and counted (images,), stopped as `Counted`.

    - `stopped_too_early`: the share of images in which counting ended, other than by the cap,
      with fewer marks than objects; `stopped_too_early_by`: how many were left, among these.
    - `stopped_too_late`: the share in which it went on past as many marks as there are objects;
      `stopped_too_late_by`: by how many, among these.
    - `stopped_by_done`, `stopped_by_repeat`, `stopped_by_unsure`, `stopped_by_max_objects`: what
      ended it.
    """
    true, counted, why = np.asarray(true), np.asarray(counted), np.asarray(stopped, dtype=str)
    early = (counted < true) & (why != "max_objects")
    late = counted > true
    figures = {
        "stopped_too_early": mean(early),
        "stopped_too_early_by": mean(true - counted, early),
        "stopped_too_late": mean(late),
        "stopped_too_late_by": mean(counted - true, late),
    }
    reasons = ("done", "repeat", "unsure", "max_objects")
    return figures | {f"stopped_by_{reason}": mean(why == reason) for reason in reasons}
