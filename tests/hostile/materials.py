"""What hostile inputs are made of: pictures, datasets, a trained run, planted code."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile.case import PLANTED

TRAIN = (
    "train data.image_size=48 train.batch_size=2 train.max_iterations=1 train.epochs=1 "
    "train.count_every=0 scale.num_workers=0 log.wandb=disabled log.images=0 "
    "run.name=r run.storage=out"
)
"""A command that trains for a second, were its input not hostile."""

RESUME = "train --resume out/r train.epochs=2"


class Planted:
    """Leaves a file outside when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.file = folder.parent / PLANTED

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


def planted(folder: Path) -> bytes:
    """Return a pickle that runs code."""
    return pickle.dumps(Planted(folder))


def planted_python(folder: Path) -> str:
    """Return a module that runs code."""
    return f"from pathlib import Path\nPath({str(folder.parent / PLANTED)!r}).touch()\n"


def picture(seed: int = 0, size: tuple[int, int] = (48, 40), form: str = "PNG") -> bytes:
    """Return a sound picture."""
    values = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(values).save(data, form)
    return data.getvalue()


def put(name: str, content: bytes | str) -> Callable[[Path], None]:
    """Return what writes one file."""

    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data)

    return write


def fifo(name: str) -> Callable[[Path], None]:
    """Return what makes a pipe that nobody writes to: reading it never ends."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(folder / name)

    return make


def endless(name: str) -> Callable[[Path], None]:
    """Return what makes a file of 2 TiB without content."""

    def make(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(2**41)

    return make


def link(name: str, target: str) -> Callable[[Path], None]:
    """Return what makes a symbolic link."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)

    return make


def both(*builders: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what does one thing after the other."""

    def build(folder: Path) -> None:
        for builder in builders:
            builder(folder)

    return build


def row(name: str, split: str, points: Iterable = ((10, 10),), **changes: Any) -> dict[str, Any]:
    """Return a row of a dataset as plain values."""
    sound = {
        "id": name,
        "split": split,
        "category": "pear",
        "image": picture(sum(name.encode())),
        "width": 48,
        "height": 40,
        "points": [{"x": float(x), "y": float(y)} for x, y in points],
    }
    return sound | changes


def rows(**changes: Any) -> list[dict[str, Any]]:
    """Return six sound rows; the first one, of training, with changes."""
    names = [("a", "train"), ("b", "train"), ("c", "train"), ("d", "val"), ("e", "val")]
    sound = [row(name, split) for name, split in (*names, ("f", "test"))]
    return [sound[0] | changes, *sound[1:]]


@functools.cache
def _template() -> Path:
    """A dataset `ds` and a run `r`, trained on it for one iteration."""
    scratch = Path(tempfile.mkdtemp(prefix="raydual-hostile-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    from raydual.config import load
    from raydual.data.schema import Row, write_dataset
    from raydual.training.launch import launch

    write_dataset(
        (Row(**{**r, "points": np.array([[p["x"], p["y"]] for p in r["points"]])}) for r in rows()),
        scratch / "ds",
        source="a test",
    )
    overrides = [o for o in TRAIN.split()[1:] if not o.startswith("run.storage")]
    paths = [f"run.storage={scratch}", f"data.path={scratch / 'ds'}"]
    with contextlib.redirect_stdout(io.StringIO()):
        launch(load(None, [*overrides, *paths]), lambda event: None)
    return scratch


def dataset(folder: Path) -> Path:
    """Copy a sound dataset to `ds`."""
    shutil.copytree(_template() / "ds", folder / "ds")
    return folder / "ds"


def run(folder: Path) -> Path:
    """Copy a sound run to `out/r`, its dataset to `ds`; return its latest checkpoint."""
    dataset(folder)
    shutil.copytree(_template() / "r", folder / "out" / "r")
    config = folder / "out" / "r" / "config.yaml"
    config.write_text(config.read_text().replace(str(_template()), str(folder)))
    return folder / "out" / "r" / "latest_checkpoint"


def checkpoint(folder: Path) -> Path:
    """Copy a sound checkpoint to `model`."""
    shutil.copytree(_template() / "r" / "best_coord_checkpoint", folder / "model")
    put("a.png", picture())(folder)
    return folder / "model"


def resign(checkpoint: Path, **changes: Any) -> None:
    """Let the manifest of a checkpoint agree with its files, with changes."""
    path = checkpoint / "raydual.json"
    files = {
        p.relative_to(checkpoint).as_posix(): p.stat().st_size
        for p in checkpoint.rglob("*")
        if p.is_file() and p != path
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files} | changes))


def changed(source: Callable[[Path], Path], *changes: Callable[[Path], object]) -> Any:
    """Return what copies a sound checkpoint, changes it, and signs it again.

    source: `run` or `checkpoint`. changes: each is given the folder of the checkpoint.
    """

    def build(folder: Path) -> None:
        place = source(folder)
        for change in changes:
            change(place)
        resign(place)

    return build
