"""Annotations to import: COCO JSON, VOC XML, CSV, FSC-147."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Case
from tests.hostile.materials import both, fifo, link, picture, put

IMAGES = [{"id": 1, "file_name": "a.png"}]
CATEGORIES = [{"id": 1, "name": "pear"}]
ANNOTATIONS = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}]
SECRET = "../../secret.png"


def coco(text: bytes | str | None = None, **changes: Any) -> Callable[[Path], None]:
    """Return what writes a COCO source, with some keys changed or another text altogether."""
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS} | changes
    written = json.dumps(content) if text is None else text
    return both(put("src/annotations.json", written), put("src/a.png", picture()))


def image(**changes: Any) -> list[dict[str, Any]]:
    return [IMAGES[0] | changes]


def annotation(**changes: Any) -> list[dict[str, Any]]:
    return [ANNOTATIONS[0] | changes]


LONG_NAMES = [{"id": i, "name": f"{i}" * 20_000} for i in range(40)]
LONG_BOXES = [ANNOTATIONS[0] | {"category_id": i} for i in range(40)]
TWO_LINES = [{"id": 1, "name": "pear\nerror: all is well"}, {"id": 2, "name": "\x1b[2Jfig"}]
TWO_BOXES = [ANNOTATIONS[0] | {"category_id": i} for i in (1, 2)]

COCO: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "image above the folder": (coco(images=image(file_name=SECRET)), "", ("outside", "images[0]")),
    "image by absolute path": (
        coco(images=image(file_name="/etc/passwd")), "", ("outside", "images[0]")),
    "image by a link that leads out": (
        both(coco(images=image(file_name="x.png")), link("src/x.png", SECRET)), "", ("outside",)),
    "folder by a link that leads out": (
        both(coco(images=image(file_name="x/secret.png")), link("src/x", "../..")),
        "", ("outside",)),
    "name with a zero byte": (coco(images=image(file_name="a\0.png")), "", ("images[0]",)),
    "name of a million letters": (coco(images=image(file_name="a" * 10**6)), "", ("images[0]",)),
    "image id twice": (coco(images=[*IMAGES, *IMAGES]), "", ("images[1].id", "twice")),
    "category id twice": (
        coco(categories=[*CATEGORIES, {"id": 1, "name": "fig"}]), "",
        ("categories[1].id", "twice")),
    "negative boxes only": (
        coco(annotations=annotation(bbox=[5, 5, -3, -3])), "--min-objects 1",
        ("no image to write", "box without area")),
    "NaN in a box": (coco(annotations=annotation(bbox=[float("nan")] * 4)), "", ("bbox",)),
    "1e300 in a box": (coco(annotations=annotation(bbox=[1e300] * 4)), "", ("bbox",)),
    "box of five numbers": (coco(annotations=annotation(bbox=[1] * 5)), "", ("bbox",)),
    "list in the place of an object": (coco("[]"), "", ("annotations.json", "an object")),
    "a million brackets": (coco("[" * 10**6), "", ("not valid JSON",)),
    "a million objects in each other": (coco('{"a":' * 10**6), "", ("not valid JSON",)),
    "number of 100,000 digits": (coco('{"images":' + "9" * 10**5 + "}"), "", ("not valid JSON",)),
    "no UTF-8": (coco(b'{"images": ["\xff\xfe"]}'), "", ("UTF-8",)),
    "half a character": (
        coco(categories=[{"id": 1, "name": "\ud800"}]), "", ("categories[0].name", "Unicode")),
    "key missing": (coco('{"images": []}'), "", ("categories",)),
    "category that is not there": (
        coco(annotations=annotation(category_id=7)), "", ("category_id",)),
    "name of 800,000 letters shown": (
        coco(categories=LONG_NAMES, annotations=LONG_BOXES), "--category fig", ("'fig'",)),
    "line breaks and terminal codes shown": (
        coco(categories=TWO_LINES, annotations=TWO_BOXES), "--category fig", ("'fig'", "pear")),
    "pipe in the place of annotations": (fifo("src/annotations.json"), "", ("annotations.json",)),
}  # fmt: skip


def voc(text: bytes | str) -> Callable[[Path], None]:
    """Return what writes a VOC source."""
    return both(put("src/Annotations/a.xml", text), put("src/JPEGImages/a.png", picture()))


BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>3</ymax></bndbox>"
OBJECT = "<object><name>pear</name>" + BOX + "</object>"
LAUGHS = "".join(
    f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(10)
)  # fmt: skip
XML: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "billion laughs": (voc(f"<!DOCTYPE a [{LAUGHS}]><a>&l9;</a>"), ("a.xml", "DOCTYPE")),
    "entity that reads a file": (
        voc('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'), ("DOCTYPE",)),
    "DTD of another host": (
        voc('<!DOCTYPE a SYSTEM "http://192.0.2.1/a.dtd"><a/>'), ("DOCTYPE",)),
    "DOCTYPE in UTF-16": (
        voc('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><a/>'.encode("utf-16")),
        ("DOCTYPE",)),
    "entity that is not defined": (voc("<a>&b;</a>"), ("not valid XML",)),
    "no end": (voc("<annotation><object>"), ("not valid XML",)),
    "a million elements in each other": (voc("<a>" * 10**6), ("not valid XML",)),
    "encoding that does not exist": (
        voc('<?xml version="1.0" encoding="klingon"?><a/>'), ("not valid XML",)),
    "no box": (voc("<a><object><name>pear</name></object></a>"), ("object 1: bndbox",)),
    "NaN in a box": (voc(f"<a>{OBJECT.format('nan')}</a>"), ("object 1: bndbox",)),
    "1e999 in a box": (voc(f"<a>{OBJECT.format('1e999')}</a>"), ("object 1: bndbox",)),
    "size in words": (
        voc(f"<a><size><width>wide</width></size>{OBJECT.format(3)}</a>"), ("size",)),
    "image above the folder": (
        voc(f"<a><filename>../{SECRET}</filename></a>"), ("outside", "a.xml")),
    "pipe in the place of annotations": (fifo("src/Annotations/a.xml"), ("a.xml", "no file")),
    "link to an endless device": (
        link("src/Annotations/a.xml", "/dev/zero"), ("a.xml", "no file")),
}  # fmt: skip


def csv(text: bytes | str) -> Callable[[Path], None]:
    """Return what writes a CSV source."""
    return both(put("src/points.csv", text), put("src/a.png", picture()))


CSV: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "image above the folder": (csv(f"image,x,y\n{SECRET},1,1\n"), ("outside",)),
    "1e300 as a place": (csv("image,x,y\na.png,1e300,1\n"), ("line 2",)),
    "field of 10 MB": (csv(f'image,x,y\n"{"a" * 10**7}",1,1\n'), ("points.csv", "field")),
    "pipe in the place of the table": (fifo("src/points.csv"), ("points.csv", "no file")),
}

FSC = put("src/Train_Test_Val_FSC_147.json", "{}"), put("src/ImageClasses_FSC147.txt", "")

CASES = [
    *(Case("COCO JSON", name, build, f"data import coco src out/ds {options}", says)
      for name, (build, options, says) in COCO.items()),
    *(Case("VOC XML", name, build, "data import voc src out/ds", says)
      for name, (build, says) in XML.items()),
    *(Case("CSV", name, build, "data import csv src out/ds", says)
      for name, (build, says) in CSV.items()),
    Case("FSC-147 JSON", "points in words",
         both(put("src/annotation_FSC147_384.json", '{"a.jpg": {"points": [["x", 1]]}}'), *FSC),
         "data import fsc147 src out/ds", ("points[0]",)),
    Case("FSC-147 JSON", "image above the folder",
         both(put("src/annotation_FSC147_384.json", json.dumps({SECRET: {"points": []}})), *FSC),
         "data import fsc147 src out/ds", ("outside",)),
]  # fmt: skip
