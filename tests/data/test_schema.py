import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raydual.data import schema, storage
from raydual.data.images import CorruptImageError, decode_image, to_rgb
from raydual.data.manifest import read_manifest
from raydual.data.schema import Row, read_rows, shards, write_dataset
from raydual.data.storage import open_filesystem
from raydual.errors import DataError


def row(number: int, split: str = "train", image: bytes = b"x", points: int = 2) -> Row:
    rng = np.random.default_rng(number)
    return Row(f"r{number}", split, "pear", image, 30, 20, rng.uniform(0, 20, (points, 2)))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_round_trip(tmp_path, scheme):
    path = f"{scheme}{tmp_path / 'set'}"
    rows = [row(i, "val" if i % 5 == 0 else "train", points=i % 4) for i in range(150)]
    left_out = {"box without area": ["a", "b"], "crowd": []}
    manifest = write_dataset(rows, path, source="a test", left_out=left_out)
    assert manifest.splits["val"].images == 30
    assert manifest.splits["test"].images == 0
    assert manifest.left_out == {"box without area": 2}
    assert read_manifest(path) == manifest
    found = {r.id: r for r in read_rows(path)}
    assert len(found) == 150
    for r in rows:
        copy = found[r.id]
        np.testing.assert_array_equal(copy.points, r.points)
        assert copy.points.dtype == np.float64
        assert (copy.split, copy.image, copy.width, copy.height) == (r.split, b"x", 30, 20)


def test_order_on_disk_is_pseudo_random_and_the_same_for_any_input_order(tmp_path):
    rows = [row(i) for i in range(200)]
    write_dataset(rows, tmp_path / "a", source="")
    write_dataset(rows[::-1], tmp_path / "b", source="")
    first = [r.id for r in read_rows(tmp_path / "a", columns=["id"])]
    assert first == [r.id for r in read_rows(tmp_path / "b", columns=["id"])]
    assert first != [r.id for r in rows]
    groups = pq.ParquetFile(shards(tmp_path / "a", "train")[0]).metadata
    assert [groups.row_group(i).num_rows for i in range(4)] == [64, 64, 64, 8]


def test_shards_are_cut_by_rows_and_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "SHARD_ROWS", 10)
    monkeypatch.setattr(schema, "SHARD_BYTES", 1000)
    write_dataset([row(i) for i in range(25)], tmp_path / "rows", source="")
    assert len(shards(tmp_path / "rows", "train")) == 3
    write_dataset([row(i, image=b"x" * 400) for i in range(5)], tmp_path / "bytes", source="")
    assert len(shards(tmp_path / "bytes", "train")) == 3
    assert len(list(read_rows(tmp_path / "bytes"))) == 5


def test_columns_not_asked_for_are_empty(tmp_path):
    write_dataset([row(1)], tmp_path / "set", source="")
    (only,) = read_rows(tmp_path / "set", "train", columns=["id", "points"])
    assert only.id == "r1"
    assert only.image == b""
    assert only.points.shape == (2, 2)


def test_nothing_remains_of_a_dataset_that_could_not_be_finished(tmp_path):
    def failing():
        yield row(1)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_dataset(failing(), tmp_path / "set", source="")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    write_dataset([row(1)], tmp_path / "set", source="")
    with pytest.raises(DataError, match="is not empty"):
        write_dataset([row(2)], tmp_path / "set", source="")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        write_dataset([row(2)], tmp_path / "file", source="")
    (tmp_path / "empty").mkdir()
    write_dataset([row(2)], tmp_path / "empty", source="")
    assert next(read_rows(tmp_path / "empty")).id == "r2"


