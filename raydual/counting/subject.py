"""What is evaluated: a run, whose tasks each have a best checkpoint, or one checkpoint folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from raydual.config import build
from raydual.config_tree import Config
from raydual.counting.closed_loop import Counter
from raydual.counting.looks import PerLook, marks_a_look
from raydual.counting.threshold import (
    USUAL,
    Thresholds,
    key_of,
    stored_thresholds,
    with_thresholds,
)
from raydual.data.storage import join
from raydual.errors import CheckpointError
from raydual.model.counter import HEADS_FILE
from raydual.model.files import MANIFEST, read_manifest, saved_config, weights_digest
from raydual.tasks import COORD, DONE, TASKS
from raydual.training.run_folder import RunFolder, best_of

CALIBRATION, CALIBRATION_FILE = "calibration", "calibration.json"
"""The folder beside a model that says what `raydual calibrate` found, and its file."""


@dataclass(frozen=True)
class Subject:
    """A run or a checkpoint, found but not loaded.

    path: absolute, or a URI. is_run: whether it holds one checkpoint a task. config: what the
    coordinate model was trained with. epochs: after which epoch each task's model was saved, where
    that is known. categories: what it was trained to count; empty where that is not known. digest:
    changes with the weights and the thresholds. weights: see `weights_digest`. thresholds,
    per_look: see `Counter`. stale: whether others were calibrated, for other weights.
    """

    path: str
    is_run: bool
    config: Config
    epochs: dict[str, int | None]
    categories: tuple[str, ...]
    digest: str
    weights: str
    thresholds: Thresholds
    per_look: PerLook | None
    stale: bool

    @classmethod
    def at(cls, path: str | Path, per_look: PerLook | None = None) -> Subject:
        """Find what lies at a local path or URI, to be counted with `per_look` marks a look.

        Raises:
            CheckpointError: neither a run with both best checkpoints nor a checkpoint, or an
                incomplete one.
            ConfigError: as `Counter`.
        """
        folder = RunFolder.at(path)
        is_run = folder.read(MANIFEST) is None
        below = {t.name: f"{best_of(t.name)}/" if is_run else "" for t in TASKS}
        manifests = {task: _manifest(folder, part) for task, part in below.items()}
        weights = weights_digest(
            *(folder.read(part + HEADS_FILE) or b"" for part in below.values())
        )
        digest = hashlib.blake2b(weights.encode(), digest_size=16)
        for part in below.values():
            digest.update(folder.read(part + MANIFEST) or b"")
        config = build(saved_config(manifests[COORD.name], folder.path))
        most = marks_a_look(per_look, config)
        stored = stored_thresholds(manifests[DONE.name], weights, most)
        tried = key_of(most) in manifests[DONE.name] or (
            is_run and folder.read(f"{CALIBRATION}/{CALIBRATION_FILE}") is not None
        )
        return cls(
            folder.path,
            is_run,
            config,
            {task: manifest.get("epoch") for task, manifest in manifests.items()},
            tuple(manifests[COORD.name].get("categories", ())),
            digest.hexdigest(),
            weights,
            stored or USUAL,
            per_look,
            stale=tried and stored is None,
        )

    def beside(self, name: str) -> str:
        """Return the folder for results: in a run; beside a checkpoint, which training replaces."""
        if self.is_run:
            return join(self.path, name)
        address, mark, options = self.path.partition("?")
        return f"{address}-{name}{mark}{options}"

    def note(self) -> str | None:
        """Return what there is to say of the thresholds, if anything."""
        if self.stale:
            return (
                "note: thresholds were calibrated for other weights of one of the tasks, or for "
                "another --per-look, so the usual ones are used; run `raydual calibrate` for these"
            )
        if self.thresholds == USUAL:
            return None
        cells = f", a cell is marked above {self.thresholds.cell:.4g}" if self.most > 1 else ""
        return f"note: done ends a count above {self.thresholds.done:.4g}{cells}, as calibrated"

    @property
    def most(self) -> int:
        """How many objects a look marks at the most."""
        return marks_a_look(self.per_look, self.config)

    def load(self, device: str | torch.device) -> Counter:
        """Load the models, with this subject's thresholds.

        Raises:
            CheckpointError: as `Counter.from_run` and `Counter.from_pretrained`.
        """
        if self.is_run:
            counter = Counter.from_run(self.path, device, self.per_look)
        else:
            with RunFolder.at(self.path).checkpoint("") as folder:
                counter = Counter.from_pretrained(folder, device, self.per_look)
        found = self.thresholds
        return replace(counter, threshold=found.done, cell_threshold=found.cell)

    def store(self, thresholds: Thresholds) -> None:
        """Write thresholds into the manifest of the done task's checkpoint.

        Raises:
            ConfigError: it cannot be written.
        """
        folder = RunFolder.at(self.path)
        name = f"{best_of(DONE.name)}/{MANIFEST}" if self.is_run else MANIFEST
        manifest = json.loads(folder.read(name) or b"{}")
        manifest = with_thresholds(manifest, self.weights, self.most, thresholds)
        folder.write(name, json.dumps(manifest, indent=1).encode())


def _manifest(folder: RunFolder, part: str) -> dict[str, Any]:
    """Read the manifest of a checkpoint; one in a bucket is checked when it has been fetched."""
    content = folder.read(part + MANIFEST)
    if content is None:
        raise CheckpointError(
            f"{folder.path} is neither a run nor a checkpoint: it has no {part}{MANIFEST}"
        )
    if (local := folder.local()) is not None:
        return read_manifest(local / part)
    manifest: dict[str, Any] = json.loads(content)
    return manifest
