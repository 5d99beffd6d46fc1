"""Folders and buckets: one way to open them, and to write into them without leaving halves."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from raydual.credentials import ADVICE, has_credentials
from raydual.errors import DataError


def open_filesystem(path: str | Path) -> tuple[pafs.FileSystem, str]:
    """The file system of a local path or URI (s3://, gs://, file://), and the path within it.

    Raises:
        DataError: an unknown scheme, a store that cannot be reached, or credentials in the URI.
    """
    if has_credentials(str(path)):
        raise DataError(f"{str(path).partition('://')[0]}://... {ADVICE}")
    if "://" not in str(path):
        return pafs.LocalFileSystem(), os.path.realpath(Path(path).expanduser())
    try:
        filesystem, root = pafs.FileSystem.from_uri(str(path))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"cannot open {path}: {first_line(error)}; "
            "expected a local path or a URI of s3://, gs:// or file://"
        ) from error
    return filesystem, root.rstrip("/")


def absolute(path: str) -> str:
    """Return a path that means the same on any machine that shares the place; URIs stay."""
    return path if "://" in path else open_filesystem(path)[1]


def join(path: str | Path, name: str) -> str:
    """A file inside a folder: an absolute local path, or a URI that keeps its `?options`."""
    if "://" not in str(path):
        return f"{open_filesystem(path)[1].rstrip('/')}/{name}"
    address, mark, options = str(path).partition("?")
    return f"{address.rstrip('/')}/{name}{mark}{options}"


def refuse_occupied(path: str | Path) -> None:
    """Make sure that nothing is overwritten.

    Raises:
        DataError: `path` is a file or a folder with anything in it.
    """
    filesystem, root = open_filesystem(path)
    info = filesystem.get_file_info(root)
    if info.type == pafs.FileType.NotFound:
        return
    if info.is_file or filesystem.get_file_info(pafs.FileSelector(root)):
        what = "is a file" if info.is_file else "is not empty"
        raise DataError(f"{path} {what}: expected a new folder; choose another or remove it first")


@contextlib.contextmanager
def appears_whole(path: str | Path) -> Iterator[tuple[pafs.FileSystem, str]]:
    """Yield where to write so that a local folder `path` appears whole, or not at all if it fails.

    Buckets cannot rename folders: there the place itself is yielded, and the last file written
    has to mark it as complete.

    Raises:
        DataError: the folder cannot be made or written.
    """
    filesystem, root = open_filesystem(path)
    if not isinstance(filesystem, pafs.LocalFileSystem):
        yield filesystem, root
        return
    final = Path(root)
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield filesystem, str(partial)
        partial.replace(final)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise DataError(
            f"cannot write {path}: {reason}; choose a folder you may write to"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def file_version(path: str) -> list[int]:
    """Return the size of a file in bytes and when it was written, in ns; path: local or a URI."""
    filesystem, inside = open_filesystem(path)
    info = filesystem.get_file_info(inside)
    return [int(info.size), int(info.mtime_ns or 0)]


def write_whole(filesystem: pafs.FileSystem, path: str, content: bytes) -> None:
    """Write a file, and the folders above it, so that it appears whole or not at all.

    Raises:
        OSError: it cannot be written there.
    """
    local = isinstance(filesystem, pafs.LocalFileSystem)
    partial = f"{path}.new" if local else path  # a bucket's objects appear whole
    filesystem.create_dir(path.rpartition("/")[0])
    with filesystem.open_output_stream(partial) as stream:
        stream.write(content)
    if local:
        filesystem.move(partial, path)


def read_regular(file: Path, most: int | None = None) -> bytes:
    """The content of a file; a pipe or a device, which need not end, is none.

    Raises:
        OSError: it is not there, is no file, or has more than `most` bytes.
    """
    if not file.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    if not file.is_file():
        raise OSError(errno.EINVAL, "it is no file but a folder, a pipe or a device", str(file))
    size = file.stat().st_size
    if most is not None and size > most:
        raise OSError(errno.EFBIG, f"it has {size} bytes, {most} at the most are read", str(file))
    return file.read_bytes()


def refuse_special(filesystem: pafs.FileSystem, path: str) -> None:
    """Refuse a pipe or a device, which need not end.

    Raises:
        OSError: it is one.
    """
    if filesystem.get_file_info(path).type == pafs.FileType.Unknown:
        raise OSError(errno.EINVAL, f"{path.rpartition('/')[2]} is no file but a pipe or a device")


def first_line(error: Exception) -> str:
    """What an error says, on one line, at most 200 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
