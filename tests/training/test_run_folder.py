from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from raydual.errors import CheckpointError
from raydual.model.files import write_manifest
from raydual.training import run_folder
from raydual.training.run_folder import RunFolder


def checkpoint(text: str):
    def write(folder: Path) -> None:
        (folder / "weights").write_text(text)
        write_manifest(folder, {})

    return write


def content(folder: RunFolder) -> str:
    with folder.checkpoint("latest") as path:
        return (path / "weights").read_text()


@pytest.fixture(params=["local", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> RunFolder:
    """A local folder, or one that is not known to be local and so is treated as a bucket."""
    if request.param == "bucket":
        bucket = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
        monkeypatch.setattr(run_folder, "open_filesystem", lambda path: (bucket, "runs/r"))
    return RunFolder(str(tmp_path / "runs"), "r")


def test_publish_replaces(folder: RunFolder) -> None:
    assert not folder.has_checkpoint("latest")
    folder.publish("latest", checkpoint("one"))
    folder.publish("latest", checkpoint("two"))
    assert content(folder) == "two"


def test_a_failed_write_leaves_the_old_one(folder: RunFolder) -> None:
    def fail(path: Path) -> None:
        (path / "weights").write_text("half")
        raise OSError("disk full")

    folder.publish("latest", checkpoint("one"))
    with pytest.raises(OSError, match="disk full"):
        folder.publish("latest", fail)
    assert content(folder) == "one"
    folder.publish("latest", checkpoint("two"))
    assert content(folder) == "two"


def test_a_crash_between_removing_and_moving_is_finished_later(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.publish("latest", checkpoint("one"))

    def crash(name: str) -> None:
        folder._remove(f"{folder._root}/{name}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folder, "_replace", crash)
        with pytest.raises(KeyboardInterrupt):
            folder.publish("latest", checkpoint("two"))
    assert not folder.has_checkpoint("latest")
    folder.recover("latest")
    assert content(folder) == "two"


def test_a_crash_while_the_old_one_is_removed_is_finished_later(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest goes first, so that what is left of the old one is not taken for whole."""
    folder.publish("latest", checkpoint("one"))

    def crash(name: str) -> None:
        folder._fs.delete_file(f"{folder._root}/{name}/raydual.json")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folder, "_replace", crash)
        with pytest.raises(KeyboardInterrupt):
            folder.publish("latest", checkpoint("two"))
    folder.recover("latest")
    assert content(folder) == "two"


def test_an_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "r")
    folder.publish("latest", checkpoint("one"))
    (tmp_path / "r" / "latest" / "weights").write_text("o")
    with pytest.raises(CheckpointError, match=r"weights has 1 of 3 bytes"):
        content(folder)
    with pytest.raises(CheckpointError, match="nothing"), folder.checkpoint("nothing"):
        pass


def test_a_folder_at_the_root_is_found_there() -> None:
    folder = RunFolder.at("/model")
    assert (folder.path, folder.name) == ("/model", "model")


def test_metrics_are_keyed_by_epoch(folder: RunFolder) -> None:
    for epoch, loss in ((1, 0.9), (2, 0.8), (3, 0.7), (2, 0.5)):
        folder.record(epoch, {"loss": loss})
    assert folder.history() == [{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.5}]
