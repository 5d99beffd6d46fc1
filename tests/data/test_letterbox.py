import numpy as np
import pytest
from PIL import Image

from raydual.data.letterbox import Letterbox


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (96, 96), (1000, 3), (1, 1), (383, 777)])
def test_points_map_there_and_back_exactly(size: tuple[int, int]) -> None:
    box = Letterbox(*size, 96)
    points = np.random.default_rng(0).uniform(0, 1, (50, 2)) * size
    assert np.abs(box.to_pixels(box.to_canvas(points)) - points).max() < 1e-9


def test_canvas_coordinates_by_hand() -> None:
    box = Letterbox(200, 100, 50)
    assert box.fitted == (50, 25)
    corners = box.to_canvas(np.array([[0, 0], [200, 100], [100, 50]]))
    assert corners.tolist() == [[-1, -1], [1, 0], [0, -0.5]]


def test_clip_moves_points_off_the_padding() -> None:
    points = np.array([[0.5, 0.9], [-0.5, -0.5], [1.0, 1.0]])
    assert Letterbox(200, 100, 50).clip(points).tolist() == [[0.5, 0], [-0.5, -0.5], [1, 0]]


def test_a_pixel_lands_where_its_point_says() -> None:
    image = Image.new("RGB", (80, 40))
    image.paste((255, 255, 255), (60, 20, 64, 24))
    box = Letterbox(80, 40, 40)
    canvas = box.apply(image)
    y, x = np.argwhere(canvas[..., 0] > 128).mean(axis=0) + 0.5
    expected = (box.to_canvas(np.array([[62, 22]]))[0] + 1) / 2 * 40
    assert np.abs([x, y] - expected).max() < 0.01
    assert canvas.shape == (40, 40, 3)
    assert not canvas[20:].any()
