"""FSC-147: images of many categories, in each of which one category is marked with points.

    SRC/annotation_FSC147_384.json      image name: {"points": [[x, y], ...]}
    SRC/Train_Test_Val_FSC_147.json     split: [image name, ...]
    SRC/ImageClasses_FSC147.txt         image name, tab, category
    SRC/images_384_VarV2/

Points are floats in a frame that is 384 pixels high. Other keys of an annotation are not read.
"""

from pathlib import Path

from raydual.data.formats.source import (
    MISSING,
    Picture,
    Source,
    as_points,
    expect,
    inside,
    numbers,
    read_json,
    read_text,
    text,
    unique_ids,
)
from raydual.data.schema import SPLITS
from raydual.errors import DataError

ANNOTATIONS = "annotation_FSC147_384.json"
SPLIT_LISTS = "Train_Test_Val_FSC_147.json"
CLASSES = "ImageClasses_FSC147.txt"
IMAGES = "images_384_VarV2"
FRAME_HEIGHT = 384.0


def read(src: Path) -> Source:
    """The pictures of an FSC-147 folder; listed images that are not there are left out.

    Raises:
        DataError: a file is missing or holds something else than expected.
    """
    annotations = read_json(src / ANNOTATIONS)
    splits = _splits(src / SPLIT_LISTS)
    categories = _categories(src / CLASSES)
    ids = unique_ids(annotations)
    source = Source([], exhaustive=False)
    for name, annotation in annotations.items():
        where = f"{src / ANNOTATIONS}: {name}"
        file = inside(src / IMAGES, text(name, where), where)
        points = expect(expect(annotation, dict, where, "an object").get("points"), list,
                        f"{where}.points", "a list of [x, y]")  # fmt: skip
        pairs = [
            numbers(point, 2, f"{where}.points[{i}]", "two numbers [x, y]")
            for i, point in enumerate(points)
        ]
        if not file.is_file():
            source.leave_out(MISSING, name)
        elif name not in categories:
            source.leave_out(f"no category in {CLASSES}", name)
        else:
            objects = {categories[name]: as_points([(x, y) for x, y in pairs])}
            source.pictures.append(
                Picture(ids[name], file, objects, splits.get(name), (None, FRAME_HEIGHT))
            )
    return source


def _splits(file: Path) -> dict[str, str]:
    """Image name to split; lists of other names, such as test_coco, are not read."""
    lists = read_json(file)
    return {
        expect(name, str, f"{file}: {split}", "a list of image names"): split
        for split in SPLITS
        for name in expect(lists.get(split, []), list, f"{file}: {split}", "a list of image names")
    }


def _categories(file: Path) -> dict[str, str]:
    categories = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name, tab, category = line.partition("\t")
        if line.strip() and not (tab and name.strip() and category.strip()):
            raise DataError(f"{file}, line {number}: {line[:40]!r}, expected image<TAB>category")
        categories[name.strip()] = category.strip()
    return categories
