"""Storage that crashes or fails at a chosen operation, and disks that are full."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from raydual.training import run_folder
from raydual.training.run_folder import RunFolder

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}


class Crash(BaseException):
    """The process ends here."""


class Faults:
    """Counts what is about to be done to files; crashes at one of these operations, or fails.

    Attributes:
        happened: whether it has crashed. raised: how many errors it has given.
    """

    def __init__(self, crash_at: int | None, errors: list[OSError]) -> None:
        self.crash_at, self.errors = crash_at, errors
        self.count = self.raised = 0
        self.happened = False

    def next(self) -> None:
        if self.happened:
            raise Crash  # the dead do nothing more, not even in a `finally`
        if self.count == self.crash_at:
            self.happened = True
            raise Crash
        self.count += 1
        if self.raised < len(self.errors):
            self.raised += 1
            raise self.errors[self.raised - 1]


_active: list[Faults] = []


def _hook(event: str, arguments: tuple) -> None:
    """Hear of what Python does to files; pyarrow's own operations come through `_Handler`."""
    if _active and (event in CHANGES or (event == "open" and "w" in str(arguments[1]))):
        _active[-1].next()


sys.addaudithook(_hook)


@contextlib.contextmanager
def faults(crash_at: int | None = None, errors: list[OSError] | None = None) -> Iterator[Faults]:
    """Let the file operations in the block crash, or fail, and those of nobody else."""
    fault = Faults(crash_at, errors or [])
    _active.append(fault)
    try:
        yield fault
    finally:
        _active.remove(fault)


class _Handler(pafs.FileSystemHandler):
    """A local file system that works step by step in Python, where `_hook` hears of each step."""

    def get_type_name(self) -> str:
        return "stepwise"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return pafs.LocalFileSystem().get_file_info(paths)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        return pafs.LocalFileSystem().get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        if not os.path.isdir(path):  # `exist_ok` would swallow the faults
            os.makedirs(path)

    def delete_dir(self, path: str) -> None:
        shutil.rmtree(path)

    def delete_file(self, path: str) -> None:
        os.remove(path)

    def move(self, src: str, dest: str) -> None:
        os.rename(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        shutil.copyfile(src, dest)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(open(path, "rb"))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(open(path, "rb"))

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return pa.PythonFile(open(path, "wb"))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        raise NotImplementedError

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise NotImplementedError


def flaky_folder(
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    local: bool,
    on_wait: Callable[[str], None] = lambda text: None,
) -> RunFolder:
    """Return a run folder that is treated as a local one, or as a bucket."""
    filesystem = pafs.PyFileSystem(_Handler())
    with monkeypatch.context() as patched:
        root = str(runs / "r")
        patched.setattr(run_folder, "open_filesystem", lambda path: (filesystem, root))
        folder = RunFolder(str(runs), "r", on_wait)
    folder._local = local
    return folder


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
