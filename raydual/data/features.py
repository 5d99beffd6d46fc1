"""Features of images that are kept: computed once by a frozen tower, read in every epoch.

They lie beside the runs, as one Parquet file for the rows of a row group in one view. A file
appears whole or not at all, so what was computed before a job was killed is not computed again.
"""

from __future__ import annotations

import contextlib
import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from raydual.data.loading import Preparation, Sample, load_unit
from raydual.data.patience import patiently
from raydual.data.plan import Unit
from raydual.data.sample_table import from_table, to_table
from raydual.data.storage import first_line, join, open_filesystem, write_whole
from raydual.errors import DataError, StorageError

FOLDER = ".features"
"""In `run.storage`; it has a folder for each tower, size, number of views and dataset."""

FORMAT = 1
_ROW = "row"


@dataclass(frozen=True)
class KeptFeatures:
    """Where the features of one tower, image size and dataset lie.

    path: absolute, or a URI. views: number of views of a training image. View 0 is the image as it
    is; view n is what `augment` makes in epoch n with `seed`.
    """

    path: str
    views: int
    seed: int

    def file(self, unit: Unit) -> str:
        """Return the file that holds the rows of a unit, in view `view(unit)`."""
        shard = PurePosixPath(unit.shard.partition("?")[0])
        name = f"{shard.parent.name}-{shard.stem}-{unit.row_group:05d}-{self.view(unit):03d}"
        return join(self.path, f"{name}.parquet")

    def view(self, unit: Unit) -> int:
        """Return the kept view that a unit reads: its `view` modulo `views`."""
        return unit.view % self.views

    def has(self, unit: Unit) -> bool:
        """Whether the unit's file is there."""
        filesystem, path = open_filesystem(self.file(unit))
        return bool(filesystem.get_file_info(path).is_file)

    def images(self, unit: Unit, side: int, order: str) -> list[Sample]:
        """Return the images of a unit, without features, in view `view(unit)`."""
        view = self.view(unit)
        augment = (self.seed, view) if view else None
        return load_unit(replace(unit, view=0), Preparation(side, order, augment))

    def write(self, unit: Unit, samples: Sequence[Sample]) -> None:
        """Write one file with all the rows that training reads from a row group.

        Raises:
            StorageError: the folder cannot be written, or is full.
        """
        table = to_table(samples).append_column(_ROW, pa.array(unit.rows, pa.int64()))
        content = io.BytesIO()
        pq.write_table(table, content, compression="none", use_dictionary=False)
        filesystem, path = open_filesystem(self.file(unit))
        # of a name of its own: trials of a search may compute the same at the same time
        own = f"{path}.{uuid.uuid4().hex}"

        def write() -> None:
            write_whole(filesystem, own, content.getvalue())
            filesystem.move(own, path)

        try:
            patiently(write)
        except OSError as error:
            with contextlib.suppress(OSError):
                filesystem.delete_file(f"{own}.new")
            raise StorageError(
                f"cannot write features into {self.path}: {first_line(error)}; free some space, or "
                "name another folder with data.features"
            ) from error

    def read(self, unit: Unit, side: int) -> list[Sample]:
        """Return the samples of a unit in its order.

        Raises:
            DataError: the file is gone or damaged.
        """
        filesystem, path = open_filesystem(self.file(unit))
        try:
            table = patiently(lambda: pq.read_table(path, filesystem=filesystem))
            place = {row: i for i, row in enumerate(table[_ROW].to_pylist())}
            found = list(from_table(table.take([place[row] for row in unit.rows]), side))
        except (OSError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"kept features {self.file(unit)} cannot be read: {first_line(error)}; remove the "
                "file, and start again: it will be computed anew"
            ) from error
        return [sample.in_view(unit.view) for sample in found]
