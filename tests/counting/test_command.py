"""`raydual count` on files: what is read, printed and written."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from raydual.cli import app
from raydual.counting.closed_loop import Counter
from raydual.counting.find import find_images
from raydual.data.images import decode_image
from raydual.errors import ConfigError, RaydualError
from raydual.model.counter import DualTaskCounter

ORIENTATION = 0x0112
CAP = 4


def noise(width: int = 60, height: int = 40) -> Image.Image:
    rng = np.random.default_rng(width)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, dataset: str) -> Path:
    """A model of random weights that never sees an end, trained on pears and figs."""
    from raydual.config import load

    model = DualTaskCounter.from_config(load(None, ["data.image_size=48"]))
    model.categories = ("fig", "pear")
    with torch.no_grad():
        model.heads["done"].done_head[-1].bias.fill_(-50)
    folder = tmp_path_factory.mktemp("model") / "m"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def count(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Run `raydual count` in an empty folder; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object, guard: float = 0) -> tuple[int, str, str]:
        options = ["--checkpoint", checkpoint, "--max-objects", CAP, "--repeat-radius", guard]
        if "--category" not in args:
            options += ["--category", "pear"]
        result = CliRunner().invoke(app, ["count", *map(str, [*args, *options])])
        if isinstance(result.exception, RaydualError):
            return result.exception.exit_code, result.stdout, str(result.exception)
        return result.exit_code, result.stdout, result.stderr

    return run


def test_a_table_and_pictures_by_default(count: Callable, tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        noise().save(tmp_path / name)
    code, out, err = count("a.png", "b.jpg", "--category", "pear")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["image", "count", "done", "stopped", "looks"]
    assert lines[2] == ["a.png", "4", "0%", "max_objects", "4"]
    assert lines[-2] == ["2", "images", "8"]
    assert out.endswith("Pictures are in counted\n")
    assert sorted(os.listdir("counted")) == ["a.counted.png", "b.counted.png"]


@pytest.mark.parametrize(("per_look", "looks"), [("1", CAP), ("3", 2), ("all", 1)])
def test_the_gif_has_a_frame_more_than_looks(
    count: Callable, tmp_path: Path, per_look: str, looks: int
) -> None:
    noise().save(tmp_path / "a.png")
    code, out, _ = count("a.png", "--gif", "--json", "--per-look", per_look)
    (counted,) = json.loads(out)
    assert (code, len(counted["done"]), max(counted["looks"])) == (0, looks, looks)
    assert len(counted["looks"]) == len(counted["sure"]) == CAP
    with Image.open("counted/a.counted.gif") as animation:
        assert animation.n_frames == looks + 1
        assert animation.info["loop"] == 0
    noise().save(tmp_path / "b.png")
    assert count("b.png", "--gif", "--out", "new/folder")[0] == 0
    assert sorted(os.listdir("new/folder")) == ["b.counted.gif", "b.counted.png"]


def test_json_holds_what_the_api_returns(count: Callable, checkpoint: Path, tmp_path: Path) -> None:
    image = noise(90, 50)
    image.save(tmp_path / "a.png")
    noise(10, 10).save(tmp_path / "b.png")
    code, out, err = count("a.png", "b.png", "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(out)
    counted = Counter.from_pretrained(checkpoint).count(
        image, "pear", max_objects=CAP, repeat_radius=0
    )
    assert (first["image"], first["count"], first["stopped"]) == ("a.png", CAP, "max_objects")
    assert (first["category"], first["picture"]) == ("pear", None)
    np.testing.assert_allclose(first["points"], counted.points, atol=2e-3)
    np.testing.assert_allclose(first["done"], counted.done, atol=1e-5)
    assert second["image"] == "b.png"
    assert not Path("counted").exists()
    assert json.loads(count("a.png", "--json", "--out", "o")[1])[0]["picture"] == "o/a.counted.png"


def test_of_several_categories_one_has_to_be_said(checkpoint: Path, tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    result = CliRunner().invoke(
        app, ["count", str(tmp_path / "a.png"), "--checkpoint", str(checkpoint)]
    )
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).endswith("is needed: the model was trained to count fig, pear")


def test_a_file_name_does_not_move_the_cursor(count: Callable, tmp_path: Path) -> None:
    noise().save(tmp_path / "a\x1b[31m\nb.png")
    (tmp_path / "c\x1b[2J.png").write_text("no image")
    code, out, err = count(tmp_path)
    assert code == 1
    assert "\x1b" not in out + err
    assert len([line for line in out.splitlines() if "max_objects" in line]) == 1
    assert "c [2J.png: skipped" in err


def test_csv_has_a_row_an_image(count: Callable, tmp_path: Path) -> None:
    noise().save(tmp_path / 'with "quotes", commas.png')
    code, out, err = count(tmp_path, "--csv", "--category", "apple", guard=1000)
    assert code == 0
    assert err == "note: 'apple' was not trained on; there were: fig, pear\n"
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["image"].endswith('with "quotes", commas.png')
    assert (row["count"], row["stopped"], row["category"]) == ("1", "repeat", "apple")
    x, y = map(float, row["points"].split())
    assert 0 <= x <= 60
    assert 0 <= y <= 40


def test_points_are_in_pixels_of_the_image_as_displayed(count: Callable, tmp_path: Path) -> None:
    upright = noise(60, 40)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    turned, plain = json.loads(count("turned.png", "upright.png", "--json", "--out", "o")[1])
    assert turned["points"] == plain["points"]
    assert Image.open("o/turned.counted.png").size == Image.open("o/upright.counted.png").size


def test_what_cannot_be_read_is_named_and_left_out(count: Callable, tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    buffer = io.BytesIO()
    noise(300, 200).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:2000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.gif").touch()
    (tmp_path / "[red].txt").write_text("no picture")
    code, out, err = count(tmp_path, "nowhere.png", "[red].txt", "--json", "--category", "fig")
    assert code == 1
    assert [Path(entry["image"]).name for entry in json.loads(out)] == ["a.png"]
    lines = err.splitlines()
    assert len(lines) == 5
    for name in ("cut.jpg", "text.png", "empty.gif", "nowhere.png", "[red].txt"):
        assert any(f"{name}: skipped, " in line for line in lines), name
    code, out, err = count("nowhere.png", "--csv")
    assert (code, len(out.splitlines())) == (1, 1)


def test_a_picture_that_cannot_be_written_costs_only_itself(
    count: Callable, tmp_path: Path
) -> None:
    long = f"{'n' * 249}.png"
    for name in ("a.png", long, "z.png"):
        noise().save(tmp_path / name)
    code, out, err = count("a.png", long, "z.png", "--json", "--out", "o", "--category", "fig")
    assert code == 1
    assert [entry["picture"] is None for entry in json.loads(out)] == [False, True, False]
    assert "File name too long" in err
    assert sorted(os.listdir("o")) == ["a.counted.png", "z.counted.png"]


def test_results_that_cannot_be_printed_are_one_line(checkpoint: Path, tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    command = [sys.executable, "-m", "raydual", "count", "a.png", "--csv"]
    command += ["--checkpoint", str(checkpoint), "--max-objects", "1", "--category", "fig"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: cannot print the results: No space left on device"]


def test_any_mode_and_size(count: Callable, tmp_path: Path) -> None:
    picture = noise()
    modes = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
    for mode in modes:
        picture.convert(mode).save(tmp_path / f"{mode}.tiff")
    for mode in ("LA", "RGBA"):
        picture.convert("RGBA").convert(mode).save(tmp_path / f"{mode}.png")
    picture.convert("P").save(tmp_path / "transparent.png", transparency=0)
    deep = np.random.default_rng(0).integers(0, 65535, (40, 60), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "I;16.png")
    picture.convert("L").convert("F").save(tmp_path / "F.tiff")
    for size in ((1, 1), (3000, 1), (1, 3000)):
        noise(*size).save(tmp_path / f"{size[0]}x{size[1]}.png")
    red = Image.new("RGB", (60, 40), "red")
    picture.save(tmp_path / "animated.gif", save_all=True, append_images=[red])
    code, out, _ = count(".", "--json", "--gif", "--out", "o")
    assert code == 0
    entries = json.loads(out)
    assert len(entries) == len(modes) + 9
    for entry in entries:
        width, height = decode_image(Path(entry["image"]).read_bytes()).size
        points = np.array(entry["points"])
        assert entry["count"] == len(points) == CAP
        assert ((points >= 0) & (points <= (width, height))).all()


def test_names_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "c.counted.png", "c.counted.gif", ".d.png", "e.txt", "[x].png"):
        (tmp_path / name).touch()
    for name in ("below", "folder.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "below" / "f.jpeg").touch()

    def found(*names: str) -> list[str]:
        return [str(path) for path in find_images(names)]

    assert found(".") == ["[x].png", "a.JPG", "b.png"]
    assert found("e.txt", "missing.png", "b.png", "b.png") == ["e.txt", "missing.png", "b.png"]
    assert found("[x].png") == ["[x].png"]
    assert found("**/*.jp*g", "*.JPG") == ["below/f.jpeg", "a.JPG"]
    assert found("*.png") == ["[x].png", "b.png"]
    assert found("c.counted.png") == ["c.counted.png"]
    assert found("b.png", ".") == ["b.png", "[x].png", "a.JPG"]
    for names, words in ((["*.bmp"], "no file matches '*.bmp'"), (["folder.png"], "no picture")):
        with pytest.raises(ConfigError, match=words.replace("*", r"\*")):
            find_images(names)


def test_equal_names_from_two_folders_do_not_overwrite_each_other(
    count: Callable, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        noise().save(tmp_path / folder / "a.png")
    entries = json.loads(count("one", "two", "--json", "--out", "o")[1])
    names = [entry["picture"] for entry in entries]
    assert names == ["o/a.counted.png", "o/a-2.counted.png"]
    assert sorted(os.listdir("o")) == ["a-2.counted.png", "a.counted.png"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a.png", "--json", "--csv"], "choose one"),
        (["a.png", "--out", "a.png"], "choose another --out"),
        (["a.png", "--out", "a.png/below"], "choose another --out"),
        (["*.bmp"], "no file matches"),
    ],
)
def test_errors_are_one_line_and_nothing_is_started(
    count: Callable, tmp_path: Path, args: list[str], words: str
) -> None:
    noise().save(tmp_path / "a.png")
    code, out, err = count(*args)
    assert (code, out) == (2, "")
    assert words in err
    assert "\n" not in err
