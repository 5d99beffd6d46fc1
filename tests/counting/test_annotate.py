"""Pictures of a count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raydual.counting.annotate import LARGEST, MARK, NEWEST, SMALLEST, annotate, fit, save_gif
from raydual.counting.one_count import Counted


def counted(points: list, stopped: str = "done") -> Counted:
    places = np.array(points, dtype=float).reshape(-1, 2)
    looks = np.arange(1, len(points) + 1)
    return Counted(places, [0.1] * len(points), stopped, looks, np.ones(len(points)))


def colour_near(picture: Image.Image, x: float, y: float, radius: int) -> set:
    box = (round(x) - radius, round(y) - radius, round(x) + radius, round(y) + radius)
    return {colour for _, colour in picture.crop(box).getcolors(1 << 16)}


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (5000, 10), (1000, 1000), (3000, 4000)])
def test_pictures_have_a_size_to_look_at(size: tuple[int, int]) -> None:
    image = fit(Image.new("RGB", size))
    assert SMALLEST <= max(image.size) <= LARGEST
    assert min(image.size) >= 1


def test_every_point_is_marked_and_the_image_is_otherwise_left_alone() -> None:
    image = Image.new("RGB", (800, 600), "white")
    points = [(0, 0), (400, 300), (799, 599)]
    result = counted(points)
    picture = annotate(image, result.points, result, "pear")
    assert picture.width == 800
    assert picture.height > 600
    for x, y in points:
        assert MARK in colour_near(picture, x, y, 16)
    assert colour_near(picture, 200, 450, 40) == {(255, 255, 255)}
    assert colour_near(picture, 700, 615, 10) == {(250, 250, 250)}, "the strip below stays clean"


@pytest.mark.parametrize("category", ["", "日本 👩‍🌾", "two\nlines\t" * 30])
def test_any_category_and_no_object(category: str) -> None:
    image = Image.new("RGB", (20, 30))
    result = counted([], "max_objects")
    assert annotate(image, result.points, result, category).width > 20


@pytest.mark.parametrize("objects", [0, 1, 40])
def test_frames_grow_mark_by_mark(tmp_path: Path, objects: int) -> None:
    points = [(20 + 18 * (i % 20), 60 + 100 * (i // 20)) for i in range(objects)]
    image = Image.new("RGB", (400, 300), (200, 180, 160))
    result = counted(points)
    save_gif(tmp_path / "a.gif", image, result.points, result, "pear")
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == objects + 1
        changed, durations, previous = [], [], None
        for frame in range(animation.n_frames):
            animation.seek(frame)
            pixels = np.asarray(animation.convert("RGB"), dtype=int)[:360]  # without the strip
            if previous is not None:
                changed.append(int((np.abs(pixels - previous).sum(axis=2) > 60).sum()))
            previous = pixels
            durations.append(animation.info["duration"])
    assert len(changed) == objects
    assert all(pixels > 20 for pixels in changed)
    assert sum(durations) <= 18_000
    assert durations[-1] == 2500


def test_marks_keep_their_colours_on_a_photograph(tmp_path: Path) -> None:
    """Of 255 colours chosen for these pixels none is a mark's."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8))
    points = rng.uniform((10, 10), (390, 290), (60, 2)).tolist()
    result = counted(points)
    save_gif(tmp_path / "a.gif", image, result.points, result, "pear")
    with Image.open(tmp_path / "a.gif") as animation:
        for frame in (1, 30, 60):
            animation.seek(frame)
            x, y = np.array(points[frame - 1]) * 480 / 400
            assert NEWEST in colour_near(animation.convert("RGB"), x, y, 9)
        x, y = np.array(points[0]) * 480 / 400
        assert MARK in colour_near(animation.convert("RGB"), x, y, 9)
