"""Views of images to train on: points go with them, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from raydual.data.augment import SMALLEST_CROP, augment, crop, flip
from raydual.data.batches import BatchStream
from raydual.data.loading import Preparation, Sample, load_here
from raydual.data.ordering import ORDERS
from raydual.data.plan import read_index
from raydual.model.prompt import Prompter


def dotted(
    width: int, height: int, pixels: list[tuple[int, int]]
) -> tuple[Image.Image, np.ndarray]:
    """Return a black image with white pixels, and their centres."""
    image = Image.new("RGB", (width, height))
    for pixel in pixels:
        image.putpixel(pixel, (255, 255, 255))
    return image, np.array(pixels, dtype=float).reshape(-1, 2) + 0.5


def white(image: Image.Image) -> set[tuple[float, float]]:
    ys, xs = np.nonzero(np.asarray(image)[..., 0] > 127)
    return {(x + 0.5, y + 0.5) for x, y in zip(xs.tolist(), ys.tolist(), strict=True)}


def test_a_mirrored_image_by_hand() -> None:
    image, points = flip(*dotted(10, 6, [(0, 0), (3, 5)]))
    assert points.tolist() == [[9.5, 0.5], [6.5, 5.5]]
    assert white(image) == {(9.5, 0.5), (6.5, 5.5)}


def test_a_crop_by_hand() -> None:
    image, points = crop(*dotted(10, 6, [(0, 0), (3, 5), (9, 2)]), (2, 1, 10, 6))
    assert image.size == (8, 5)
    assert points.tolist() == [[1.5, 4.5], [7.5, 1.5]]
    assert white(image) == {(1.5, 4.5), (7.5, 1.5)}


@pytest.mark.parametrize("epoch", range(1, 60))
def test_points_stay_on_what_they_mark(epoch: int) -> None:
    pixels = [(x, y) for x in range(3, 40, 9) for y in range(2, 30, 7)]
    image, points = augment(*dotted(40, 30, pixels), 0, epoch, "row")
    assert white(image) == set(map(tuple, points.tolist()))
    assert image.width >= round(SMALLEST_CROP * 40)
    assert image.height >= round(SMALLEST_CROP * 30)


def test_views_differ_by_epoch_row_and_seed_and_repeat() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))

    def view(*key: object) -> tuple:
        picture, points = augment(image, np.array([[20.0, 15.0]]), *key)  # type: ignore[arg-type]
        return picture.size, picture.tobytes(), points.tolist()

    keys = [(s, e, r) for s in (0, 1) for e in (1, 2, 3) for r in ("a", "b")]
    assert len({view(*key)[1] for key in keys}) == len(keys)
    assert all(view(*key) == view(*key) for key in keys)


def test_a_crop_never_takes_the_last_object() -> None:
    for epoch in range(80):
        image, points = augment(*dotted(40, 30, [(0, 0)]), 0, epoch, "row")
        assert len(points) == 1
        assert augment(*dotted(40, 30, []), 0, epoch, "row")[1].shape == (0, 2)
        assert white(image) == set(map(tuple, points.tolist()))


def samples(dataset: str, augmented: tuple[int, int] | None) -> list[Sample]:
    return list(
        load_here(read_index(dataset, "train"), Preparation(48, "reading_order", augmented))
    )


def test_samples_are_in_the_order_of_counting_in_the_new_view(dataset: str) -> None:
    plain, viewed = samples(dataset, None), samples(dataset, (0, 1))
    assert [s.id for s in plain] == [s.id for s in viewed]
    assert any(len(a.points) > len(b.points) for a, b in zip(plain, viewed, strict=True))
    for sample in viewed:
        order = ORDERS["reading_order"]((sample.points + 1) / 2 * 384)
        assert order.tolist() == list(range(len(sample.points)))


def test_training_sees_views_and_validation_does_not(small: Callable) -> None:
    encoder = Prompter.from_pretrained("tiny", 48)
    streams = [BatchStream(small(*own), encoder, load_here) for own in ((), ("data.augment=true",))]
    train = [[b["coord"].canvases for i in s.train(1) for b in i] for s in streams]
    assert any((a != b).any() for a, b in zip(*train, strict=True))
    again = [b["coord"].canvases for i in streams[1].train(1) for b in i]
    assert all((a == b).all() for a, b in zip(train[1], again, strict=True))
    val = [[b["coord"].canvases for b in s.val()] for s in streams]
    assert all((a == b).all() for a, b in zip(*val, strict=True))
    for one, other in zip(*(s.first_val_samples(9) for s in streams), strict=True):
        assert (one.pixels == other.pixels).all()
