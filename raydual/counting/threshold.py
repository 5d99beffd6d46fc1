"""How sure of being done a model has to be for a count to end, as a checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raydual.errors import CheckpointError
from raydual.model.counter import HEADS_FILE
from raydual.model.files import read_manifest, weights_digest

DONE_THRESHOLD = 0.5
THRESHOLDS = "done_thresholds"
"""In the manifest of the done task's checkpoint: thresholds, by the weights they are for."""


def threshold_of(coord: Path, done: Path) -> float:
    """Return the probability above which two checkpoints' done is believed: stored, or 0.5."""
    heads = [(folder / HEADS_FILE).read_bytes() for folder in (coord, done)]
    stored = stored_threshold(read_manifest(done), weights_digest(*heads))
    return DONE_THRESHOLD if stored is None else stored


def stored_threshold(manifest: Mapping[str, Any], weights: str) -> float | None:
    """Return the calibrated probability above which a checkpoint's done task is believed.

    None where none was found with these weights of both tasks.

    manifest: of the done task's checkpoint. weights: `weights_digest` of coord, done.

    Raises:
        CheckpointError: any is no probability.
    """
    thresholds = manifest.get(THRESHOLDS, {})
    named = isinstance(thresholds, dict)
    for one in thresholds.values() if named else [thresholds]:
        if not (named and isinstance(one, int | float) and 0 <= one <= 1):
            raise CheckpointError(f"{THRESHOLDS} has {one!r} in the manifest, expected 0 to 1")
    return float(thresholds[weights]) if weights in thresholds else None
