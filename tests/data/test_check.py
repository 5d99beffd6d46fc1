import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from raydual.data.check import Report, check, histogram, show
from raydual.data.schema import Row, write_dataset
from raydual.errors import DataError


def picture(seed: int, quality: int = 95, size: int = 64) -> bytes:
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.resize((size, size)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def row(name: str, split: str, image: bytes, points: list, size: int = 64) -> Row:
    return Row(name, split, "pear", image, size, size, np.array(points, float).reshape(-1, 2))


GOOD = [
    row("a", "train", picture(1), [[1, 1], [30, 30]]),
    row("b", "train", picture(2), [[5, 5], [64, 64], [0, 0]]),
    row("c", "val", picture(3), [[9, 9]]),
]


@pytest.fixture
def found(tmp_path):
    """A function that writes rows, checks them and returns count and severity by finding."""

    def run(rows: list[Row], **options) -> tuple[Report, dict[str, tuple[int, str]]]:
        write_dataset(rows, tmp_path / "set", source="a test", **options)
        report = check(tmp_path / "set")
        return report, {f.what: (f.count, f.severity) for f in report.findings}

    return run


def test_a_good_dataset_has_no_findings(found):
    report, findings = found(GOOD)
    assert findings == {}
    assert not report.breaks_training
    assert sorted(report.counts) == [1, 2, 3]


def test_corrupt_images_and_points_outside_break_training(found):
    report, findings = found(
        [
            *GOOD,
            row("cut", "train", picture(4)[:200], [[1, 1]]),
            row("out", "train", picture(5), [[64.5, 3], [-1, 3], [4, float("nan")], [4, 4]]),
        ]
    )
    assert findings["corrupt image"] == (1, "error")
    assert findings["point outside the image"] == (3, "error")
    assert report.breaks_training
    assert report.findings[0].names[0].startswith("cut: image cannot be decoded")


def test_the_same_picture_twice_in_one_split_is_no_leak(found):
    assert found([*GOOD, row("a:apple", "train", picture(1), [[1, 1]])])[1] == {}


def test_the_same_pixels_in_two_splits_break_training_in_other_bytes_too(found):
    png = io.BytesIO()
    Image.open(io.BytesIO(picture(1))).save(png, "PNG")
    report, findings = found([*GOOD, row("copy", "val", png.getvalue(), [[1, 1]])])
    assert findings["same picture in two splits"] == (1, "error")
    assert report.findings[0].names == ["a (train) = copy (val)"]
    assert report.breaks_training


def test_a_recompressed_or_resized_picture_is_a_warning(found):
    recompressed = row("low", "val", picture(1, quality=60), [[1, 1]])
    resized = row("big", "test", picture(2, size=128), [[1, 1]], 128)
    report, findings = found([*GOOD, recompressed, resized])
    assert findings == {"pictures of two splits look alike": (2, "warning")}
    assert not report.breaks_training


def test_plain_pictures_with_small_different_objects_do_not_look_alike(found):
    rows = []
    for i, split in enumerate(["train", "train", "val", "val"]):
        image = Image.new("RGB", (96, 96), (90, 120, 150))
        image.paste((250, 240, 20), (10 + 20 * i, 40, 20 + 20 * i, 50))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        rows.append(row(f"p{i}", split, buffer.getvalue(), [[15 + 20 * i, 45]], 96))
    assert found(rows)[1] == {}


def test_warnings_and_notes(found):
    report, findings = found(
        [
            *GOOD,
            row("twice", "train", picture(6), [[10, 10], [10.2, 10.2], [40, 40]]),
            row("size", "train", picture(7), [[10, 10]], 63),
            row("none", "train", picture(8), []),
        ],
        left_out={"box without area": ["x", "y"]},
    )
    assert findings == {
        "width or height is not the image's": (1, "warning"),
        "points within 2 px of each other": (1, "warning"),
        "image without objects": (1, "info"),
        "at import: box without area": (2, "info"),
    }
    assert not report.breaks_training


def test_an_id_of_several_rows_is_a_warning(found, tmp_path):
    found([*GOOD, row("d", "train", picture(4), [[1, 1]])])
    (shard,) = (tmp_path / "set" / "train").glob("*.parquet")
    table = pq.read_table(shard)
    ids = ["a" for _ in range(table.num_rows)]
    pq.write_table(table.set_column(table.schema.get_field_index("id"), "id", [ids]), shard)
    findings = {f.what: (f.count, f.severity) for f in check(tmp_path / "set").findings}
    assert findings["id of several rows"] == (2, "warning")


def test_two_pixels_are_of_the_reference_frame(found):
    # 64 px stand for 384: 2 px are a third of a pixel here
    apart = row("apart", "train", picture(6), [[10, 10], [10.4, 10]])
    assert found([*GOOD, apart])[1] == {}


def test_an_empty_split_breaks_training(found):
    report, findings = found(GOOD[:2])
    assert findings == {"split val is empty": (1, "error")}
    assert report.breaks_training


def test_histogram_covers_every_count():
    assert histogram([1, 1, 3]) == [("1", 2), ("2", 0), ("3", 1)]
    wide = histogram([0, 5, 119, 120])
    assert len(wide) <= 12
    assert sum(number for _, number in wide) == 4
    assert wide[0] == ("0-10", 2)
    assert histogram([7]) == [("7", 1)]


def test_a_report_is_printed(found):
    report, _ = found([*GOOD, row("[bold]", "train", picture(9), [])])
    console = Console(record=True, width=100, file=io.StringIO())
    show(report, console)
    text = console.export_text()
    assert "image without objects" in text
    assert "[bold]" in text
    assert "█" in text


def test_no_dataset(tmp_path):
    with pytest.raises(DataError, match="no dataset at"):
        check(tmp_path)
