"""A contact sheet: images of a dataset with their points, numbered in the order of counting."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raydual.data.images import decode_image
from raydual.data.ordering import ORDERS, to_reference
from raydual.data.schema import Row, read_rows
from raydual.errors import DataError

TILE = 360
CAPTION = 22
GAP = 6
PAPER, INK = (250, 250, 250), (30, 30, 30)
DISC, LINE, TEXT = (214, 0, 110, 190), (255, 255, 255, 190), (255, 255, 255, 255)


def preview(
    path: str | Path,
    out_png: str | Path,
    *,
    n: int = 16,
    split: str = "train",
    order: str = "reading_order",
) -> int:
    """Write a sheet of up to `n` images of one split as a PNG; returns how many there are.

    Args:
        path: a dataset, local or URI.
        out_png: a local file, overwritten.
        n: how many images, taken evenly over the split.
        split: one of train, val, test.
        order: a key of `ORDERS`.

    Raises:
        DataError: as `read_rows`; an unknown order; a corrupt image; the PNG cannot be written.
    """
    if order not in ORDERS:
        raise DataError(f"order {order!r} does not exist; choose one of {', '.join(ORDERS)}")
    if n < 1:
        raise DataError(f"--images is {n}, expected 1 or more")
    if Path(out_png).suffix.lower() != ".png":
        raise DataError(f"{out_png} is no .png; name a PNG file to write")
    tiles = [_tile(row, order) for row in _spread(path, split, n)]
    sheet = _sheet(tiles)
    try:
        sheet.save(out_png, "PNG")
    except OSError as error:
        raise DataError(
            f"cannot write {out_png}: {error.strerror or error}; choose another place"
        ) from error
    return len(tiles)


def _spread(path: str | Path, split: str, n: int) -> list[Row]:
    """Up to `n` rows, evenly spread over a split; only their images stay in memory."""
    total = sum(1 for _ in read_rows(path, split, columns=["id"]))
    wanted = set(np.linspace(0, total - 1, min(n, total)).round().astype(int).tolist())
    return [row for i, row in enumerate(read_rows(path, split)) if i in wanted]


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    """The tiles in a square as far as it goes; in each row the captions are level."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + GAP for row in rows]
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, sum(heights) + GAP), PAPER)
    bottom = 0
    for row, height in zip(rows, heights, strict=True):
        bottom += height
        for i, tile in enumerate(row):
            sheet.paste(tile, (GAP + i * (TILE + GAP), bottom - tile.height))
    return sheet


def _tile(row: Row, order: str) -> Image.Image:
    """One image, its longest side TILE pixels, with its caption below."""
    try:
        image = decode_image(row.image)
    except DataError as error:
        raise DataError(
            f"{row.id}: {error}; run `raydual data check` for all such images"
        ) from error
    if not np.isfinite(row.points).all():
        raise DataError(f"{row.id}: a point is not finite; run `raydual data check` for all such")
    scale = TILE / max(image.size)
    points = row.points[ORDERS[order](to_reference(row.points, *image.size))] * scale
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = Image.new("RGB", (TILE, size[1] + CAPTION), PAPER)
    marked = _marked(image.resize(size, Image.Resampling.LANCZOS), points)
    tile.paste(marked, ((TILE - size[0]) // 2, 0))
    caption = f"{row.id}  ·  {row.category}  ·  {len(row.points)}"
    font = ImageFont.load_default(13)
    while font.getlength(caption) > TILE and len(caption) > 4:
        caption = "…" + caption[2:]
    ImageDraw.Draw(tile).text((TILE / 2, size[1] + CAPTION / 2), caption, INK, font, anchor="mm")
    return tile


def _marked(image: Image.Image, points: np.ndarray) -> Image.Image:
    """The image with a thin line through the points (N, 2) and a numbered disc on each."""
    radius = float(np.clip(60 / np.sqrt(len(points) + 1), 4, 10))
    font = ImageFont.load_default(radius * 1.15)
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    draw.line([tuple(point) for point in points.tolist()], LINE, 1)
    for number, (x, y) in enumerate(points.tolist(), start=1):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), DISC, LINE)
        draw.text((x, y), str(number), TEXT, font, anchor="mm")
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
