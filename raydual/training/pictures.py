"""A panel of validation pictures: what was shown, what was answered, what was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raydual.config_tree import Config
from raydual.data.examples import Batch
from raydual.data.marking import draw_marks
from raydual.metrics import PX_PER_UNIT
from raydual.tasks import COORD, DONE, nearest_candidate
from raydual.training.parallel import ParallelCounter

TILE, CAPTION, COLUMNS = 240, 38, 4
PREDICTED, TARGET = (235, 40, 60), (20, 110, 255)


@dataclass(frozen=True)
class Answer:
    """One validation example and what the model says to it.

    canvas: uint8 (side, side, 3) with marks. predicted, target: x, y in [-1, 1]; target is None
    where there is none. done: probability.
    """

    canvas: np.ndarray
    category: str
    num_marked: int
    num_objects: int
    predicted: tuple[float, float]
    target: tuple[float, float] | None
    done: float


def answers(model: ParallelCounter, batch: Batch) -> list[Answer]:
    """Ask both heads about the examples of a coordinate batch."""
    model.counter.eval()
    assert batch.canvases is not None
    batch = batch.to(model.device)
    target = batch.targets[COORD.name]
    position = model.evaluate(batch, COORD).position
    done = model.evaluate(batch, DONE).logit.sigmoid().tolist()
    wanted = nearest_candidate(position, target).tolist()
    valid = target.valid.tolist()
    return [
        Answer(
            canvas=_shown(batch, i, model.counter.config),
            category=sample.category,
            num_marked=batch.num_marked[i],
            num_objects=len(sample.points),
            predicted=tuple(position[i].tolist()),
            target=tuple(wanted[i]) if valid[i] else None,
            done=done[i],
        )
        for i, sample in enumerate(batch.samples)
    ]


def _shown(batch: Batch, i: int, config: Config) -> np.ndarray:
    """Return what an example shows, with dots for marks that are not painted."""
    assert batch.canvases is not None
    if not config.embeds_marks:
        return batch.canvases[i]
    return draw_marks(batch.canvases[i], batch.marks[i], "dots", 1.0)


def panel(examples: Sequence[Answer]) -> Image.Image:
    """Draw the examples in rows of four: blue ring the target, red cross the prediction."""
    rows = -(-len(examples) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + CAPTION)), "white")
    for i, answer in enumerate(examples):
        row, column = divmod(i, COLUMNS)
        sheet.paste(_tile(answer), (column * TILE, row * (TILE + CAPTION)))
    return sheet


def _tile(answer: Answer) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    picture = Image.fromarray(answer.canvas).resize((TILE - 4, TILE - 4), Image.Resampling.LANCZOS)
    tile.paste(picture, (2, 2))
    draw = ImageDraw.Draw(tile)
    x, y = _on_tile(answer.predicted)
    error = ""
    if answer.target is not None:
        tx, ty = _on_tile(answer.target)
        draw.line((tx, ty, x, y), fill=PREDICTED, width=1)
        draw.ellipse((tx - 7, ty - 7, tx + 7, ty + 7), outline=TARGET, width=2)
        distance = np.hypot(*np.subtract(answer.predicted, answer.target)) * PX_PER_UNIT
        error = f"   {distance:.1f} px off"
    draw.line((x - 6, y - 6, x + 6, y + 6), fill=PREDICTED, width=2)
    draw.line((x - 6, y + 6, x + 6, y - 6), fill=PREDICTED, width=2)
    font = ImageFont.load_default(size=13)
    counted = f"{answer.num_marked} of {answer.num_objects} marked"
    draw.text((4, TILE), f"{answer.category[:16]}: {counted}", "black", font=font)
    draw.text((4, TILE + 17), f"done {answer.done:.0%}{error}", "black", font=font)
    return tile


def _on_tile(point: tuple[float, float]) -> tuple[float, float]:
    return tuple((np.asarray(point) + 1) / 2 * (TILE - 4) + 2)
