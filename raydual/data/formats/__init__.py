"""Importers: each reads the annotations of a folder into a `Source`."""

from collections.abc import Callable
from pathlib import Path

from raydual.data.formats import coco, fsc147, points_csv, voc
from raydual.data.formats.source import Source

FORMATS: dict[str, Callable[[Path], Source]] = {
    "fsc147": fsc147.read,
    "coco": coco.read,
    "voc": voc.read,
    "csv": points_csv.read,
}