def test_store_without_renaming_gets_its_manifest_last(tmp_path, monkeypatch):
    bucket = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    reach = SimpleNamespace(from_uri=lambda uri: (bucket, uri.split("://")[1].split("?")[0]))
    monkeypatch.setattr(storage, "pafs", SimpleNamespace(**(vars(pafs) | {"FileSystem": reach})))

    def failing():
        yield row(1)
        assert not (tmp_path / "set/dataset.json").exists()
        raise RuntimeError("the source broke")

    uri = "s3://set?region=moon"
    with pytest.raises(RuntimeError):
        write_dataset(failing(), uri, source="")
    with pytest.raises(DataError, match="no dataset at s3://set"):
        read_manifest(uri)
    write_dataset([row(1)], uri, source="")
    assert [r.id for r in read_rows(uri)] == ["r1"]
    assert shards(uri, "train") == ["s3://set/train/shard-00000.parquet?region=moon"]
    assert (tmp_path / "set/dataset.json").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(1)], "'r1' occurs twice"),
        ([row(1, "trian")], "split 'trian'"),
        ([], "no image to write"),
    ],
)
def test_rows_that_cannot_be_written(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        write_dataset(rows, tmp_path / "set", source="")
    assert not (tmp_path / "set").exists()


def test_what_was_left_out_is_told_when_nothing_remains(tmp_path):
    left_out: dict[str, list[str]] = {}

    def rows():
        left_out["corrupt image"] = ["a.jpg"]
        yield from ()

    with pytest.raises(DataError, match=r"corrupt image \(1: a.jpg"):
        write_dataset(rows(), tmp_path / "set", source="", left_out=left_out)


def test_missing_and_broken_datasets_give_one_line(tmp_path):
    path = tmp_path / "set"
    write_dataset([row(1)], path, source="")
    cases = {
        "no dataset at": lambda: read_manifest(tmp_path / "none"),
        "split 'val' of .* is empty": lambda: shards(path, "val"),
        "split 'vall' does not exist": lambda: read_rows(path, "vall"),
        "expected a local path or a URI": lambda: open_filesystem("ftp://host/x"),
    }
    for message, call in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    shard = path / "train/shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(path))
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        shards(path, "train")


@pytest.mark.parametrize("content", ["", "[]", '{"format": "raydual-dataset"}', "\x00"])
def test_a_broken_manifest_gives_one_line(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_newer_version_is_refused(tmp_path):
    manifest = {"version": 9, "source": "", "splits": {}, "categories": []}
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="version 9, expected raydual-dataset version 1"):
        read_manifest(tmp_path)


def test_relative_and_home_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.open_filesystem("set")[1] == str(tmp_path.resolve() / "set")
    assert not storage.open_filesystem("~/set")[1].startswith("~")


def modes() -> dict[str, tuple[bytes, tuple[int, int, int]]]:
    """Encoded images of many modes with the colour that they should have."""
    deep = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    return {
        "16 bit": (encoded(deep), (255, 255, 255)),
        "transparent": (encoded(clear), (255, 255, 255)),
        "LA": (encoded(Image.new("LA", (4, 4), (0, 0))), (255, 255, 255)),
        "palette": (encoded(palette), (255, 0, 0)),
        "transparent palette": (encoded(palette, transparency=0), (255, 255, 255)),
        "1 bit": (encoded(Image.new("1", (4, 4), 1)), (255, 255, 255)),
        "CMYK": (encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "TIFF"), (255, 255, 255)),
        "grey JPEG": (encoded(Image.new("L", (4, 4), 7), "JPEG"), (7, 7, 7)),
        "float": (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), (0, 0, 0)),
        "JPEG 2000": (encoded(Image.new("RGB", (4, 4), (9, 99, 0)), "JPEG2000"), (9, 99, 0)),
        "AVIF": (encoded(Image.new("RGB", (8, 8), "white"), "AVIF"), (255, 255, 255)),
        "ICO": (encoded(Image.new("RGB", (16, 16), (0, 0, 255)), "ICO"), (0, 0, 255)),
        "GIF": (encoded(Image.new("RGB", (4, 4), (0, 0, 255)), "GIF"), (0, 0, 255)),
    }


@pytest.mark.parametrize("name", modes())
def test_every_mode_becomes_rgb(name):
    data, colour = modes()[name]
    image = decode_image(data)
    assert image.mode == "RGB"
    assert image.getpixel((1, 1)) == colour


def test_a_pixel_that_is_no_number_leaves_the_others_as_they_are():
    values = np.linspace(2, 6, 16, dtype=np.float32).reshape(4, 4)
    values[0, 0], values[3, 3], values[1, 1] = -np.inf, np.inf, np.nan
    finite = values[np.isfinite(values)]
    shown = np.asarray(to_rgb(Image.fromarray(values)))[..., 0]
    low, high = finite.min(), finite.max()
    assert (shown[0, 0], shown[1, 1], shown[3, 3]) == (0, 0, 255)
    assert shown[2, 2] == int((values[2, 2] - low) / (high - low) * 255)
    assert (np.asarray(to_rgb(Image.new("F", (2, 2), float("nan")))) == 0).all()


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(image, "JPEG", exif=exif)).size == (3, 6)


def hostile() -> dict[str, bytes]:
    photo = encoded(Image.effect_noise((64, 64), 50), "JPEG")
    return {
        "nothing": b"",
        "text": b"hello",
        "truncated JPEG": photo[: len(photo) // 2],
        "truncated PNG": encoded(Image.effect_noise((64, 64), 50))[:300],
        "postscript": encoded(Image.new("RGB", (4, 4)), "EPS"),
    }


@pytest.mark.parametrize("name", hostile())
def test_what_is_no_image_is_a_data_error(name):
    with pytest.raises(CorruptImageError, match="image cannot be decoded") as caught:
        decode_image(hostile()[name])
    assert isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)


def test_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(CorruptImageError, match="more than 2 million pixels"):
        decode_image(encoded(Image.new("L", (1500, 1500))))
