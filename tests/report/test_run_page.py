"""The page of a single run."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import pytest
from PIL import Image

from raydual.config_tree import TaskSection
from raydual.errors import ConfigError
from raydual.report.page import gather, open_folder
from raydual.report.pictures import spread
from raydual.report.run_page import stops
from raydual.report.words import in_words
from tests.report.searches import line, write_run

HISTORY = [line(i + 1, 1 / (i + 1), 0.6 / (i + 1)) for i in range(5)]


def test_what_a_run_shows(tmp_path: Path) -> None:
    data = gather(open_folder(str(write_run(tmp_path / "r", HISTORY, "train.epochs=9"))))
    assert data["tasks"] == ["coord", "done"]
    assert (data["epochs"], data["max_epochs"]) == ([1, 2, 3, 4, 5], 9)
    assert data["metrics"]["val/loss_coord"] == [1.0, 0.5, 0.3333, 0.25, 0.2]
    assert data["metrics"]["train/grad_cosine"] == [0.06] * 5
    assert data["metrics"]["train/lr_done"] == [3e-4] * 5
    assert data["stops"]["coord"] == {"best": 5, "exhausted": None}
    assert "run:" in data["config"]
    assert in_words(data)[0].startswith("Healthy")


def test_stopping_points_follow_patience_and_min_delta() -> None:
    losses = [1.0, 0.8, 0.79, 0.81, math.nan, 0.5]
    history = [line(i + 1, loss, 1.0) for i, loss in enumerate(losses)]
    cut = history[:5]
    assert stops(cut, "coord", TaskSection(patience=3, min_delta=0.05)) == {
        "best": 2,
        "exhausted": 5,
    }
    assert stops(cut, "coord", TaskSection(patience=3)) == {"best": 3, "exhausted": None}
    # where the other task still trains, a later best takes the end back
    assert stops(history, "coord", TaskSection(patience=2)) == {"best": 6, "exhausted": None}


def test_pictures_are_embedded_small_and_few(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    (folder / "samples").mkdir()
    for epoch in range(1, 11):
        Image.new("RGB", (1200, 600), (epoch, 0, 0)).save(folder / f"samples/epoch_{epoch:04d}.png")
    (folder / "samples/epoch_0004.png").write_bytes(b"no picture")
    pictures = gather(open_folder(str(folder)))["pictures"]
    assert [p["epoch"] for p in pictures] == [10, 7, 1]
    content = base64.b64decode(pictures[0]["src"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(content)).size == (960, 480)


def test_spread_keeps_both_ends() -> None:
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 4) == [1, 2]


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", [])
    (folder / "metrics.jsonl").unlink()
    data = gather(open_folder(str(folder)))
    assert data["epochs"] == []
    assert in_words(data) == ["Too early to say: epochs so far 0, needed 3"]


def test_a_run_without_configuration(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    (folder / "config.yaml").unlink()
    assert gather(open_folder(str(folder)))["config"] == ""


@pytest.mark.parametrize("content", ["{", "[1]\n", '{"loss": 1}\n', '{"epoch": "1"}\n'])
def test_damaged_metrics_are_one_line(tmp_path: Path, content: str) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    (folder / "metrics.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=r"metrics.jsonl is damaged") as raised:
        gather(open_folder(str(folder)))
    assert "\n" not in str(raised.value)


def test_a_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    (folder / "config.yaml").write_text("coord: {lr: fast}")
    with pytest.raises(ConfigError, match=r"config.yaml: coord.lr"):
        gather(open_folder(str(folder)))


def test_folders_that_are_neither(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file.txt").write_text("x")
    for name, what in (("none", "no folder"), ("empty", "empty"), ("other", "neither")):
        with pytest.raises(ConfigError, match=what) as raised:
            open_folder(str(tmp_path / name))
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="no folder"):
        open_folder(str(tmp_path / "other/file.txt"))
