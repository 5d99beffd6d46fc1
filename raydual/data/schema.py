"""The dataset: Parquet shards of rows, one row an image with the points of its objects.

    OUT/train/shard-00000.parquet ...     OUT/val/...     OUT/test/...
    OUT/dataset.json                      the manifest, written last

Rows are written in a pseudo-random order that depends on their ids alone, in row groups of
`ROW_GROUP_ROWS`, so that a training which shuffles whole row groups sees them well mixed.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raydual.data.manifest import Manifest, SplitInfo, read_manifest, write_manifest
from raydual.data.shard_checks import check_columns, refuse_nulls
from raydual.data.storage import appears_whole, first_line, join, open_filesystem, refuse_occupied
from raydual.errors import DataError

SPLITS = ("train", "val", "test")
ROW_GROUP_ROWS = 64
SHARD_ROWS = 1024
SHARD_BYTES = 64 * 2**20

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("category", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("points", pa.list_(pa.struct([("x", pa.float64()), ("y", pa.float64())]))),
    ]
)
LEAVES = [*SCHEMA.names[:-1], "points.list.element.x", "points.list.element.y"]


@dataclass(frozen=True)
class Row:
    """One stored image and the objects of one category in it.

    `points` is (N, 2) float64: x to the right and y down from the top left corner, in pixels of
    the image with its EXIF orientation applied, which spans [0, width] x [0, height].
    """

    id: str
    split: str
    category: str
    image: bytes
    width: int
    height: int
    points: np.ndarray


def placement(row_id: str) -> bytes:
    """A key that sorts ids pseudo-randomly, the same way everywhere."""
    return hashlib.blake2b(row_id.encode(), digest_size=8).digest()


def write_dataset(
    rows: Iterable[Row],
    out: str | Path,
    *,
    source: str,
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> Manifest:
    """Write rows, read once, as a new dataset; at most one shard a split is held in memory.

    Rows are shuffled within a shard only: hand them over in the order of `placement` of their
    ids where that order could matter.

    A local dataset appears whole or not at all. On an object store the manifest comes last, and
    a folder without one is no dataset.

    Args:
        rows: any order; ids must be unique.
        out: a local folder or URI that does not exist yet, or is empty.
        source: where the rows come from, in a few words.
        left_out: reason to names; their numbers are stored, as of when the rows are consumed.

    Raises:
        DataError: `out` is taken or cannot be written, an id occurs twice, or there are no rows.
    """
    refuse_occupied(out)
    left_out = {} if left_out is None else left_out  # not `or`: it may fill while rows are read
    with appears_whole(out) as (filesystem, folder):
        writers = {split: _SplitWriter(filesystem, folder, split) for split in SPLITS}
        categories = _write_rows(rows, writers, left_out)
        manifest = Manifest(
            source=source,
            splits={split: writer.info for split, writer in writers.items()},
            categories=sorted(categories),
            left_out={why: len(names) for why, names in left_out.items() if names},
        )
        write_manifest(manifest, filesystem, folder)
    return manifest


def shards(path: str | Path, split: str) -> list[str]:
    """The Parquet files of one split, each an absolute local path or a URI.

    Raises:
        DataError: no dataset there, an unknown or empty split, or a shard that is missing.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} does not exist; choose one of {', '.join(SPLITS)}")
    info = read_manifest(path).splits.get(split, SplitInfo())
    if info.images == 0:
        raise DataError(
            f"split {split!r} of {path} is empty; import again with --resplit 0.8,0.1,0.1"
        )
    files = []
    for number in range(info.shards):
        file = join(path, _shard_name(split, number))
        filesystem, inner = open_filesystem(file)
        kind = filesystem.get_file_info(inner).type
        if kind != pafs.FileType.File:
            what = "missing" if kind == pafs.FileType.NotFound else "no file"
            raise DataError(f"shard {file} is {what}; make the dataset {path} again")
        files.append(file)
    return files


def read_rows(
    path: str | Path, split: str | None = None, columns: Sequence[str] | None = None
) -> Iterator[Row]:
    """Rows of one split, or of all that are not empty, in stored order.

    Args:
        path: a local folder or URI.
        split: one of `SPLITS`, or None for all.
        columns: the columns to read; fields of the others are empty. None reads all.

    Raises:
        DataError: as `shards`, at once; or, while reading, a shard that is no valid Parquet.
    """
    splits = read_manifest(path).splits
    wanted = [split] if split else [name for name in SPLITS if splits.get(name, SplitInfo()).images]
    return _read_shards([shard for name in wanted for shard in shards(path, name)], columns)


