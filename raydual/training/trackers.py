"""Who is told how a training goes: the terminal and Weights & Biases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from raydual.config_tree import Config
from raydual.tasks import TASKS
from raydual.training.events import EpochResult, Event, Note, OnEvent, Step


class ConsoleTracker:
    """Print epochs and notes, with a progress bar under them."""

    def __init__(self, config: Config, console: Console | None = None) -> None:
        self._config = config
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: Any = None

    def __enter__(self) -> ConsoleTracker:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Step):
            self._show_step(event)
        elif isinstance(event, Note):
            self._print(event.text)
        else:
            self._print("\n".join(epoch_lines(event, self._config)))

    def _show_step(self, step: Step) -> None:
        if self._task is None:
            self._task = self._bar.add_task(step.label, total=step.total)
        if step.done == 0:
            self._bar.reset(self._task, total=step.total, description=step.label)
        self._bar.update(self._task, completed=step.done, description=step.label)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


def epoch_lines(result: EpochResult, config: Config) -> list[str]:
    """Return what the console says of an epoch."""
    metrics = result.metrics
    lines = [
        f"Epoch {result.epoch}:",
        f"  Train - {_losses(metrics, 'train')}",
        f"  Val   - {_losses(metrics, 'val')}",
    ]
    if "val/count_mae" in metrics:
        mae, best = metrics["val/count_mae"], metrics["val/count_mae_best"]
        lines.append(f"  Count - mae: {mae:.4f}, best: {best:.4f}")
    lines += [f"  ⚠ skipped corrupt image {row}: {reason}" for row, reason in result.bad_rows]
    for name in result.improved:
        loss = metrics[f"val/loss_{name}"]
        lines.append(f"✅ New best {name.upper()} model! Val loss_{name}: {loss:.4f}")
    for task in TASKS:
        patience = task.settings(config).patience
        stalled = result.stalled[task.name]
        lines.append(f"  {task.name.capitalize()}: no improvement for {stalled}/{patience} epochs")
    if result.ended:
        both = config.train.stop == "all"
        lines.append(f"{'Both tasks' if both else 'A task'} stopped improving - early stop!")
    return lines


def _losses(metrics: dict[str, float], split: str) -> str:
    names = {t.name: f"loss_{t.name}" for t in TASKS}
    for task in TASKS:
        names |= task.extra_logs
    nan = float("nan")
    return ", ".join(f"{s}: {metrics.get(f'{split}/{n}', nan):.4f}" for s, n in names.items())


class WandbTracker:
    """Send metrics and pictures to Weights & Biases; whatever fails there costs one warning.

    group: what the trials of one search have in common.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        folder: Path,
        on_event: OnEvent,
        group: str | None = None,
    ) -> None:
        self._on_event = on_event
        self._run: Any = None
        if config.log.wandb == "disabled":
            return
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            import wandb

            self._wandb = wandb
            self._run = wandb.init(
                project="raydual",
                name=name,
                group=group,
                id=f"{group}-{name}" if group else name,
                resume="allow",
                mode=config.log.wandb,
                dir=folder,
                config=config.model_dump(),
                settings=wandb.Settings(console="off", init_timeout=30),
            )
        except Exception as error:  # a tracker must not end a training, whatever it raises
            self._give_up(error)

    def log(self, result: EpochResult, pictures: Image.Image | None) -> None:
        """Send an epoch."""
        if self._run is None:
            return
        try:
            values: dict[str, Any] = {"epoch": result.epoch, **result.metrics}
            if pictures is not None:
                values["val/samples"] = self._wandb.Image(pictures)
            self._run.log(values, step=result.epoch)
        except Exception as error:  # as above
            self._give_up(error)

    def finish(self) -> None:
        """Close the run."""
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:  # as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._on_event(Note(f"⚠ Weights & Biases is off for this run: {reason}"))
