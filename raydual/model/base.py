"""What a trunk under LoRA is trained on: named in its checkpoints, not copied into them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from raydual.errors import CheckpointError, ConfigError
from raydual.model.source import locate, resolve

BASE_FILE = "base.json"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Base:
    """Frozen weights that lie elsewhere.

    source: an absolute folder, or the id of a hub. dtype: "float32" or "bfloat16", what they were
    computed in. sha256: of their files.
    """

    source: str
    dtype: str
    sha256: str

    @classmethod
    def of(cls, name_or_path: str, dtype: torch.dtype) -> Base:
        """Name the weights of `model.trunk`; reads them all once."""
        found = locate(name_or_path)
        source = str(Path(found).absolute()) if Path(found).is_dir() else found
        return cls(source, str(dtype).removeprefix("torch."), _digest(Path(resolve(source))))

    @classmethod
    def read(cls, folder: Path) -> Base:
        """Read what `write` wrote.

        Raises:
            CheckpointError: it cannot be read.
        """
        path = folder / BASE_FILE
        try:
            base = cls(**json.loads(path.read_text()))
            _DTYPES[base.dtype]
            return base
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read: {error!r}") from None

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        (folder / BASE_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the weights."""
        return _DTYPES[self.dtype]

    def folder(self) -> str:
        """Return where the weights are.

        Raises:
            CheckpointError: they are not there, or have changed.
        """
        advice = "put the weights it was trained on there, or a link to their folder"
        try:
            folder = resolve(self.source)
        except ConfigError:
            raise CheckpointError(
                f"the checkpoint holds adapters for {self.source}, which cannot be found; {advice}"
            ) from None
        if _digest(Path(folder)) != self.sha256:
            raise CheckpointError(
                f"the checkpoint holds adapters for {self.source}, whose weights have changed "
                f"since; {advice}"
            )
        return folder


def _digest(folder: Path) -> str:
    """Return the SHA-256 of the weights in a folder; of files that have not changed, only once."""
    files = sorted(folder.glob("*.safetensors"))
    return _digest_of(tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


@lru_cache
def _digest_of(files: tuple[tuple[str, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for name, size, _ in files:
        with Path(name).open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{Path(name).name} {size} {part}\n".encode())
    return whole.hexdigest()
