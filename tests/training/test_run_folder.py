from __future__ import annotations

import contextlib
import errno
import itertools
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import torch
from safetensors.torch import save_file

from raydual.data import patience
from raydual.errors import CheckpointError, StorageError
from raydual.model.files import write_manifest
from raydual.training import run_folder
from raydual.training.run_folder import RunFolder
from tests.training.faults import Crash, faults, file_size_limit, flaky_folder


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
        raise OSError(errno.ENOSPC, "disk full")

    folder.publish("latest", checkpoint("one"))
    with pytest.raises(StorageError, match="No space left"):
        folder.publish("latest", fail)
    assert content(folder) == "one"
    folder.publish("latest", checkpoint("two"))
    assert content(folder) == "two"


@pytest.mark.parametrize("local", [True, False])
def test_a_crash_between_any_two_file_operations_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    survived = []
    for operation in itertools.count():
        runs = tmp_path / str(operation)
        folder = flaky_folder(runs, monkeypatch, local)
        folder.publish("latest", checkpoint("one"))
        with faults(crash_at=operation) as crash, contextlib.suppress(Crash):
            folder.publish("latest", checkpoint("two"))
        after = flaky_folder(runs, monkeypatch, local)
        survived.append(content(after))
        after.publish("latest", checkpoint("three"))
        assert content(after) == "three"
        assert sorted(p.name for p in (runs / "r").iterdir()) == ["latest"]
        if not crash.happened:
            break
    assert set(survived) == {"one", "two"}
    assert survived == sorted(survived), "once the new one is there, the old one is gone"
    assert len(survived) > 8


@pytest.mark.parametrize("local", [True, False])
def test_storage_that_fails_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    said: list[str] = []
    folder = flaky_folder(tmp_path, monkeypatch, local, said.append)
    monkeypatch.setattr(patience, "WAITS_S", (0, 0, 0))
    with faults(errors=[OSError(errno.EIO, "I/O error")] * 3):
        folder.publish("latest", checkpoint("one"))
        assert content(folder) == "one"
    assert said == ["storage fails ([Errno 5] I/O error); once more in 0 s"] * 3
    with faults(errors=[OSError(errno.EIO, "I/O error")] * 2):
        folder.record(1, {"loss": 1.0})
        assert folder.history() == [{"epoch": 1, "loss": 1.0}]
    assert len(said) == 5


@pytest.mark.parametrize("local", [True, False])
def test_storage_that_goes_on_failing_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    folder = flaky_folder(tmp_path, monkeypatch, local)
    folder.publish("latest", checkpoint("one"))
    monkeypatch.setattr(patience, "WAITS_S", (0, 0))
    failing = faults(errors=[OSError(errno.EIO, "I/O error")] * 3)
    with (
        failing as asked,
        pytest.raises(StorageError, match=r"cannot save latest in .*I/O error"),
    ):
        folder.publish("latest", checkpoint("two"))
    assert asked.raised == 3
    assert content(folder) == "one"
    failing = faults(errors=[OSError(errno.EACCES, "Permission denied")] * 3)
    with failing as asked, pytest.raises(StorageError, match="Permission denied"):
        folder.publish("latest", checkpoint("two"))
    assert asked.raised == 1, "waiting does not help where permission is missing"


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    """Real writers on a real limit: torch and safetensors each say it in their own way."""
    folder = RunFolder(str(tmp_path), "r")
    folder.publish("latest", checkpoint("one"))
    much = {"weights": torch.zeros(100_000)}

    def by_torch(path: Path) -> None:
        with (path / "state.pt").open("wb") as file:
            torch.save(much, file)

    for write in (by_torch, lambda path: save_file(much, path / "model.safetensors")):
        too_large = pytest.raises(StorageError, match=r"File too large; .* is whole: make room")
        with too_large, file_size_limit(100_000):
            folder.publish("latest", write)
        assert content(folder) == "one"


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
