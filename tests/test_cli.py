"""The command line as a user meets it: as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


def raydual(*args: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "raydual", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


QUICK = [
    "data.image_size=48", "train.batch_size=4", "train.max_iterations=2", "scale.num_workers=0",
    "log.wandb=disabled", "run.name=r", "train.epochs=1",
]  # fmt: skip


def test_train_resume_and_count(dataset: str, tmp_path: Path) -> None:
    done = raydual("train", f"data.path={dataset}", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("Epoch 1:", "  Train - coord: ", "  Val   - coord: ", "✅ New best COORD model!"):
        assert words in done.stdout
    assert "Done: no improvement for 0/5 epochs" in done.stdout
    assert done.stderr == ""

    again = raydual("train", f"data.path={dataset}", *QUICK, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "--resume" in again.stderr

    more = raydual("train", "--resume", "runs/r", "train.epochs=2", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "Epoch 2:" in more.stdout
    assert "Epoch 1:" not in more.stdout

    Image.new("RGB", (60, 40), "white").save(tmp_path / "white.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    counted = raydual(
        "count", "white.png", "broken.jpg", "--checkpoint", "runs/r", "--max-objects", "3",
        "--category", "star", "--gif", cwd=tmp_path,
    )  # fmt: skip
    assert counted.returncode == 1
    assert "white.png" in counted.stdout
    assert "broken.jpg: skipped" in counted.stderr
    assert Image.open(tmp_path / "counted" / "white.counted.png").width >= 384
    assert (tmp_path / "counted" / "white.counted.gif").exists()

    one = "runs/r/best_done_checkpoint"
    asked = ["--checkpoint", one, "--category", "star", "--json"]
    shown = raydual("count", "white.png", *asked, cwd=tmp_path)
    assert shown.returncode == 0
    assert json.loads(shown.stdout)[0]["image"] == "white.png"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "coord.learning_rate=1"], "coord.lr"),
        (["train", "--config", "nothing.yaml"], "nothing.yaml"),
        (["train", "--preset", "huge"], "tiny"),
        (["train", "data.path=nowhere"], "nowhere"),
        (["train", "--resume", "nowhere"], "latest_checkpoint"),
        (["report", "nowhere"], "nowhere"),
        (["dashboard", "nowhere"], "nowhere"),
        (["tune"], "got no search file"),
        (["tune", "nothing.yaml"], "nothing.yaml"),
        (["tune", "--resume", "nowhere"], "is no search"),
        (["count", "a.png", "--checkpoint", "nowhere"], "nowhere"),
        (["data", "check", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(args: list[str], words: str, tmp_path: Path) -> None:
    result = raydual(*args, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr + result.stdout


def test_show_config_is_yaml_that_train_reads(tmp_path: Path) -> None:
    shown = raydual("train", "coord.lr=1e-4", "--show-config", cwd=tmp_path)
    (tmp_path / "c.yaml").write_text(shown.stdout)
    again = raydual("train", "--config", "c.yaml", "--show-config", cwd=tmp_path)
    assert again.stdout == shown.stdout
    assert "lr: 0.0001" in shown.stdout
