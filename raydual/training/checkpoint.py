"""Save and load everything that a run can be resumed from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raydual.errors import CheckpointError
from raydual.model.counter import DualTaskCounter
from raydual.training.events import EpochResult
from raydual.training.loop import TrainState
from raydual.training.parallel import ParallelCounter
from raydual.training.run_folder import LATEST, RunFolder, best_of

STATE_FILE = "training_state.pt"


@dataclass(frozen=True)
class Snapshot:
    """A model and the state of its training, whole on rank 0, to be saved there."""

    counter: DualTaskCounter
    weights: dict[str, Tensor]
    state: dict[str, Any]

    @classmethod
    def of(cls, model: ParallelCounter, state: TrainState) -> Snapshot:
        """Gather what is sharded; a collective. What is not is referred to, not copied."""
        return cls(model.counter, model.weights(), _state_dict(state))

    def write_model(self, path: Path, about: dict[str, Any]) -> None:
        """Write a checkpoint for predictions."""
        self.counter.save_weights(path, self.weights)
        self.counter.save_manifest(path, **about)

    def write_all(self, path: Path, about: dict[str, Any]) -> None:
        """Write a checkpoint to go on from."""
        self.counter.save_weights(path, self.weights)
        with (path / STATE_FILE).open("wb") as file:  # so that torch passes on what a disk says
            torch.save(self.state, file)
        self.counter.save_manifest(path, **about)


def save(folder: RunFolder, snapshot: Snapshot, result: EpochResult) -> None:
    """Save the bests that this epoch gave, then `latest_checkpoint` with the training's state.

    Latest comes last: a crash before it repeats the epoch, and saves the same bests again.
    """
    about = {"epoch": result.epoch, "metrics": result.metrics}
    for task in result.improved:
        folder.publish(best_of(task), partial(snapshot.write_model, about=about))
    save_latest(folder, snapshot, about)


def save_latest(folder: RunFolder, snapshot: Snapshot, about: dict[str, Any]) -> None:
    """Save `latest_checkpoint`: the model, the training's state, and what its manifest says."""
    folder.publish(LATEST, partial(snapshot.write_all, about=about))


def load_state(path: Path, state: TrainState) -> None:
    """Restore optimizers, schedules, stoppers and the epoch from a `latest_checkpoint`.

    Raises:
        CheckpointError: the folder holds no training state, a damaged one, or one of another
            model or strategy.
    """
    saved = _read(path / STATE_FILE)
    try:
        _check_types(saved)
        for name, optimizer in state.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
            _check_moments(optimizer.optimizer)
        for name, stopper in state.stoppers.items():
            stopper.load_state_dict(saved["stoppers"][name])
        state.epoch = saved["epoch"]
        state.best_count_mae = saved.get("best_count_mae", state.best_count_mae)
        state.parts = saved.get("parts", [])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / STATE_FILE} is of another training: {error}") from None


def _check_types(saved: Any) -> None:
    """Find what could not be gone on with; optimizers see to their own.

    Raises:
        TypeError, KeyError: what is wrong.
    """
    epoch, parts = saved["epoch"], saved.get("parts", [])
    if not isinstance(epoch, int) or epoch < 0:
        raise TypeError(f"its epoch is {epoch!r}")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise TypeError("its parts are no list of mappings")
    counted = [saved.get("best_count_mae", 0.0)]
    for value in (*counted, *(v for s in saved["stoppers"].values() for v in s.values())):
        if not isinstance(value, int | float):
            raise TypeError(f"a figure is {value!r}")


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Find moments that are not of their parameter's shape, which torch does not look at.

    Raises:
        ValueError: there are any.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.dim() and value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
                raise ValueError(f"{name} is {shapes}")


def _state_dict(state: TrainState) -> dict[str, Any]:
    return {
        "epoch": state.epoch,
        "best_count_mae": state.best_count_mae,
        "parts": state.parts,
        "optimizers": {name: o.state_dict() for name, o in state.optimizers.items()},
        "stoppers": {name: s.state_dict() for name, s in state.stoppers.items()},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it refuses anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} cannot be resumed: it has no {path.name}; latest_checkpoint has"
        ) from None
    except Exception as error:  # torch.load raises whatever the bytes make it raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be read: {reason}") from None
