"""One trial as Ray Tune sees it: a step is an epoch."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import ray.tune
import torch

from raydual.config import build, with_values
from raydual.config_tree import Config
from raydual.data.features import FOLDER
from raydual.data.loading import load_here
from raydual.data.storage import join
from raydual.errors import RaydualError
from raydual.tasks import TASKS
from raydual.training.events import EpochResult
from raydual.training.run import run_training
from raydual.training.run_folder import CHECKPOINTS, METRICS_FILE, RunFolder
from raydual.training.trainer import epochs_on_ray
from raydual.tuning.replay import costs


class TrialRunner(ray.tune.Trainable):
    """Trains one configuration, in this process or, with several workers, in a `TorchTrainer`.

    A trial's folder is all its memory: whatever process it starts in, it goes on from
    `latest_checkpoint`.
    """

    def setup(self, config: dict[str, Any], base: dict[str, Any], trials: str, group: str) -> None:
        """Take in what all trials share: the configuration, their folder, the search's name."""
        self._base, self._trials, self._group = build(base), trials, group
        self._epochs: Generator[EpochResult, None, None] | None = None
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """Train one epoch; return what the search is told of it."""
        if self._epochs is None:
            self._epochs = self._train()
        try:
            result = next(self._epochs, None)
        except RaydualError as error:
            self._end()
            return {"done": True, "failed": str(error)}
        history = self._folder.history()
        if not history:
            return {"done": True, "failed": "nothing was trained"}
        last = history[-1]
        told = {name: last[name] for t in TASKS for name in (t.monitor, t.best) if name in last}
        cost = costs(history, self._config.scale.max_workers)[-1]
        ended = result is None or result.ended or result.epoch >= self._config.train.epochs
        if ended:
            self._end()
        return told | {"epoch": last["epoch"], "cost": cost, "ended": ended, "done": ended}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go over to another trial, or to other learning rates of this one."""
        self._end()
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copy the trial's checkpoints and history, for another trial to go on from."""
        target = Path(checkpoint_dir)
        for name in CHECKPOINTS:
            if self._folder.has_checkpoint(name):
                with self._folder.checkpoint(name) as path:
                    shutil.copytree(path, target / name)
        (target / METRICS_FILE).write_bytes(self._folder.read(METRICS_FILE) or b"")

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on from what `save_checkpoint` wrote, here or in another trial."""
        self._end()
        source = Path(checkpoint)
        for name in CHECKPOINTS:
            if (source / name).is_dir():
                self._folder.publish(
                    name, partial(shutil.copytree, source / name, dirs_exist_ok=True)
                )
        self._folder.write(METRICS_FILE, (source / METRICS_FILE).read_bytes())

    def cleanup(self) -> None:
        """End the training, and its workers if it has any."""
        self._end()

    def _begin(self, values: dict[str, Any]) -> None:
        values = dict(values)
        own = {"run.name": values.pop("trial"), "run.storage": self._trials}
        if self._base.data.features is None:  # where other runs, and trials, look for them
            own["data.features"] = join(self._base.run.storage, FOLDER)
        self._config: Config = with_values(self._base, values | own)
        self._folder = RunFolder(self._trials, str(self._config.run.name))

    def _train(self) -> Generator[EpochResult, None, None]:
        scale = self._config.scale
        if scale.max_workers > 1:
            return epochs_on_ray(self._config, _ignore, self._group)
        # Ray leaves the number unset, and each of several trials would take every core
        torch.set_num_threads(max(1, int(scale.cpus_per_worker)))
        device = torch.device("cuda" if scale.use_gpu else "cpu")
        return run_training(self._config, load_here, device, _ignore, group=self._group)

    def _end(self) -> None:
        if self._epochs is not None:
            self._epochs.close()
            self._epochs = None


def _ignore(event: object) -> None:
    """Drop what a run would print; the search shows its trials in one table."""
