"""Count what training and evaluation have prepared already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from raydual.counting.closed_loop import MAX_OBJECTS, REPEAT_RADIUS, Counter
from raydual.counting.one_count import Counted
from raydual.data.letterbox import Letterbox
from raydual.data.loading import Sample


def count_samples(
    counter: Counter,
    samples: Sequence[Sample],
    max_objects: int = MAX_OBJECTS,
    repeat_radius: float = REPEAT_RADIUS,
) -> list[Counted]:
    """Count samples closed loop; points are in pixels of the stored images.

    samples: without `error`, prepared with the `data.image_size` of the counter's models.
    """
    pictures = [_picture(sample) for sample in samples]
    counts = counter.count_batch(
        pictures, [sample.category for sample in samples], max_objects, repeat_radius
    )
    return [
        replace(counted, points=_to_stored(counted, sample, picture))
        for counted, sample, picture in zip(counts, samples, pictures, strict=True)
    ]


def _picture(sample: Sample) -> Image.Image:
    """The image without the padding: it lies on the counter's canvas as it does on the sample's."""
    width, height = sample.letterbox.fitted
    return Image.fromarray(sample.pixels[:height, :width])


def _to_stored(counted: Counted, sample: Sample, picture: Image.Image) -> np.ndarray:
    canvas = Letterbox(*picture.size, sample.letterbox.side).to_canvas(counted.points)
    return sample.letterbox.to_pixels(canvas)
