import time

import numpy as np
import pytest
from pydantic import ValidationError

from raydual.data.formats import synthetic
from raydual.data.formats.synthetic import SHAPES, SynthConfig, draw, rows, splits_of
from raydual.data.images import decode_image


def test_an_image_depends_on_seed_and_index_alone():
    few, many = SynthConfig(images=10), SynthConfig(images=1000)
    for index in (0, 7):
        a, b = draw(few, index), draw(many, index)
        assert a.image.tobytes() == b.image.tobytes()
        assert a.category == b.category
        np.testing.assert_array_equal(a.points, b.points)
    assert draw(few, 0).image.tobytes() != draw(few, 1).image.tobytes()
    assert draw(few, 0).image.tobytes() != draw(SynthConfig(seed=1), 0).image.tobytes()


def test_rows_are_reproducible_and_split():
    config = SynthConfig(images=20, image_size=64)
    first, second = list(rows(config)), list(rows(config))
    assert [r.image for r in first] == [r.image for r in second]
    assert len({r.id for r in first}) == 20
    assert [r.split for r in first] == ["train"] * 16 + ["val"] * 2 + ["test"] * 2
    assert all(decode_image(r.image).size == (64, 64) == (r.width, r.height) for r in first)


@pytest.mark.parametrize("images", [3, 4, 7, 2400])
def test_no_split_is_empty(images):
    assert set(splits_of(SynthConfig(images=images))) == {"train", "val", "test"}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_point_is_the_centre_of_mass_in_continuous_pixels(shape):
    config = SynthConfig(
        background="plain", categories=(shape,), max_objects=1, min_size=0.2, max_size=0.3
    )
    errors = []
    for index in range(20):
        drawing = draw(config, index)
        pixels = np.asarray(drawing.image).astype(float)
        cover = np.abs(pixels - pixels[0, 0]).sum(axis=2)
        rows_, columns = np.indices(cover.shape) + 0.5
        centre = [(cover * axis).sum() / cover.sum() for axis in (columns, rows_)]
        errors.append(drawing.points[0] - centre)
    assert np.abs(errors).max() < 0.2
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03


@pytest.mark.parametrize("background", ["plain", "gradient", "texture"])
def test_objects_do_not_touch_and_lie_inside(background):
    config = SynthConfig(background=background, min_objects=20, max_objects=20, distractors=5)
    for index in range(5):
        points = draw(config, index).points
        assert points.shape == (20, 2)
        apart = np.linalg.norm(points[:, None] - points, axis=2) + np.eye(20) * 1000
        assert apart.min() > 3
        assert points.min() > 2
        assert points.max() < config.image_size - 2


def test_counts_are_uniform_and_exact_even_where_it_gets_tight():
    config = SynthConfig(min_objects=0, max_objects=4, image_size=48)
    counts = np.bincount([len(draw(config, i).points) for i in range(400)], minlength=5)
    assert counts.sum() == 400
    assert counts.min() > 50
    tight = SynthConfig(image_size=64, min_objects=64, max_objects=64)
    assert len(draw(tight, 0).points) == 64


def test_distractors_are_of_other_categories_and_not_counted(monkeypatch):
    painted = []
    monkeypatch.setattr(synthetic, "_paint", lambda *arguments: painted.append(arguments[1]))
    config = SynthConfig(min_objects=2, max_objects=2, distractors=6)
    extra = 0
    for index in range(20):
        painted.clear()
        assert len(draw(config, index).points) == 2
        extra = max(extra, len(painted) - 2)
    assert extra == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_objects": 5, "max_objects": 4},
        {"min_size": 0.3, "max_size": 0.2},
        {"max_objects": 10_000},
        {"categories": ("circle", "blob")},
        {"categories": ("circle",), "distractors": 1},
        {"splits": (0.5, 0.1, 0.1)},
        {"images": 0},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ValidationError):
        SynthConfig(**wrong)


def test_it_is_fast():
    config = SynthConfig(images=100)
    start = time.process_time()
    list(rows(config))
    assert (time.process_time() - start) / 100 < 0.015  # 2.5 ms where it was measured
