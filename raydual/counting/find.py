"""Which files a user means by names, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from raydual.counting.annotate import MARKED
from raydual.data.images import FORMATS
from raydual.errors import ConfigError

SUFFIXES = frozenset(
    suffix for suffix, format in Image.registered_extensions().items() if format in FORMATS
)


def find_images(names: Sequence[str]) -> list[Path]:
    """List the files that are meant, each once, in the order given.

    names: a file, whether it is there or not; a folder, for the pictures directly in it, by name;
        or a pattern with `*`, `**`, `?` or `[...]`, for the files it matches, by name. What an
        earlier count has drawn is only found by its own name.

    Raises:
        ConfigError: a folder holds no picture, or a pattern matches no file.
    """
    files: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            files.update(dict.fromkeys(_pictures(path)))
        elif glob.has_magic(name) and not path.exists():
            files.update(dict.fromkeys(_matches(name)))
        else:
            files[path] = None
    return list(files)


def _pictures(folder: Path) -> list[Path]:
    """List a folder's pictures, without hidden files and what an earlier count wrote there."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise ConfigError(f"cannot list {folder}: {error.strerror}; name another folder") from None
    files = [p for p in found if p.is_file() and not p.name.startswith(".") and not _is_own(p)]
    if not files:
        raise ConfigError(
            f"no picture lies in {folder}; for those in folders below it give '{folder}/**/*.jpg'"
        )
    return files


def _matches(pattern: str) -> list[Path]:
    files = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in files if path.is_file() and not _is_own(path)]
    if not files:
        raise ConfigError(f"no file matches {pattern!r}; give files, a folder or another pattern")
    return files


def _is_own(path: Path) -> bool:
    """Whether an earlier count has drawn it."""
    return path.name.endswith((f"{MARKED}.png", f"{MARKED}.gif"))
