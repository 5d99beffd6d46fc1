"""A checkpoint folder: whole or not at all.

`raydual.json` is written last and lists every other file with its size, so a folder that lacks
it, or a listed byte, is known to be incomplete. Weights are safetensors; nothing in a
checkpoint can run code when it is read.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from raydual.errors import CheckpointError

MANIFEST = "raydual.json"
FORMAT = 1


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest over everything that lies in the folder; the last file to be written."""
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    text = json.dumps({"format": FORMAT, **content, "files": files}, indent=1)
    partial = folder / f".{MANIFEST}"
    partial.write_text(text)
    partial.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest.

    Raises:
        CheckpointError: the folder is missing, no checkpoint, of another format, or incomplete.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {folder}: there is no such folder")
    refuse_special(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
        version = manifest["format"]
    except FileNotFoundError:
        inside = sorted(p.name for p in folder.glob("*checkpoint*"))
        hint = f"; it holds {', '.join(inside)}: name one of them" if inside else ""
        raise CheckpointError(
            f"{folder} has no {MANIFEST}: it is no raydual checkpoint{hint}"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{folder / MANIFEST} cannot be read: {error!r}") from None
    if version != FORMAT:
        raise CheckpointError(f"{folder} has format {version}; this version reads {FORMAT}")
    categories = manifest.get("categories", [])
    if not isinstance(categories, list) or not all(isinstance(c, str) for c in categories):
        raise CheckpointError(f"{folder / MANIFEST} has categories that are no list of texts")
    for name, size in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{folder / MANIFEST} names {name}, which is outside {folder}")
        got = path.stat().st_size if path.is_file() else 0
        if got != size:
            raise CheckpointError(f"{folder} is incomplete: {name} has {got} of {size} bytes")
    return manifest


def refuse_special(folder: Path) -> None:
    """Make sure that reading a folder with a model ends.

    Raises:
        CheckpointError: a pipe or a device is in it.
    """
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CheckpointError(f"{path} is a pipe or a device; a model has only files")


def saved_config(manifest: dict[str, Any], folder: Path | str) -> dict[str, Any]:
    """Return the configuration in the manifest of a checkpoint, as plain values.

    Raises:
        CheckpointError: there is none.
    """
    config = manifest.get("config")
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder}: its {MANIFEST} has no mapping named config")
    return config


def same_weights(first: Path, second: Path) -> bool:
    """Whether two checkpoint folders hold the same weights, byte for byte."""
    sizes = [
        {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*.safetensors")}
        for folder in (first, second)
    ]
    smallest_first = sorted(sizes[0], key=lambda name: sizes[0][name])
    return sizes[0] == sizes[1] and all(
        filecmp.cmp(first / name, second / name, shallow=False) for name in smallest_first
    )


def weights_digest(*heads: bytes) -> str:
    """Return what tells weights from others: any step of training changes the heads.

    heads: the content of the heads' file of each checkpoint, in the tasks' order.
    """
    digest = hashlib.blake2b(digest_size=8)
    for content in heads:
        digest.update(hashlib.blake2b(content).digest())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the host.

    Raises:
        CheckpointError: it is missing or no safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights {path}: {error}") from None
