"""Datasets: Parquet shards and their manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.case import Case
from tests.hostile.images import jpeg_cut, png
from tests.hostile.materials import TRAIN, both, dataset, fifo, rows

FIRST = "ds/train/shard-00000.parquet"
CHECK = "data check ds"
USE = f"{TRAIN} data.path=ds"
MOST = 2**40


def manifest(**changes: Any) -> Callable[[Path], None]:
    """Return what changes a sound dataset's manifest."""

    def build(folder: Path) -> None:
        path = dataset(folder) / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return build


def shard(change: Callable[[pa.Table], pa.Table], **options: Any) -> Callable[[Path], None]:
    """Return what changes the training shard of a sound dataset."""

    def build(folder: Path) -> None:
        dataset(folder)
        pq.write_table(change(pq.read_table(folder / FIRST)), folder / FIRST, **options)

    return build


def values(**changes: Any) -> Callable[[Path], None]:
    """Return what changes values of the first row for training."""

    def change(table: pa.Table) -> pa.Table:
        train = [r for r in rows(**changes) if r["split"] == "train"]
        return pa.Table.from_pylist(train, schema=table.schema)

    return shard(change)


def content(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what changes the bytes of the training shard."""

    def build(folder: Path) -> None:
        dataset(folder)
        (folder / FIRST).write_bytes(change((folder / FIRST).read_bytes()))

    return build


def column(name: str, made: Callable[[int], pa.Array]) -> Callable[[Path], None]:
    """Return what puts another column into the training shard."""

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, made(table.num_rows))

    return shard(change)


def without(*names: str) -> Callable[[Path], None]:
    return shard(lambda table: table.drop_columns(list(names)))


def points(*pairs: tuple[float, float]) -> Callable[[Path], None]:
    return values(points=[{"x": x, "y": y} for x, y in pairs])


def deep(count: int) -> pa.Array:
    """Return lists in lists, 40 deep."""
    nested: pa.DataType = pa.float64()
    for _ in range(40):
        nested = pa.list_(nested)
    return pa.nulls(count, nested)


def swollen(folder: Path) -> None:
    """Write a shard of some kB whose images take 1 GB once decoded: one of 16 MB, 64 times."""
    dataset(folder)
    table = pq.read_table(folder / FIRST)
    one = pa.array([bytes(2**24)], pa.binary())
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), one)
    big = pa.Table.from_pylist([rows()[0] | {"id": f"{i}"} for i in range(64)], table.schema)
    place = table.column_names.index("image")
    big = big.set_column(place, "image", images)
    pq.write_table(
        big, folder / FIRST, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**28
    )


def one_split(**info: int) -> dict[str, Any]:
    return {"train": {"images": 3, "objects": 3, "shards": 1} | info, "val": {"images": 2}}


def numbers_as_text(count: int) -> pa.Array:
    return pa.array([[{"x": "1", "y": "<script>"}]] * count)


WRONG: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "no image column": (without("image"), CHECK, ("shard-00000", "image")),
    "no points column": (without("points"), USE, ("shard-00000", "points")),
    "other columns altogether": (
        shard(lambda t: pa.table({"a": [1]})), USE, ("shard-00000", "image")),
    "images as text": (
        column("image", lambda n: pa.array(["<script>"] * n)), CHECK, ("image", "string")),
    "points as text": (column("points", numbers_as_text), CHECK, ("points", "string")),
    "points as pairs": (
        column("points", lambda n: pa.array([[[1.0, 2.0]]] * n)), USE, ("points", "list")),
    "points 40 lists deep": (column("points", deep), CHECK, ("points", "list")),
    "ids as numbers": (column("id", lambda n: pa.array(range(n))), CHECK, ("id", "int64")),
    "null as an id": (values(id=None), CHECK, ("id", "null")),
    "null as a category": (values(category=None), USE, ("category", "null")),
    "null as an image": (values(image=None), CHECK, ("image", "null")),
    "null as points": (values(points=None), USE, ("points", "null")),
    "null as a coordinate": (
        values(points=[{"x": None, "y": 1.0}]), "data preview ds out/a.png", ("not finite",)),
    "cut in the middle": (content(lambda b: b[: len(b) // 2]), USE, ("shard-00000",)),
    "empty file": (content(lambda b: b""), USE, ("shard-00000",)),
    "first half of zeros": (
        content(lambda b: b[:4] + bytes(len(b) // 2) + b[4 + len(b) // 2 :]), CHECK,
        ("shard-00000",)),
    "footer longer than the file": (
        content(lambda b: b[:-8] + b"\xff\xff\xff\x7fPAR1"), CHECK, ("shard-00000",)),
    "text in the place of Parquet": (content(lambda b: b"id,split\n"), CHECK, ("shard-00000",)),
    
    "pipe in the place of a shard": (
        both(dataset, lambda f: (f / FIRST).unlink(), fifo(FIRST)), CHECK, ("shard-00000",)),
    "a billion shards": (
        manifest(splits=one_split(shards=10**9)), CHECK, ("shard-00001", "missing")),
    "-1 images": (manifest(splits=one_split(images=-1)), CHECK, ("dataset.json", "images")),
    "manifest is a list": (
        both(dataset, lambda f: (f / "ds/dataset.json").write_text("[]")), CHECK,
        ("dataset.json",)),
    "manifest of a million brackets": (
        both(dataset, lambda f: (f / "ds/dataset.json").write_text("[" * 10**6)), CHECK,
        ("dataset.json",)),
    "pipe in the place of the manifest": (
        both(dataset, lambda f: (f / "ds/dataset.json").unlink(), fifo("ds/dataset.json")), CHECK,
        ("dataset.json",)),
    "split named ../..": (manifest(), "data preview ds out/a.png --split ../..", ("../..",)),
    "category that is not there": (manifest(), f"{USE} data.category='<script>'", ("<script>",)),
    "corrupt picture shown": (
        values(image=jpeg_cut()), "data preview ds out/a.png", ("truncated",)),
}  # fmt: skip

SPOILT: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "swells to 1 GB": (swollen, ("corrupt image", "64")),
    "NaN as a place": (points((float("nan"), 1)), ("point outside the image", "a")),
    "infinity as a place": (points((float("inf"), 1)), ("point outside the image", "a")),
    "places far outside": (points((1e12, -5)), ("point outside the image", "a")),
    "bomb as an image": (values(image=png(65535, 65535)), ("corrupt image", "million pixels")),
    "same picture in two splits": (
        values(image=rows()[4]["image"]),
        ("same picture in two splits",),
    ),
}

TRAINED: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "NaN to train on": (points((float("nan"), 1)), ("1 of 3 images", "(a)")),
    "places far outside to train on": (points((1e12, -5)), ("1 of 3 images", "(a)")),
    "bomb to train on": (values(image=png(65535, 65535)), ("1 of 3 images", "(a)")),
}

CASES = [
    *(Case("Parquet", name, build, command, says)
      for name, (build, command, says) in WRONG.items()),
    *(Case("Parquet", name, build, CHECK, says, 1) for name, (build, says) in SPOILT.items()),
    *(Case("Parquet", name, build, f"{USE} train.max_iterations=2", says, 1)
      for name, (build, says) in TRAINED.items()),
]  # fmt: skip
