"""What a trunk under LoRA is trained on: named in its checkpoints, not copied into them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from raydual.errors import CheckpointError, ConfigError
from raydual.model.source import locate, resolve

BASE_FILE = "base.json"


class Base(BaseModel):
    """Frozen weights that lie elsewhere.

    source: an absolute folder, or the id of a hub. dtype: what they were computed in. sha256: of
    their files.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    source: str
    dtype: Literal["float32", "bfloat16"]
    sha256: str

    @classmethod
    def of(cls, name_or_path: str, dtype: torch.dtype) -> Base:
        """Name the weights of `model.trunk`; reads them all once."""
        found = locate(name_or_path)
        source = str(Path(found).absolute()) if Path(found).is_dir() else found
        sha256 = _digest(Path(resolve(source)))
        name: Literal["float32", "bfloat16"]
        name = "bfloat16" if dtype == torch.bfloat16 else "float32"
        return cls(source=source, dtype=name, sha256=sha256)

    @classmethod
    def read(cls, folder: Path) -> Base:
        """Read what `write` wrote.

        Raises:
            CheckpointError: it cannot be read.
        """
        path = folder / BASE_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
        except OSError as error:
            reason = str(error)
        raise CheckpointError(f"{path} cannot be read: {reason}")

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        (folder / BASE_FILE).write_text(self.model_dump_json(indent=1) + "\n")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the weights."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

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
