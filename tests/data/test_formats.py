import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sources import box, coco, fsc, photo, points_csv, run, voc

from raydual.data.formats.importing import Selection, import_dataset
from raydual.data.schema import read_rows

DATA = Path(os.environ.get("RAYDUAL_DATA", "/nonexistent"))
real = pytest.mark.skipif(not DATA.is_dir(), reason="RAYDUAL_DATA is not set")


def test_coco_takes_box_centres_and_category_zero(tmp_path):
    coco(tmp_path / "c")
    rows, imported = run("coco", tmp_path / "c")
    np.testing.assert_array_equal(rows["a"].points, [[25.0, 25.0]])
    assert rows["b"].points.shape == (0, 2)  # one category: an image without it is kept
    assert {row.category for row in rows.values()} == {"pear"}
    assert "the source has no splits" in imported.notes[0]


def test_coco_leaves_out_crowds_flat_boxes_and_missing_images(tmp_path):
    base = {"image_id": 1, "category_id": 0}
    content = coco(
        tmp_path / "c",
        annotations=[
            {**base, "bbox": [0, 0, 10, 10]},
            {**base, "bbox": [0, 0, 10, 0]},
            {**base, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        ],
    )
    content["images"].append({"id": 3, "file_name": "gone.png"})
    (tmp_path / "c/annotations.json").write_text(json.dumps(content))
    rows, imported = run("coco", tmp_path / "c")
    assert len(rows["a"].points) == 1
    assert imported.left_out == {
        "crowd": ["a.png"],
        "box without area": ["a.png"],
        "listed image is not there": ["gone.png"],
    }
    assert imported.manifest.left_out["box without area"] == 1


def test_roboflow_folders_are_the_splits_and_equal_names_keep_apart(tmp_path):
    for name in ("train", "valid", "test"):
        folder = tmp_path / "r" / name
        coco(folder)
        (folder / "annotations.json").rename(folder / "_annotations.coco.json")
        for image in (folder / "images").iterdir():
            image.rename(folder / image.name)
        (folder / "images").rmdir()
    rows, _ = run("coco", tmp_path / "r")
    assert Counter(row.split for row in rows.values()) == {"train": 2, "val": 2, "test": 2}
    assert rows["valid/a.png"].split == "val"


def test_voc_takes_box_centres_and_splits(tmp_path):
    src = tmp_path / "v"
    voc(src, "a", box("cell", 10, 10, 20, 30) + box("cell", 5, 5, 5, 9))
    voc(src, "b", box("cell", 0, 0, 4, 4))
    (src / "ImageSets/Main").mkdir(parents=True)
    (src / "ImageSets/Main/train.txt").write_text("a\n")
    (src / "ImageSets/Main/val.txt").write_text("b 1\n")
    (src / "ImageSets/Main/trainval.txt").write_text("a\nb\n")
    rows, imported = run("voc", src)
    np.testing.assert_array_equal(rows["a"].points, [[15.0, 20.0]])
    assert (rows["a"].split, rows["b"].split) == ("train", "val")
    assert imported.left_out == {"box without area": ["a"]}


def test_fsc147_scales_the_frame_and_tolerates_missing_images(tmp_path):
    fsc(tmp_path / "f")
    rows, imported = run("fsc147", tmp_path / "f")
    np.testing.assert_array_equal(rows["2"].points, [[10.5, 20.5]])
    np.testing.assert_array_equal(rows["3"].points, [[96.0, 48.0]])
    assert (rows["2"].category, rows["2"].split, rows["3"].split) == ("sea shells", "train", "val")
    assert imported.left_out == {"listed image is not there": ["4.jpg"]}


def test_csv_with_all_columns_and_with_the_least(tmp_path):
    src = points_csv(
        tmp_path / "p",
        "\ufeffimage,x,y,category,split\na.png,1,2,pear,train\na.png,3.5,4,pear,train\n"
        "sub/b.png,,,pear,validation\n",
    )
    photo(src / "a.png")
    photo(src / "sub/b.png")
    rows, _ = run("csv", src)
    np.testing.assert_array_equal(rows["a"].points, [[1, 2], [3.5, 4]])
    assert (rows["b"].split, len(rows["b"].points)) == ("val", 0)
    points_csv(src, "x,y,image\n1,2,a.png\n")
    rows, _ = run("csv", src / "points.csv")
    assert rows["a"].category == "object"


@real
def test_bccd(tmp_path):
    imported = import_dataset(
        "voc", DATA / "bccd/BCCD", tmp_path / "out", Selection(category="RBC")
    )
    splits = {name: info.images for name, info in imported.manifest.splits.items()}
    assert splits == {"train": 205, "val": 87, "test": 72}
    assert imported.manifest.left_out == {"box without area": 2}
    counts = [len(row.points) for row in read_rows(tmp_path / "out", columns=["id", "points"])]
    assert len(counts) == 364
    assert counts.count(0) == 15
    assert sum(counts) == 4153


@real
def test_pear640(tmp_path):
    imported = import_dataset("coco", DATA / "pear640", tmp_path / "out", Selection())
    assert imported.manifest.left_out == {"box without area": 18}
    assert imported.manifest.categories == ["pear"]
    rows = list(read_rows(tmp_path / "out", columns=["id", "split", "points"]))
    assert len(rows) == 234
    assert sum(len(row.points) for row in rows) == 2682 - 18
    photos: dict[str, set[str]] = {}
    for row in rows:
        photos.setdefault(row.id[:8], set()).add(row.split)
    assert len(photos) == 20
    assert all(len(splits) == 1 for splits in photos.values())


@real
def test_fsc147(tmp_path):
    src = DATA / "fsc147"
    imported = import_dataset("fsc147", src, tmp_path / "own", Selection())
    assert {name: info.images for name, info in imported.manifest.splits.items()} == {
        "train": 2,
        "val": 0,
        "test": 146,
    }
    assert "val is empty" in imported.notes[0]
    anew = Selection(resplit=(0.8, 0.1, 0.1))
    imported = import_dataset("fsc147", src, tmp_path / "new", anew)
    assert len(imported.manifest.categories) == 19
    rows = list(read_rows(tmp_path / "new"))
    assert len(rows) == 148
    assert {row.height for row in rows} == {384}
    assert all((row.points <= (row.width, row.height)).all() for row in rows)
