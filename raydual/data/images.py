"""Encoded image bytes to RGB pixels, whatever the file holds."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from raydual.errors import DataError

# Formats that hold photographs. Others can start programs (EPS) or are hardly ever tested.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "ICO")

MOST_BYTES = 2**30
"""The largest file that is read as an image."""

# Pillow warns at half of what it refuses. Not in `decode_image`: threads share the filters.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class CorruptImageError(DataError):
    """Bytes that are not an image which can be decoded whole."""


def decode_image(data: bytes) -> Image.Image:
    """Decode an image of any mode to RGB, turned upright as its EXIF orientation says.

    Transparency is laid on white, 16-bit values are scaled to 8 bits, floats are stretched from
    the smallest to the largest that is finite.

    Raises:
        CorruptImageError: truncated, too large to be safe, or not an image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        most = 2 * int(Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise CorruptImageError(f"image has more than {most} million pixels") from None
    except Exception as error:  # broken files make Pillow raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):  # its message holds a memory address
            reason = f"not one of {', '.join(FORMATS)}"
        raise CorruptImageError(f"image cannot be decoded: {reason}") from error


def header_size(data: bytes) -> tuple[int, int, int]:
    """Width and height in pixels as stored, before EXIF, and the EXIF orientation (1 to 8)."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.width, image.height, image.getexif().get(0x0112, 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, as `decode_image` does."""
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64) / 257  # 65535 becomes 255
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        values = (values - low) / max(float(high - low), 1e-12) * 255
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
