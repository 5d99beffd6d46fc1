"""Samples as an Arrow table: how they cross processes, and how kept features lie in files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from raydual.data.loading import Sample

_LAYOUT = b"raydual.features"
"""Metadata of a table with features: their type and the shape that one sample has of them."""


def to_table(samples: Sequence[Sample]) -> pa.Table:
    """Return a row a sample; of one with features the pixels, which are black, are left out."""
    columns = {
        "id": pa.array([s.id for s in samples], pa.string()),
        "category": pa.array([s.category for s in samples], pa.string()),
        "pixels": pa.array([_pixels(s) for s in samples], pa.large_binary()),
        "points": pa.array([s.points.ravel() for s in samples], pa.list_(pa.float64())),
        "error": pa.array([s.error for s in samples], pa.string()),
        "size": pa.array([s.size for s in samples], pa.list_(pa.int64(), 2)),
        "view": pa.array([s.view for s in samples], pa.int32()),
    }
    if not samples or samples[0].features is None:
        return pa.table(columns)
    first = samples[0].features
    columns["features"] = pa.array([_bytes(s.features) for s in samples], pa.large_binary())
    layout = json.dumps([first.dtype.name, list(first.shape)]).encode()
    return pa.table(columns).replace_schema_metadata({_LAYOUT: layout})


def from_table(table: pa.Table, side: int) -> Iterator[Sample]:
    """Yield the samples of `to_table`, on a canvas of `side` pixels."""
    layout = (table.schema.metadata or {}).get(_LAYOUT)
    kind, shape = json.loads(layout) if layout else ("uint8", [])
    for row in table.to_pylist():
        points = np.array(row["points"], dtype=np.float64).reshape(-1, 2)
        features = None
        if layout:
            features = np.frombuffer(row["features"], dtype=kind).reshape(shape)
        yield Sample(
            row["id"],
            row["category"],
            black(side)
            if row["pixels"] is None
            else np.frombuffer(row["pixels"], dtype=np.uint8).reshape(side, side, 3),
            points,
            row["error"],
            tuple(row["size"]),
            row["view"],
            features,
        )


def black(side: int) -> np.ndarray:
    """Return a canvas that takes no memory, and cannot be drawn on."""
    return np.broadcast_to(np.uint8(0), (side, side, 3))


def _pixels(sample: Sample) -> bytes | None:
    return sample.pixels.tobytes() if sample.features is None else None


def _bytes(features: np.ndarray | None) -> bytes:
    assert features is not None
    return features.tobytes()
