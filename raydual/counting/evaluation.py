"""What one evaluation is of, what it is made of, and the files it leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydual.counting.closed_loop import MAX_OBJECTS, REPEAT_RADIUS
from raydual.counting.looks import ALL
from raydual.counting.subject import Subject
from raydual.data.plan import Unit, num_rows, read_index, rows_at, slice_rows
from raydual.data.schema import Row, open_shard, rows_of
from raydual.data.storage import file_version, first_line, join, open_filesystem, write_whole
from raydual.errors import ConfigError
from raydual.version import __version__

FIGURES_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "report.html"
PART_ROWS = 16
_FINGERPRINT = b"raydual.fingerprint"


@dataclass(frozen=True)
class Evaluation:
    """A model, the images it is to count, and where the results go.

    data, out: absolute paths or URIs. Every row of the split is counted that is of the category
    the model was trained on, if that is one alone; the limits `data.min_objects` and
    `data.max_objects` are left aside, since they would choose images by the right answer. cells:
    thresholds of a cell, each image is counted with each of them; none: with the subject's.
    most_images: count so many images at the most, evenly spread over the split; None: all.
    """

    subject: Subject
    data: str
    split: str
    out: str
    max_objects: int = MAX_OBJECTS
    repeat_radius: float = REPEAT_RADIUS
    cells: tuple[float, ...] = ()
    most_images: int | None = None

    @cached_property
    def parts(self) -> list[Unit]:
        """The rows to count, in parts that are finished or not.

        Raises:
            DataError: as `read_index`.
        """
        units = read_index(self.data, self.split, category=self.subject.config.data.category)
        images = num_rows(units)
        if self.most_images is not None and images > self.most_images:
            places = np.linspace(0, images - 1, self.most_images).round().astype(int)
            units = rows_at(units, places.tolist())
        return [
            Unit(unit.shard, unit.row_group, unit.rows[start : start + PART_ROWS])
            for unit in units
            for start in range(0, len(unit.rows), PART_ROWS)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Of all that the predictions depend on: weights, rows, settings, version."""
        about = {
            "version": __version__,
            "model": self.subject.digest,
            "parts": [dataclasses.astuple(unit) for unit in self.parts],
            "shards": {shard: file_version(shard) for shard in {unit.shard for unit in self.parts}},
            "limits": [self.max_objects, self.repeat_radius, self.subject.most, self.cells],
            "thresholds": dataclasses.astuple(self.subject.thresholds),
        }
        content = json.dumps(about, sort_keys=True).encode()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    def row(self, place: int) -> Row:
        """Return the row whose prediction is at this place in predictions.parquet.

        Raises:
            DataError: its shard can no longer be read.
        """
        (unit,) = slice_rows(self.parts, place, place + 1)
        with open_shard(unit.shard) as parquet:
            (row,) = rows_of(parquet.read_row_group(unit.row_group).take(list(unit.rows)))
        return row

    def about(self) -> dict[str, Any]:
        """Return what evaluation.json says beside the figures."""
        return {
            "model": self.subject.path,
            "data": self.data,
            "split": self.split,
            "max_objects": self.max_objects,
            "repeat_radius": self.repeat_radius,
            "threshold": self.subject.thresholds.done,
            "cell_threshold": self.subject.thresholds.cell,
            "per_look": ALL if self.subject.most == sys.maxsize else self.subject.most,
            **{f"epoch_{task}": epoch for task, epoch in self.subject.epochs.items()},
        }

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the results, whole or not at all.

        Raises:
            ConfigError: `out` cannot be written.
        """
        filesystem, path = open_filesystem(join(self.out, name))
        try:
            write_whole(filesystem, path, content)
        except OSError as error:
            raise ConfigError(
                f"cannot write into {self.out}: {first_line(error)}; choose another --out"
            ) from None

    def write_predictions(self, table: pa.Table) -> None:
        """Write predictions.parquet, which knows of which evaluation it is."""
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({_FINGERPRINT: self.fingerprint}), content)
        self.write(PREDICTIONS_FILE, content.getvalue())

    def read_predictions(self) -> pa.Table | None:
        """Return predictions.parquet where it is there and of this evaluation."""
        filesystem, path = open_filesystem(join(self.out, PREDICTIONS_FILE))
        if not filesystem.get_file_info(path).is_file:
            return None
        try:
            table = pq.read_table(path, filesystem=filesystem)
        except (OSError, pa.ArrowException):
            return None  # it will be written anew
        known = (table.schema.metadata or {}).get(_FINGERPRINT, b"").decode()
        return table if known == self.fingerprint else None
