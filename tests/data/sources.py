"""Small sources in every format, written to a folder."""

import json
from pathlib import Path

import pytest
from PIL import Image

from raydual.data.formats.importing import Imported, Selection, import_dataset
from raydual.data.schema import Row, read_rows
from raydual.errors import DataError


def photo(path: Path, size: tuple[int, int] = (100, 50), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (200, 180, 160)).save(path, exif=exif)


def run(kind: str, src: Path, **selection: object) -> tuple[dict[str, Row], Imported]:
    """Import, and read back the rows by id."""
    out = src.with_name(f"{src.name}-out-{len(list(src.parent.iterdir()))}")
    imported = import_dataset(kind, src, out, Selection(**selection))  # type: ignore[arg-type]
    return {row.id: row for row in read_rows(out)}, imported


def coco(folder: Path, **changes: object) -> dict:
    """One image with a box of category 0, one without; returns what was written."""
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 0, "name": "pear"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [10, 20, 30, 10]}],
    }
    content.update(changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.json").write_text(json.dumps(content))
    for image in content["images"]:
        photo(folder / "images" / image["file_name"])
    return content


def voc(folder: Path, name: str, boxes: str, head: str = "") -> None:
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    text = f"{head}<annotation><filename>{name}.png</filename>{boxes}</annotation>"
    (folder / "Annotations" / f"{name}.xml").write_text(text)
    photo(folder / "JPEGImages" / f"{name}.png")


def box(name: str, *corners: float) -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"


def points_csv(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "points.csv").write_text(text)
    return folder


def fsc(folder: Path) -> None:
    folder.mkdir()
    files = {
        "annotation_FSC147_384.json": {
            "2.jpg": {"points": [[10.5, 20.5]]},
            "3.jpg": {"points": [[192.0, 96.0]], "H": "not read"},
            "4.jpg": {"points": []},
        },
        "Train_Test_Val_FSC_147.json": {"train": ["2.jpg"], "val": ["3.jpg"], "test_coco": ["9"]},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "ImageClasses_FSC147.txt").write_text("2.jpg\tsea shells\n3.jpg\tcars\n4.jpg\tcars\n")
    photo(folder / "images_384_VarV2" / "2.jpg", (500, 384))
    photo(folder / "images_384_VarV2" / "3.jpg", (400, 192))  # half as high as the frame


def refused(kind: str, src: Path, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        run(kind, src)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
