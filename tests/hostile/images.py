"""Pictures to count, and pictures in sources to import."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case
from tests.hostile.materials import both, checkpoint, endless, fifo, link, picture, put

COUNT = "count {} --checkpoint model --max-objects 1 --out out"


def chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    """Return a chunk of a PNG file, of a false length if one is given."""
    size = len(content) if length is None else length
    return struct.pack(">I", size) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *before: bytes, colours: int = 2) -> bytes:
    """Return a PNG of any size on paper whose pixels are missing."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + body + chunk(b"IEND", b"")


def tiff_loop() -> bytes:
    """Return a TIFF whose first directory names itself as the next."""
    entry = struct.pack("<HHII", 256, 3, 1, 48)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


def vast_gif() -> bytes:
    """Return a GIF of 65535 x 65535."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b",\0\0\0\0"
        + struct.pack("<HHB", 65535, 65535, 0)
        + b"\x02\x02\x4c\x01\0;"
    )


def bmp_upside_down() -> bytes:
    """Return a BMP of the height -2**31."""
    head = struct.pack("<IiiHHIIiiII", 40, 40, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def webp_cut() -> bytes:
    """Return a WebP that ends in the middle."""
    data = picture(form="WEBP")
    return data[: len(data) // 2]


def nested_icon() -> bytes:
    """Return an icon of 16 x 16 that holds a PNG of 30,000 x 30,000."""
    inner = png(30_000, 30_000)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + inner


def text_bomb() -> bytes:
    """Return a PNG with a compressed comment of 100 MB."""
    comment = b"a\0\0" + zlib.compress(bytes(100_000_000))
    return png(40, 40, chunk(b"zTXt", comment))


def jpeg_cut() -> bytes:
    """Return a JPEG that ends in the middle."""
    data = picture(form="JPEG", size=(400, 400))
    return data[: len(data) // 2]


def flipped() -> bytes:
    """Return a PNG with one wrong byte among its pixels."""
    data = bytearray(picture())
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch ran) (w) file\n"

PICTURES: dict[str, tuple[bytes | str, str]] = {
    "empty": (b"", "not one of"),
    "cut in the middle, JPEG": (jpeg_cut(), "truncated"),
    "cut in the middle, WebP": (webp_cut(), "cannot be decoded"),
    "one byte wrong": (flipped(), "cannot be decoded"),
    "bomb of 4.3 billion pixels": (png(65535, 65535), "million pixels"),
    "bomb of 2**62 pixels": (png(2**31 - 1, 2**31 - 1), "million pixels"),
    "GIF of 65535 x 65535": (vast_gif(), "million pixels"),
    "bomb within an icon": (nested_icon(), "million pixels"),
    "comment that swells to 100 MB": (text_bomb(), "cannot be decoded"),
    "chunk longer than the file": (
        png(40, 40, chunk(b"tEXt", b"a\0b", 2**31 - 1)),
        "cannot be decoded",
    ),
    "no pixels": (png(40, 40), "truncated"),
    "0 pixels wide": (png(0, 40), "cannot be decoded"),
    "directory that names itself": (tiff_loop(), "cannot be decoded"),
    "negative height": (bmp_upside_down(), "million pixels"),
    "SVG with a script, named .jpg": (SVG, "not one of"),
    "HTML, named .jpg": ("<html><body>404</body></html>", "not one of"),
    "PostScript, named .jpg": (EPS, "not one of"),
    "zeros": (bytes(10_000), "not one of"),
}


def bombs_in_coco(folder: Path) -> None:
    """Write a source whose every picture is a bomb."""
    put("src/a.png", png(65535, 65535))(folder)
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    content["categories"] = [{"id": 1, "name": "pear"}]
    content["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}]
    put("src/annotations.json", json.dumps(content))(folder)


def endless_in_csv(folder: Path) -> None:
    """Write a source with a picture of 2 TiB."""
    put("src/points.csv", "image,x,y\na.png,1,1\n")(folder)
    endless("src/a.png")(folder)


def csv_of(content: bytes | str) -> Callable[[Path], None]:
    """Return what writes a source of one picture."""
    return both(put("src/points.csv", "image,x,y\nx.jpg,1,1\n"), put("src/x.jpg", content))


COUNTED = ("empty", "bomb of 4.3 billion pixels", "SVG with a script, named .jpg")

CASES = [
    *(Case("image", name, csv_of(content), "data import csv src out/ds",
           ("no image to write", "x.jpg", says)) for name, (content, says) in PICTURES.items()),
    *(Case("image", f"{name}, to count", both(checkpoint, put("x.jpg", PICTURES[name][0])),
           COUNT.format("x.jpg"), ("x.jpg: skipped", PICTURES[name][1]), 1) for name in COUNTED),
    Case("image", "pipe without a writer", both(checkpoint, fifo("x.jpg")),
         COUNT.format("x.jpg"), ("x.jpg: skipped", "no file"), 1),
    Case("image", "link to an endless device", both(checkpoint, link("x.jpg", "/dev/zero")),
         COUNT.format("x.jpg"), ("x.jpg: skipped", "no file"), 1),
    Case("image", "link to itself", both(checkpoint, link("x.jpg", "x.jpg")),
         COUNT.format("x.jpg"), ("x.jpg: skipped",), 1),
    Case("image", "2 TiB", both(checkpoint, endless("x.jpg")),
         COUNT.format("x.jpg"), ("x.jpg: skipped", "bytes"), 1),
    Case("image", "folder with nothing but a pipe", both(checkpoint, fifo("photos/x.jpg")),
         COUNT.format("photos"), ("no picture",)),
    Case("image", "bombs in a COCO source", bombs_in_coco,
         "data import coco src out/ds", ("no image to write", "corrupt image")),
    Case("image", "2 TiB in a CSV source", endless_in_csv,
         "data import csv src out/ds", ("no image to write", "corrupt image")),
]  # fmt: skip
