import numpy as np
import pytest
from PIL import Image

from raydual.data.formats.synthetic import SynthConfig, rows
from raydual.data.preview import preview
from raydual.data.schema import Row, write_dataset
from raydual.errors import DataError


@pytest.fixture
def dataset(tmp_path):
    config = SynthConfig(images=12, image_size=64, min_objects=0, max_objects=40)
    write_dataset(rows(config), tmp_path / "set", source="")
    return tmp_path / "set"


@pytest.mark.parametrize("order", ["reading_order", "left_to_right", "nearest_neighbor"])
def test_a_sheet_shows_what_is_asked_for(dataset, tmp_path, order):
    assert preview(dataset, tmp_path / "sheet.png", n=4, order=order) == 4
    width, height = Image.open(tmp_path / "sheet.png").size
    assert (width, height) == (2 * 366 + 6, 2 * (360 + 22 + 6) + 6)


def test_fewer_images_than_asked_for_are_all_shown(dataset, tmp_path):
    assert preview(dataset, tmp_path / "sheet.png", n=100, split="val") == 1


def test_a_point_is_marked_where_it_is(tmp_path):
    image = tmp_path / "grey.png"
    Image.new("RGB", (100, 50), (128, 128, 128)).save(image)
    points = np.array([[75.0, 25.0]])
    only = Row("a" * 200, "train", "pear", image.read_bytes(), 100, 50, points)
    write_dataset([only], tmp_path / "set", source="")
    preview(tmp_path / "set", tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)[6:186, 6:366]
    marked = np.argwhere(np.abs(sheet - 128).sum(axis=2) > 60)
    np.testing.assert_allclose(marked.mean(axis=0), [90, 270], atol=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "random"}, "choose one of reading_order"),
        ({"split": "dev"}, "choose one of train"),
        ({"n": 0}, "expected 1 or more"),
    ],
)
def test_wrong_options(dataset, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        preview(dataset, tmp_path / "sheet.png", **options)


def test_places_that_cannot_be_written(dataset, tmp_path):
    with pytest.raises(DataError, match="cannot write"):
        preview(dataset, tmp_path / "none/sheet.png")
    with pytest.raises(DataError, match=r"no \.png"):
        preview(dataset, tmp_path / "sheet.txt")
