"""The manifest of a dataset, `dataset.json`: what it says of itself.

It is written last, so that a folder without one is no dataset.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.fs as pafs
from pydantic import BaseModel, Field, ValidationError

from raydual.data.storage import first_line, open_filesystem, refuse_special
from raydual.errors import DataError

FORMAT, VERSION = "raydual-dataset", 1
MANIFEST = "dataset.json"


class SplitInfo(BaseModel):
    """How much one split holds."""

    images: int = Field(0, ge=0)
    objects: int = Field(0, ge=0)
    shards: int = Field(0, ge=0)


class Manifest(BaseModel):
    """The contents of dataset.json.

    `left_out` counts what an importer met and did not store, by reason.
    """

    format: str = FORMAT
    version: int = VERSION
    source: str
    splits: dict[str, SplitInfo]
    categories: list[str]
    left_out: dict[str, int] = {}


def write_manifest(manifest: Manifest, filesystem: pafs.FileSystem, folder: str) -> None:
    """Write the manifest, which makes the folder a dataset."""
    with filesystem.open_output_stream(f"{folder}/{MANIFEST}") as stream:
        stream.write(json.dumps(manifest.model_dump(), indent=2).encode() + b"\n")


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of the dataset at a local path or URI.

    Raises:
        DataError: nothing is there, it is no dataset, or a newer version wrote it.
    """
    filesystem, root = open_filesystem(path)
    try:
        refuse_special(filesystem, f"{root}/{MANIFEST}")
        with filesystem.open_input_stream(f"{root}/{MANIFEST}") as stream:
            manifest = Manifest.model_validate_json(stream.read())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"no dataset at {path}: {MANIFEST} is not there; make one with `raydual data synth` "
            "or `raydual data import`"
        ) from error
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{path}/{MANIFEST} cannot be read: {first_line(error)}; make the dataset again"
        ) from error
    if (manifest.format, manifest.version) != (FORMAT, VERSION):
        raise DataError(
            f"{path}/{MANIFEST} says {manifest.format} version {manifest.version}, expected "
            f"{FORMAT} version {VERSION}; make the dataset again with this raydual"
        )
    return manifest