def rows_of(table: pa.Table | pa.RecordBatch) -> Iterator[Row]:
    """The rows of an Arrow table or batch; fields whose columns are not there are empty."""
    names = [name for name in table.schema.names if name in SCHEMA.names]
    columns = [table.column(name) for name in names]
    empty = {"id": "", "split": "", "category": "", "image": b"", "width": 0, "height": 0}
    for index in range(table.num_rows):
        fields = dict(empty, points=np.empty((0, 2)))
        for name, column in zip(names, columns, strict=True):
            fields[name] = _points(column[index]) if name == "points" else column[index].as_py()
        yield Row(**fields)  # type: ignore[arg-type]


def _points(cell: pa.ListScalar) -> np.ndarray:
    """A list of x, y structs as (N, 2) float64."""
    values = cell.values
    if values is None:
        return np.empty((0, 2))
    return np.column_stack([values.field(axis).to_numpy(zero_copy_only=False) for axis in "xy"])


@contextlib.contextmanager
def open_shard(file: str) -> Iterator[pq.ParquetFile]:
    """Open a shard, given as `shards` does.

    An image that many rows share by a dictionary is not copied for each of them.

    Raises:
        DataError: it cannot be read, now or inside the block, lacks a column of `SCHEMA` or has
            one of another type.
    """
    filesystem, inner = open_filesystem(file)
    try:
        with _parquet(filesystem, inner) as parquet:
            check_columns(parquet, SCHEMA)
            yield parquet
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"shard {file} cannot be read: {first_line(error)}; make the dataset again"
        ) from error


def _parquet(filesystem: pafs.FileSystem, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, filesystem=filesystem, read_dictionary=["image"])
    except KeyError:
        raise pa.ArrowInvalid("it has no column 'image'") from None


def _read_shards(files: Sequence[str], columns: Sequence[str] | None) -> Iterator[Row]:
    for file in files:
        with open_shard(file) as parquet:
            for batch in parquet.iter_batches(ROW_GROUP_ROWS, columns=columns):
                refuse_nulls(batch)
                yield from rows_of(batch)


def _write_rows(
    rows: Iterable[Row], writers: Mapping[str, "_SplitWriter"], left_out: Mapping[str, Sequence]
) -> set[str]:
    """Hand each row to the writer of its split; returns the categories met."""
    ids: set[str] = set()
    categories: set[str] = set()
    for row in rows:
        if row.id in ids:
            raise DataError(f"id {row.id!r} occurs twice: expected one row each; rename one image")
        if row.split not in writers:
            raise DataError(f"split {row.split!r} of {row.id!r}: expected {', '.join(SPLITS)}")
        writers[row.split].add(row)
        ids.add(row.id)
        categories.add(row.category)
    if not ids:
        reasons = [
            f"{why} ({len(names)}: {names[0]} ...)" for why, names in left_out.items() if names
        ]
        raise DataError(f"no image to write; left out: {', '.join(reasons) or 'nothing'}")
    for writer in writers.values():
        writer.flush()
    return categories


class _SplitWriter:
    """Collects the rows of one split and writes them as shards."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, split: str) -> None:
        self.info = SplitInfo()
        self._filesystem, self._folder, self._split = filesystem, folder, split
        self._rows: list[Row] = []
        self._bytes = 0

    def add(self, row: Row) -> None:
        if len(self._rows) == SHARD_ROWS or self._bytes + len(row.image) > SHARD_BYTES:
            self.flush()
        self._rows.append(row)
        self._bytes += len(row.image)
        self.info.images += 1
        self.info.objects += len(row.points)

    def flush(self) -> None:
        """Write what waits, in the pseudo-random order of its ids."""
        if not self._rows:
            return
        self._filesystem.create_dir(f"{self._folder}/{self._split}")
        file = f"{self._folder}/{_shard_name(self._split, self.info.shards)}"
        with self._filesystem.open_output_stream(file) as stream:
            pq.write_table(
                _to_table(sorted(self._rows, key=lambda row: placement(row.id))),
                stream,
                row_group_size=ROW_GROUP_ROWS,
                compression={name: "none" if name == "image" else "zstd" for name in LEAVES},
                use_dictionary=["split", "category"],
            )
        self.info.shards += 1
        self._rows, self._bytes = [], 0


def _to_table(rows: Sequence[Row]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    columns["points"] = [[{"x": x, "y": y} for x, y in row.points.tolist()] for row in rows]
    return pa.table(columns, schema=SCHEMA)


def _shard_name(split: str, number: int) -> str:
    return f"{split}/shard-{number:05d}.parquet"
