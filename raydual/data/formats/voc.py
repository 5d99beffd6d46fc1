"""Pascal VOC: one XML file an image, with boxes; an object's point is the centre of its box.

SRC/Annotations/*.xml
SRC/JPEGImages/
SRC/ImageSets/Main/{train,val,test}.txt      optional; trainval.txt is not read
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from xml.parsers import expat

from raydual.data.formats.source import (
    MISSING,
    ZERO_AREA,
    Picture,
    Source,
    as_points,
    inside,
    numbers,
    read_text,
)
from raydual.data.schema import SPLITS
from raydual.data.storage import read_regular
from raydual.errors import DataError


def read(src: Path) -> Source:
    """The pictures of a VOC folder; boxes without area and images not there are left out.

    Raises:
        DataError: no annotations, or one that is not what VOC holds, or that has a DOCTYPE.
    """
    files = sorted((src / "Annotations").glob("*.xml"))
    if not files:
        raise DataError(
            f"no .xml in {src / 'Annotations'}; expected SRC/Annotations and SRC/JPEGImages"
        )
    splits = _splits(src / "ImageSets" / "Main")
    source = Source([])
    for file in files:
        root = _parse(file)
        image = _image_file(src / "JPEGImages", file, root)
        if image is None:
            source.leave_out(MISSING, file.stem)
            continue
        objects, degenerate = _objects(file, root)
        source.leave_out(ZERO_AREA, *[file.stem] * degenerate)
        frame = _frame(file, root)
        source.pictures.append(Picture(file.stem, image, objects, splits.get(file.stem), frame))
    return source


def _parse(file: Path) -> ET.Element:
    """The root element. A DOCTYPE, which could define entities, is refused before it acts."""

    def refuse(*_: object) -> None:
        raise DataError(f"{file} has a DOCTYPE, expected plain VOC annotations; remove it")

    try:
        data = read_regular(file)
        checker = expat.ParserCreate()
        checker.StartDoctypeDeclHandler = refuse
        checker.Parse(data, True)
        return ET.fromstring(data)  # noqa: S314 - without a DOCTYPE there are no entities
    except (OSError, expat.ExpatError, ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file} is not valid XML: {error}") from error


def _image_file(folder: Path, file: Path, root: ET.Element) -> Path | None:
    """The image by the name in the annotation, or by that of the annotation's own file."""
    named = (root.findtext("filename") or "").strip()
    for name in (named, *(f"{file.stem}{suffix}" for suffix in (".jpg", ".jpeg", ".png"))):
        image = inside(folder, name, f"{file}: filename")
        if image.is_file():
            return image
    return None


def _objects(file: Path, root: ET.Element) -> tuple[dict, int]:
    """Centres of the boxes by category, and how many boxes have no area."""
    points: dict[str, list[tuple[float, float]]] = {}
    degenerate = 0
    for number, element in enumerate(root.findall("object"), start=1):
        where = f"{file}: object {number}"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{where} has no name; expected <name>category</name>")
        corners = ("xmin", "ymin", "xmax", "ymax")
        box = [_number(element.findtext(f"bndbox/{corner}")) for corner in corners]
        left, top, right, bottom = numbers(box, 4, f"{where}: bndbox", f"numbers {corners}")
        if left >= right or top >= bottom:
            degenerate += 1
        else:
            points.setdefault(name, []).append(((left + right) / 2, (top + bottom) / 2))
    return {name: as_points(found) for name, found in points.items()}, degenerate


def _frame(file: Path, root: ET.Element) -> tuple[float, float] | None:
    """The declared size; None where it is not given, or zero."""
    texts = [root.findtext("size/width"), root.findtext("size/height")]
    if texts == [None, None]:
        return None
    size = numbers([_number(text) for text in texts], 2, f"{file}: size", "width and height")
    return (size[0], size[1]) if min(size) > 0 else None


def _number(text: str | None) -> float | str | None:
    """A number; anything else is handed on for the message."""
    try:
        return float(text or "")
    except ValueError:
        return text


def _splits(folder: Path) -> dict[str, str]:
    """Stem of an image to its split; empty without lists."""
    lists = {split: folder / f"{split}.txt" for split in SPLITS}
    return {
        line.split()[0]: split
        for split, file in lists.items()
        if file.is_file()
        for line in read_text(file).splitlines()
        if line.strip()
    }
