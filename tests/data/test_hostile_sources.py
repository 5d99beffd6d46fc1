import json

import pytest
from sources import box, coco, fsc, photo, points_csv, refused, voc


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "link/secret.png"])
def test_images_outside_the_source_are_refused(tmp_path, name):
    photo(tmp_path / "secret.png")
    src = tmp_path / "c"
    coco(src)
    for folder in (src, src / "images", src / "JPEGImages"):
        folder.mkdir(exist_ok=True)
        (folder / "link").symlink_to(tmp_path)
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": []}
    (src / "annotations.json").write_text(json.dumps(content))
    refused("coco", src, "outside", "images[0]")
    points_csv(src, f"image,x,y\n{name},1,1\n")
    refused("csv", src, "outside")
    (src / "Annotations").mkdir()
    (src / "Annotations/a.xml").write_text(f"<a><filename>{name}</filename></a>")
    refused("voc", src, "outside", "a.xml")


def test_names_that_no_file_system_takes_are_refused(tmp_path):
    content = coco(tmp_path / "c")
    content["images"][0]["file_name"] = "a\0.png"
    (tmp_path / "c/annotations.json").write_text(json.dumps(content))
    refused("coco", tmp_path / "c", "images[0]")


WRONG_COCO = {
    "images[1]": {"images": [{"id": 1, "file_name": "a.png"}, 5]},
    "images[0].file_name": {"images": [{"id": 1, "file_name": 7}]},
    "images[0].id": {"images": [{"file_name": "a.png"}]},
    "images[0].width": {"images": [{"id": 1, "file_name": "a.png", "width": "x", "height": 1}]},
    "images": {"images": None},
    "annotations": {"annotations": {"a": 1}},
    "categories[0].name": {"categories": [{"id": 0}]},
    "annotations[0].bbox": {
        "annotations": [{"image_id": 1, "category_id": 0, "bbox": [1, 2, "3", 4]}]
    },
    "annotations[0].bbox ": {
        "annotations": [{"image_id": 1, "category_id": 0, "bbox": [1, 2, float("nan"), 4]}]
    },
    "annotations[0].image_id": {"annotations": [{"image_id": 9, "category_id": 0, "bbox": []}]},
    "annotations[0].category_id": {"annotations": [{"image_id": 1, "category_id": 5}]},
    "annotations[0].category_id ": {"annotations": [{"image_id": 1, "category_id": [0]}]},
}


@pytest.mark.parametrize("key", WRONG_COCO)
def test_wrong_coco_names_file_and_key(tmp_path, key):
    content = coco(tmp_path / "c")
    content.update(WRONG_COCO[key])
    (tmp_path / "c/annotations.json").write_text(json.dumps(content))
    refused("coco", tmp_path / "c", "annotations.json", key.strip())


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\ud800"])
def test_what_is_no_json_object(tmp_path, text):
    src = tmp_path / "c"
    src.mkdir()
    (src / "annotations.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused("coco", src, "annotations.json")


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'
LEAK = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("head", [BOMB, LEAK])
def test_xml_with_a_doctype_is_refused(tmp_path, head):
    voc(tmp_path / "v", "a", box("cell", 0, 0, 2, 2), head)
    refused("voc", tmp_path / "v", "a.xml", "DOCTYPE")
    text = (tmp_path / "v/Annotations/a.xml").read_text()
    (tmp_path / "v/Annotations/a.xml").write_bytes(text.encode("utf-16"))
    refused("voc", tmp_path / "v", "DOCTYPE")


@pytest.mark.parametrize(
    ("boxes", "part"),
    [
        ("<object>", "not valid XML"),
        ("<object><name>a</name></object>", "object 1: bndbox"),
        (box("a", 0, 0, "inf", 3), "object 1: bndbox"),
        (box("", 0, 0, 2, 3), "object 1 has no name"),
        ("<size><width>x</width><height>3</height></size>", "size"),
    ],
)
def test_wrong_voc_names_file_and_element(tmp_path, boxes, part):
    voc(tmp_path / "v", "a", boxes)
    refused("voc", tmp_path / "v", "a.xml", part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("image,x\na.png,1\n", "columns"),
        ("image;x;y\na.png;1;2\n", "with commas"),
        ("", "columns"),
        ("image,x,y\na.png,nan,1\n", "line 2"),
        ("image,x,y\na.png,1,2\na.png,1,\n", "line 3"),
        ("image,x,y\na.png,1,inf\n", "line 2"),
        ("image,x,y\na.png,1,2,3\n", "line 2"),
        ("image,x,y\n,1,2\n", "line 2"),
        ("image,x,y,split\na.png,1,2,dev\n", "split 'dev'"),
        ("image,x,y,split\na.png,1,2,train\na.png,1,2,val\n", "line 3"),
        ("image,x,y,category\na.png,1,2,\n", "without category"),
        ('image,x,y\n"a.png,1,2\n', "line"),
    ],
)
def test_wrong_csv_names_file_and_line(tmp_path, text, part):
    src = points_csv(tmp_path / "p", text)
    photo(src / "a.png")
    refused("csv", src, "points.csv", part)


WRONG_FSC = {
    "2.jpg.points[0]": {"2.jpg": {"points": [[1, "2"]]}},
    "2.jpg.points": {"2.jpg": {}},
    "2.jpg": {"2.jpg": [1, 2]},
}


@pytest.mark.parametrize("key", WRONG_FSC)
def test_wrong_fsc147_names_file_and_key(tmp_path, key):
    fsc(tmp_path / "f")
    (tmp_path / "f/annotation_FSC147_384.json").write_text(json.dumps(WRONG_FSC[key]))
    refused("fsc147", tmp_path / "f", "annotation_FSC147_384.json", key)


@pytest.mark.parametrize("kind", ["fsc147", "coco", "voc", "csv"])
def test_empty_and_missing_folders(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    refused(kind, tmp_path / "empty", "expected")
    refused(kind, tmp_path / "none", "is not there")
