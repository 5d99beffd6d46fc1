import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sources import box, coco, photo, points_csv, run, voc

from raydual.data.formats.importing import to_image
from raydual.errors import DataError


@pytest.fixture
def two_categories(tmp_path: Path) -> Path:
    src = tmp_path / "two"
    voc(src, "a", box("cat", 0, 0, 2, 2) + box("dog", 2, 2, 4, 4) + box("dog", 6, 6, 8, 8))
    voc(src, "b", box("dog", 0, 0, 2, 2))
    voc(src, "c", "")
    return src


def test_several_categories_give_a_row_each(two_categories):
    rows, imported = run("voc", two_categories)
    assert {i: len(r.points) for i, r in rows.items()} == {"a:cat": 1, "a:dog": 2, "b:dog": 1}
    assert rows["a:cat"].split == rows["a:dog"].split
    assert imported.left_out == {"image without any annotation": ["c"]}


def test_one_category_makes_images_without_it_count_zero(two_categories):
    rows, _ = run("voc", two_categories, category="cat")
    assert {i: len(r.points) for i, r in rows.items()} == {"a": 1, "b": 0, "c": 0}


def test_limits_on_the_number_of_objects(two_categories):
    rows, imported = run("voc", two_categories, category="dog", min_objects=1, max_objects=1)
    assert set(rows) == {"b"}
    assert imported.left_out == {"more than 1 objects": ["a"], "fewer than 1 objects": ["c"]}


def test_unknown_category_lists_those_there_are(two_categories):
    with pytest.raises(DataError, match="'bird' does not occur; choose one of cat, dog"):
        run("voc", two_categories, category="bird")


def test_a_category_not_labelled_in_an_image_is_not_taken_for_absent(tmp_path):
    src = points_csv(
        tmp_path / "p",
        "image,x,y,category\na.png,1,1,cat\nb.png,1,1,dog\nc.png,,,cat\nd.png,,,\n",
    )
    for name in "abcd":
        photo(src / f"{name}.png")
    rows, imported = run("csv", src, category="cat")
    assert {i: len(r.points) for i, r in rows.items()} == {"a": 1, "c": 0, "d": 0}
    assert imported.left_out == {"image not labelled for cat": ["b"]}


def test_a_corrupt_image_is_left_out_and_named(tmp_path):
    coco(tmp_path / "c")
    (tmp_path / "c/images/b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows, imported = run("coco", tmp_path / "c")
    assert set(rows) == {"a"}
    assert imported.left_out["corrupt image"][0].startswith("b.png: image cannot be decoded")


def test_points_slightly_outside_move_onto_the_edge_others_stay(tmp_path):
    src = points_csv(tmp_path / "p", "image,x,y\na.png,-0.3,50.2\na.png,-40,10\n")
    photo(src / "a.png", (100, 50))
    rows, imported = run("csv", src)
    np.testing.assert_array_equal(rows["a"].points, [[0, 50], [-40, 10]])
    assert imported.left_out == {"point just outside, moved onto the edge": ["a"]}


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_points_turn_with_the_image(orientation):
    """A white pixel is found where its point, given before the EXIF rotation, is taken."""
    image = Image.new("L", (40, 20))
    image.paste(255, (6, 2, 10, 6))  # centre 8, 4
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    size = upright.shape[::-1]
    assert size == (20, 40)
    points = to_image(np.array([[8.0, 4.0]]), (40.0, 20.0), buffer.getvalue(), size)
    rows, columns = np.nonzero(upright)
    np.testing.assert_allclose(points[0], [columns.mean() + 0.5, rows.mean() + 0.5])


def test_a_declared_size_that_differs_scales_the_points(tmp_path):
    images = [{"id": 1, "file_name": "a.png", "width": 200, "height": 200}]
    coco(tmp_path / "c", images=images)
    rows, _ = run("coco", tmp_path / "c")  # the file has 100 x 50
    np.testing.assert_allclose(rows["a"].points, [[12.5, 6.25]])
