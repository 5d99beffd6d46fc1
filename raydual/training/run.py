"""One rank's share of a run: build or resume, fit, and on rank 0 save and track."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from raydual.config_tree import Config
from raydual.data.batches import BatchStream, Source, trained_categories
from raydual.data.loading import load_here
from raydual.errors import CheckpointError, ConfigError
from raydual.model.counter import DualTaskCounter
from raydual.tasks import COORD, SEPARATE, TASKS, objectives
from raydual.training import checkpoint
from raydual.training.early_stopping import EarlyStopping
from raydual.training.events import EpochResult, Note, OnEvent, Step
from raydual.training.hooks import Hooks, Request
from raydual.training.interruption import Interruption
from raydual.training.kept import features_progress, kept_features, make_here
from raydual.training.loop import TrainState, fit
from raydual.training.optim import TaskOptimizer, check_ownership, lr_scale
from raydual.training.parallel import ParallelCounter, arithmetic, barrier
from raydual.training.pictures import answers, panel
from raydual.training.progress import fits
from raydual.training.run_folder import CHECKPOINTS, CONFIG_FILE, LATEST, RunFolder
from raydual.training.trackers import WandbTracker


def run_training(
    config: Config,
    source: Source,
    device: torch.device,
    on_event: OnEvent,
    *,
    rank: int = 0,
    world_size: int = 1,
    group: str | None = None,
    requested: Callable[[], Request] = lambda: Request.NOTHING,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Generator[EpochResult, None, None]:
    """Train `config.run.name` to its end, from `latest_checkpoint` where there is one.

    Called on every rank; yields on every rank after each epoch, when rank 0 has saved it.
    `on_event` hears of rank 0 only. group: the search that this training is a trial of.
    requested, on_stage: see `Hooks`; called on every rank.

    Raises:
        RaydualError: see `fit`, `BatchStream`, `DualTaskCounter.from_config`.
    """
    assert config.run.name is not None
    on_stage("making the model")
    folder = RunFolder(
        config.run.storage, config.run.name, lambda text: on_event(Note(f"⚠ {text}"))
    )
    counter = DualTaskCounter.from_config(config, arithmetic(config, device))
    kept = kept_features(config)
    if kept is not None and rank == 0:
        on_stage("image features")
        make_here(config, kept)
    stream = BatchStream(config, counter.prompter, source, rank, world_size, kept)
    if rank == 0:
        counter.categories = trained_categories(config)
        for name in CHECKPOINTS:
            folder.recover(name)
    barrier()
    model, state = _resume(config, folder, counter, stream, device, on_event)

    def on_pause(parts: list[dict[str, Any]]) -> None:
        state.parts = parts
        snapshot = checkpoint.Snapshot.of(model, state)
        if rank == 0:
            about = {"epoch": state.epoch, "iteration": parts[0]["done"]}
            checkpoint.save_latest(folder, snapshot, about)

    def on_progress(epoch: int, done: int, total: int) -> None:
        if rank == 0:
            on_event(Step(f"Epoch {epoch}", done, total))

    hooks = Hooks(on_progress, on_stage, on_pause, requested)
    if rank == 0 and state.finished(config):
        on_event(Note(f"Nothing is left to train after epoch {state.epoch}"))
    recorder = _Recorder(config, folder, model, stream, on_event, group) if rank == 0 else None
    try:
        for result in fit(model, state, stream, hooks):
            on_stage(f"saving after epoch {result.epoch}")
            picture = None
            with model.uneven():
                if recorder is not None:
                    picture = recorder.picture()
            snapshot = checkpoint.Snapshot.of(model, state)
            if recorder is not None:
                recorder.save(result, snapshot, picture)
            yield result
    finally:
        if recorder is not None:
            recorder.close()


def _resume(
    config: Config,
    folder: RunFolder,
    counter: DualTaskCounter,
    stream: BatchStream,
    device: torch.device,
    on_event: OnEvent,
) -> tuple[ParallelCounter, TrainState]:
    """Start from `latest_checkpoint` where there is one, in the middle of an epoch if it fits."""
    if not folder.has_checkpoint(LATEST):
        return start(config, counter, stream, device)
    tower = counter.tower_weights() if config.data.views else []
    with folder.checkpoint(LATEST) as path:
        counter.load_pretrained(path)
        if not all(map(torch.equal, tower, counter.tower_weights())):
            raise CheckpointError(
                f"the tower of model.trunk={config.model.trunk} is not that of {path}, so its "
                "kept features are of no use here; give the trunk that the run began with"
            )
        model, state = start(config, counter, stream, device)
        checkpoint.load_state(path, state)
    if not fits(state.parts, stream):
        if stream.rank == 0:
            on_event(Note(f"Epoch {state.epoch + 1} begins anew: it had other training images"))
        state.parts = []
    return model, state


def start(
    config: Config, counter: DualTaskCounter, stream: BatchStream, device: torch.device
) -> tuple[ParallelCounter, TrainState]:
    """Return what a training begins with: the model on its device, optimizers and stoppers."""
    model = ParallelCounter(counter, device)
    goals = objectives(config)
    scale = lr_scale(stream.world_size, max(1, config.scale.max_workers))
    optimizers = {
        o.name: TaskOptimizer(counter, o, config, stream.iterations, scale) for o in goals
    }
    check_ownership(counter, goals, optimizers)
    sections = {task.name: task.settings(config) for task in TASKS}
    forgotten = config.train.forgotten
    stoppers = {
        name: EarlyStopping(s.patience, s.min_delta, forgotten) for name, s in sections.items()
    }
    return model, TrainState(optimizers, stoppers)


class _Recorder:
    """What rank 0 does between two epochs: checkpoints, metrics, pictures, trackers."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        model: ParallelCounter,
        stream: BatchStream,
        on_event: OnEvent,
        group: str | None,
    ) -> None:
        self._folder, self._model, self._on_event = folder, model, on_event
        folder.write(CONFIG_FILE, config.to_yaml().encode())
        self._pictured = None
        if config.log.images:
            coord = next(objective for objective in SEPARATE if COORD in objective.tasks)
            self._pictured = stream.first_val_batch(coord, config.log.images)
        self._scratch = tempfile.TemporaryDirectory()
        local = folder.local() or Path(self._scratch.name)
        self._wandb = WandbTracker(config, folder.name, local, on_event, group)

    def picture(self) -> Image.Image | None:
        """Ask the model about the validation pictures, where any are wanted."""
        return None if self._pictured is None else panel(answers(self._model, self._pictured))

    def save(
        self, result: EpochResult, snapshot: checkpoint.Snapshot, picture: Image.Image | None
    ) -> None:
        """Save an epoch; the console hears of it when everything is on disk."""
        # a crash between the two repeats the epoch and its line; no epoch is left without one
        self._folder.record(result.epoch, result.metrics)
        checkpoint.save(self._folder, snapshot, result)
        if picture is not None:
            png = io.BytesIO()
            picture.save(png, "PNG")
            self._folder.write(f"samples/epoch_{result.epoch:04d}.png", png.getvalue())
        self._wandb.log(result, picture)
        self._on_event(result)

    def close(self) -> None:
        """Close the trackers."""
        self._wandb.finish()
        self._scratch.cleanup()


def run_here(config: Config, on_event: OnEvent) -> None:
    """Train in this process, without Ray (`scale.num_workers=0`).

    Raises:
        ConfigError: a GPU is asked for and there is none; else as `run_training`.
        EndedBySignalError: a signal ended it, after a checkpoint.
    """
    if config.scale.use_gpu and not torch.cuda.is_available():
        raise ConfigError("scale.use_gpu=true, but torch finds no GPU here; set it to false")
    device = torch.device("cuda" if config.scale.use_gpu else "cpu")
    on_event(Note(f"Training in this process on {device}, without Ray"))
    with Interruption() as interruption:

        def requested() -> Request:
            return Request.END if interruption() else Request.NOTHING

        if (kept := kept_features(config)) is not None:
            say = features_progress(config, kept, on_event)
            make_here(config, kept, say, interruption)
        if interruption():
            return
        for _ in run_training(config, load_here, device, on_event, requested=requested):
            pass
