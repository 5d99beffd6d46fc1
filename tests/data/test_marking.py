import numpy as np
import pytest

from raydual.data.marking import STYLES, draw_marks

GREY = np.full((96, 96, 3), 128, dtype=np.uint8)


@pytest.mark.parametrize("style", STYLES)
def test_marks_lie_on_their_points(style: str) -> None:
    marked = draw_marks(GREY, np.array([[0.5, -0.25]]), style, 0.7)
    changed = np.abs(marked.astype(int) - 128).sum(axis=2)
    y, x = np.argwhere(changed > 0).mean(axis=0) + 0.5
    assert (x, y) == pytest.approx((72, 36), abs=1.0)
    assert marked[36, 72, 1] > marked[36, 72, 0] or style == "numbers"


@pytest.mark.parametrize("style", STYLES)
def test_alpha_is_opacity(style: str) -> None:
    point = np.array([[0.0, 0.0]])
    assert np.array_equal(draw_marks(GREY, point, style, 0.0), GREY)
    weak, strong = (
        np.abs(draw_marks(GREY, point, style, a).astype(int) - 128).sum() for a in (0.3, 0.9)
    )
    assert 0 < weak < strong


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("point", [(-1, -1), (1, 1), (5, 0), (-3, -3)])
def test_marks_at_and_beyond_the_edge(style: str, point: tuple[float, float]) -> None:
    assert draw_marks(GREY, np.array([point]), style, 0.5).shape == GREY.shape


def test_the_canvas_itself_stays_clean_and_no_marks_change_nothing() -> None:
    before = GREY.copy()
    draw_marks(GREY, np.array([[0.0, 0.0]]), "numbers", 0.5)
    assert np.array_equal(GREY, before)
    assert np.array_equal(draw_marks(GREY, np.zeros((0, 2)), "numbers", 0.5), GREY)


def test_numbers_differ() -> None:
    big = np.full((384, 384, 3), 128, dtype=np.uint8)
    first, second = (
        draw_marks(big, np.array(p), "numbers", 1.0) for p in ([[0, 0]], [[9, 9], [0, 0]])
    )
    assert not np.array_equal(first[170:214, 170:214], second[170:214, 170:214])
