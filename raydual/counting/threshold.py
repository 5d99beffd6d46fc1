"""How sure a model has to be for a count to end, or a cell to be marked, as a checkpoint says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raydual.errors import CheckpointError
from raydual.model.counter import HEADS_FILE
from raydual.model.files import read_manifest, weights_digest

ONE_A_LOOK, MANY_A_LOOK = "done_thresholds", "look_thresholds"
"""In the manifest of the done task's checkpoint: thresholds, by the weights they are for and, where
a look marks many, by how many at the most."""


@dataclass(frozen=True)
class Thresholds:
    """Probabilities in [0, 1].

    done: above it a count ends. cell: above it a cell is marked, where a look marks many; an object
    is shared out among the cells that it may be in, so that few reach a half.
    """

    done: float = 0.5
    cell: float = 0.3


USUAL = Thresholds()


def key_of(most_per_look: int) -> str:
    """Return where the thresholds of a way of counting are stored."""
    return ONE_A_LOOK if most_per_look == 1 else MANY_A_LOOK


def with_thresholds(
    manifest: Mapping[str, Any], weights: str, most_per_look: int, thresholds: Thresholds
) -> dict[str, Any]:
    """Return a manifest that has these thresholds too; see `stored_thresholds`."""
    key = key_of(most_per_look)
    own = thresholds.done if most_per_look == 1 else asdict(thresholds)
    return {**manifest, key: manifest.get(key, {}) | {_entry(weights, most_per_look): own}}


def _entry(weights: str, most_per_look: int) -> str:
    return weights if most_per_look in (1, sys.maxsize) else f"{weights}/{most_per_look}"


def thresholds_of(coord: Path, done: Path, most_per_look: int) -> Thresholds:
    """Return the thresholds of two checkpoints: stored, or the usual ones."""
    heads = [(folder / HEADS_FILE).read_bytes() for folder in (coord, done)]
    stored = stored_thresholds(read_manifest(done), weights_digest(*heads), most_per_look)
    return stored or USUAL


def stored_thresholds(
    manifest: Mapping[str, Any], weights: str, most_per_look: int
) -> Thresholds | None:
    """Return calibrated thresholds; None where none were found with these weights of both tasks.

    manifest: of the done task's checkpoint. weights: `weights_digest` of coord, done.

    Raises:
        CheckpointError: any is no probability.
    """
    found = {name: _by_weights(manifest, name) for name in (ONE_A_LOOK, MANY_A_LOOK)}
    return found[key_of(most_per_look)].get(_entry(weights, most_per_look))


def _by_weights(manifest: Mapping[str, Any], name: str) -> dict[str, Thresholds]:
    stored = manifest.get(name, {})
    if not isinstance(stored, dict):
        raise CheckpointError(f"{name} has {stored!r} in the manifest, expected 0 to 1")
    return {weights: _thresholds(own, name) for weights, own in stored.items()}


def _thresholds(stored: Any, name: str) -> Thresholds:
    values = stored if isinstance(stored, dict) else {"done": stored}
    known = isinstance(stored, dict) == (name == MANY_A_LOOK) and values.keys() <= {"done", "cell"}
    for one in values.values() if known else [stored]:
        if not (known and isinstance(one, int | float) and 0 <= one <= 1):
            raise CheckpointError(f"{name} has {one!r} in the manifest, expected 0 to 1")
    return Thresholds(**{key: float(value) for key, value in values.items()})
