"""COCO JSON: boxes in image pixels; an object's point is the centre of its box.

    SRC/annotations.json, or a path to any such file     images beside it or in images/
    SRC/{train,valid,test}/_annotations.coco.json        Roboflow's folders: the splits

Crowds (`iscrowd`) are left out. A category may have the id 0.
"""

from collections.abc import Iterator
from pathlib import Path

from raydual.data.formats.source import (
    MISSING,
    SPLIT_NAMES,
    ZERO_AREA,
    Picture,
    Source,
    as_points,
    expect,
    inside,
    numbers,
    read_json,
    shorten,
    text,
    unique_ids,
)
from raydual.errors import DataError

ROBOFLOW = "_annotations.coco.json"


def read(src: Path) -> Source:
    """The pictures of COCO annotations; crowds, boxes without area, images not there left out.

    Raises:
        DataError: no annotations there, or a key that is missing or of the wrong type.
    """
    source = Source([])
    parts = [(file, split, read_json(file)) for file, split in _annotation_files(src)]
    names = [
        _relative(src, file, _text(image, "file_name", where))
        for file, _, content in parts
        for image, where in _items(content, "images", file)
    ]
    ids = unique_ids(names)
    for file, split, content in parts:
        _add_pictures(source, src, file, split, content, ids)
    return source


def _annotation_files(src: Path) -> list[tuple[Path, str | None]]:
    """Each file with the split that its folder stands for."""
    if src.is_file():
        return [(src, None)]
    folders = [(src / name / ROBOFLOW, split) for name, split in SPLIT_NAMES.items()]
    roboflow: list[tuple[Path, str | None]] = [(f, s) for f, s in folders if f.is_file()]
    if roboflow:
        return roboflow
    for name in ("annotations.json", ROBOFLOW):
        if (src / name).is_file():
            return [(src / name, None)]
    alone = sorted(src.glob("*.json"))
    if len(alone) != 1:
        raise DataError(
            f"{len(alone)} .json in {src}, expected annotations.json or Roboflow's folders; "
            "name the annotation file itself"
        )
    return [(alone[0], None)]


def _add_pictures(
    source: Source, src: Path, file: Path, split: str | None, content: dict, ids: dict[str, str]
) -> None:
    folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    categories = {
        key: _text(item, "name", where).strip()
        for key, (item, where) in _by_id(content, "categories", file).items()
    }
    images = _by_id(content, "images", file)
    points = _points(content, file, categories, images, source)
    for key, (image, where) in images.items():
        name = image["file_name"]
        picture = inside(folder, name, where)
        if not picture.is_file():
            source.leave_out(MISSING, name)
            continue
        objects = {category: as_points(found) for category, found in points[key].items()}
        image_id = ids[_relative(src, file, name)]
        source.pictures.append(Picture(image_id, picture, objects, split, _frame(image, where)))


def _points(
    content: dict, file: Path, categories: dict, images: dict, source: Source
) -> dict[int | str, dict[str, list[tuple[float, float]]]]:
    """Image id to category to box centres; adds to `source.left_out`."""
    points: dict[int | str, dict[str, list[tuple[float, float]]]] = {key: {} for key in images}
    for item, where in _items(content, "annotations", file):
        image, category = _key(item, "image_id", where), _key(item, "category_id", where)
        if image not in images:
            raise DataError(
                f"{where}.image_id is {shorten(image)}, which is not the id of any image"
            )
        if category not in categories:
            raise DataError(
                f"{where}.category_id is {shorten(category)}, which is not among categories"
            )
        box = numbers(item.get("bbox"), 4, f"{where}.bbox", "[x, y, width, height]")
        left, top, width, height = box
        if item.get("iscrowd"):
            source.leave_out("crowd", images[image][0]["file_name"])
        elif width <= 0 or height <= 0:
            source.leave_out(ZERO_AREA, images[image][0]["file_name"])
        else:
            centre = (left + width / 2, top + height / 2)
            points[image].setdefault(categories[category], []).append(centre)
    return points


def _frame(image: dict, where: str) -> tuple[float, float] | None:
    """The declared size; None where it is not given, or zero."""
    if image.get("width") is None or image.get("height") is None:
        return None
    size = [image["width"], image["height"]]
    width, height = numbers(size, 2, f"{where}.width and .height", "two numbers")
    return (width, height) if min(width, height) > 0 else None


def _items(content: dict, key: str, file: Path) -> Iterator[tuple[dict, str]]:
    """The objects of a list, each with where it is."""
    items = expect(content.get(key), list, f"{file}: {key}", "a list")
    for number, item in enumerate(items):
        where = f"{file}: {key}[{number}]"
        yield expect(item, dict, where, "an object"), where


def _by_id(content: dict, key: str, file: Path) -> dict[int | str, tuple[dict, str]]:
    """The objects of a list by their ids, each with where it is."""
    found: dict[int | str, tuple[dict, str]] = {}
    for item, where in _items(content, key, file):
        if _key(item, "id", where) in found:
            raise DataError(f"{where}.id is {shorten(item['id'])}, which is there twice")
        found[item["id"]] = (item, where)
    return found


def _key(item: dict, key: str, where: str) -> int | str:
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}.{key} is {shorten(value)}, expected a whole number or a text")
    return value


def _text(item: dict, key: str, where: str) -> str:
    return text(item.get(key), f"{where}.{key}")


def _relative(src: Path, file: Path, name: str) -> str:
    """The name of an image that is unique over all annotation files of the source."""
    folder = file.parent.relative_to(src) if src.is_dir() else Path()
    return (folder / name).as_posix()
