"""The folder of one run, local or in a bucket: what is in it appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.fs as pafs

from raydual.config import load
from raydual.config_tree import Config
from raydual.data.patience import patiently, storage_error
from raydual.data.storage import first_line, join, open_filesystem, write_whole
from raydual.errors import CheckpointError, ConfigError, RaydualError, StorageError
from raydual.model.files import MANIFEST, read_manifest
from raydual.tasks import TASKS

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
LATEST = "latest_checkpoint"

T = TypeVar("T")


def best_of(task: str) -> str:
    """Return the name of the folder that holds a task's best checkpoint."""
    return f"best_{task}_checkpoint"


CHECKPOINTS = (LATEST, *(best_of(task.name) for task in TASKS))
"""The folders in a run that hold checkpoints."""


class RunFolder:
    """Files and checkpoints of one run under `storage`/`name`.

    What fails is tried again for half a minute; `on_wait` is told. Every method raises
    StorageError when that has not helped, and at once where waiting does not help: on a full
    disk, say.
    """

    def __init__(
        self, storage: str, name: str, on_wait: Callable[[str], None] = lambda text: None
    ) -> None:
        self.name = name
        self._on_wait = on_wait
        self.path = join(storage, name)
        self._fs, self._root = open_filesystem(self.path)
        self._local = isinstance(self._fs, pafs.LocalFileSystem)

    @classmethod
    def at(cls, path: str | Path) -> RunFolder:
        """Return the run at a local path or URI, as `storage` and `name` give it."""
        if "://" in str(path):
            address, mark, options = str(path).partition("?")
        else:
            address, mark, options = open_filesystem(path)[1], "", ""
        storage, _, name = address.rstrip("/").rpartition("/")
        return cls(f"{storage}{mark}{options}" or "/", name)

    def exists(self) -> bool:
        """Whether there is anything in the folder yet."""
        info = self._fs.get_file_info(self._root)
        return info.type == pafs.FileType.Directory and bool(self._list(self._root))

    def publish(self, name: str, write: Callable[[Path], None]) -> None:
        """Replace the checkpoint `name` by what `write` puts into the folder it is given.

        The new one is completed beside the old one before that is removed, its manifest last, so
        that at any instant one of the two is whole. `write` may be called again.
        """
        self._patiently(f"save {name} in", lambda: self._publish(name, write))

    def recover(self, name: str) -> None:
        """Finish the replacement that a crash interrupted, if there was one.

        For one process alone: that which resumes the run.
        """
        self._patiently(f"restore {name} in", lambda: self._recover(name))

    @contextlib.contextmanager
    def checkpoint(self, name: str) -> Iterator[Path]:
        """Yield a local folder with the checkpoint, fetched from the bucket where it lies in one.

        name: of a folder in this one; empty for this folder itself.

        Raises:
            CheckpointError: there is none, or it is incomplete.
        """
        place = self._whole(name)
        if self._local:
            read_manifest(Path(place or f"{self._root}/{name}"))
            yield Path(place or f"{self._root}/{name}")
            return
        if place is None:
            raise CheckpointError(f"no checkpoint at {self.path}/{name}")
        with tempfile.TemporaryDirectory() as scratch:
            self._patiently(
                f"read {name} in",
                lambda: pafs.copy_files(place, scratch, source_filesystem=self._fs),
            )
            read_manifest(Path(scratch))
            yield Path(scratch)

    def has_checkpoint(self, name: str) -> bool:
        """Whether there is a whole checkpoint of this name."""
        return self._whole(name) is not None

    def remove(self, name: str) -> None:
        """Delete a checkpoint or another folder, if it is there."""
        self._patiently(f"remove {name} from", lambda: self._remove(f"{self._root}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        path = f"{self._root}/{name}"
        self._patiently(f"write {name} into", lambda: write_whole(self._fs, path, content))

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none."""
        path = f"{self._root}/{name}"

        def read() -> bytes | None:
            if self._fs.get_file_info(path).type != pafs.FileType.File:
                return None
            with self._fs.open_input_stream(path) as stream:
                return stream.read()

        return self._patiently(f"read {name} in", read)

    def config(self) -> Config | None:
        """Return what config.yaml says; None where there is none.

        Raises:
            ConfigError: it is not what a training writes.
        """
        content = self.read(CONFIG_FILE)
        try:
            return None if content is None else load(base=content.decode(errors="replace"))
        except ConfigError as error:
            raise ConfigError(f"{self.path}/{CONFIG_FILE}: {error}; correct it") from None

    def record(self, epoch: int, metrics: dict[str, Any]) -> None:
        """Write the line of an epoch into metrics.jsonl; lines of that epoch or later go."""
        lines = [line for line in self.history() if line["epoch"] < epoch]
        lines.append({"epoch": epoch, **metrics})
        self.write(METRICS_FILE, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, by epoch; none where there is no such file.

        Raises:
            ConfigError: it is not one JSON object of numbers, with an epoch, a line.
        """
        content = self.read(METRICS_FILE) or b""
        try:
            lines = [json.loads(line) for line in content.decode().splitlines()]
            known = all(_is_epoch(line) for line in lines)
        except (ValueError, RecursionError):
            known = False
        if not known:
            raise ConfigError(
                f"{self.path}/{METRICS_FILE} is damaged: expected one JSON object of numbers, with "
                "an epoch, on every line; remove the lines that are not"
            )
        return lines

    def local(self) -> Path | None:
        """The folder on this machine, or None in a bucket."""
        return Path(self._root) if self._local else None

    def _publish(self, name: str, write: Callable[[Path], None]) -> None:
        self._recover(name)
        beside = self._beside(name)
        self._remove(beside)
        self._fs.create_dir(self._root)
        if self._local:
            Path(beside).mkdir()
            write(Path(beside))
        else:
            with tempfile.TemporaryDirectory() as scratch:
                write(Path(scratch))
                self._copy(pafs.LocalFileSystem(), scratch, beside)
        self._replace(name)

    def _recover(self, name: str) -> None:
        if self._is_whole(self._beside(name)) and not self._is_whole(f"{self._root}/{name}"):
            self._replace(name)

    def _whole(self, name: str) -> str | None:
        """Where the checkpoint is whole: in its place, or still beside it after a crash."""
        places = [f"{self._root}/{name}".rstrip("/"), self._beside(name)]
        return self._patiently(
            f"read {name} in", lambda: next(filter(self._is_whole, places), None)
        )

    def _patiently(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return patiently(action, self._on_wait)
        except RaydualError:
            raise
        except Exception as error:
            if (reason := storage_error(error)) is None:
                raise
            raise StorageError(f"cannot {doing} {self.path}: {self._explained(reason)}") from error

    def _explained(self, reason: OSError) -> str:
        if reason.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return (
                f"{os.strerror(reason.errno)}; the checkpoint before it is whole: "
                f"make room, then go on with `raydual train --resume {self.path}`"
            )
        return f"{first_line(reason)}; run.storage has to be a folder or bucket one can write"

    def _beside(self, name: str) -> str:
        return f"{self._root}/.{name}.new"

    def _replace(self, name: str) -> None:
        self._remove(f"{self._root}/{name}")
        if self._local:
            self._fs.move(self._beside(name), f"{self._root}/{name}")
        else:
            self._copy(self._fs, self._beside(name), f"{self._root}/{name}")
            self._remove(self._beside(name))

    def _copy(self, source: pafs.FileSystem, folder: str, target: str) -> None:
        """Copy a checkpoint to the run's file system, its manifest last."""
        files = source.get_file_info(pafs.FileSelector(folder, recursive=True))
        names = [f.path[len(folder) + 1 :] for f in files if f.is_file]
        for name in sorted(names, key=lambda n: n == MANIFEST):
            self._fs.create_dir(f"{target}/{name}".rpartition("/")[0])
            pafs.copy_files(
                f"{folder}/{name}",
                f"{target}/{name}",
                source_filesystem=source,
                destination_filesystem=self._fs,
            )

    def _is_whole(self, folder: str) -> bool:
        return self._fs.get_file_info(f"{folder}/{MANIFEST}").type == pafs.FileType.File

    def _remove(self, folder: str) -> None:
        if self._fs.get_file_info(folder).type == pafs.FileType.Directory:
            if self._is_whole(folder):
                self._fs.delete_file(f"{folder}/{MANIFEST}")
            self._fs.delete_dir(folder)

    def _list(self, folder: str) -> list[pafs.FileInfo]:
        return self._fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))


def _is_epoch(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("epoch"), int):
        return False
    return all(value is None or isinstance(value, int | float) for value in line.values())
