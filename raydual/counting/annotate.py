"""Pictures of a count."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from raydual.counting.closed_loop import Counted


def annotate(image: Image.Image, counted: Counted) -> Image.Image:
    """Draw the numbered points and the count onto a copy of the image, at least 384 px wide."""
    scale = max(1.0, 384 / max(image.size))
    picture = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    draw = ImageDraw.Draw(picture)
    radius = max(8, max(picture.size) // 60)
    font = ImageFont.load_default(size=radius * 1.3)
    for number, (x, y) in enumerate(counted.points * scale, start=1):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=(20, 140, 50), outline="white", width=2)
        draw.text((x, y), str(number), "white", font=font, anchor="mm")
    label = f"count {counted.count}"
    font = ImageFont.load_default(size=18)
    draw.rectangle((0, 0, draw.textlength(label, font) + 12, 26), fill="black")
    draw.text((6, 3), label, "white", font=font)
    return picture
