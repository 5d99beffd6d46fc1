"""`raydual train`: name the run, train, and say how to go on with what a signal has ended."""

from __future__ import annotations

import datetime
import signal

import typer

from raydual.config import with_values
from raydual.config_tree import Config
from raydual.training.interruption import EndedBySignalError
from raydual.training.launch import launch, resume_command
from raydual.training.run_folder import LATEST, RunFolder
from raydual.training.trackers import ConsoleTracker


def start_training(config: Config) -> Config:
    """Train to the end, shown on the console; a run without a name is named after the time.

    Returns the configuration with the name.

    Raises:
        RaydualError: as `launch`.
        Exit: a signal has ended it, after a checkpoint.
    """
    if config.run.name is None:
        config = with_values(config, {"run.name": f"{datetime.datetime.now():%Y%m%d-%H%M%S}"})
    try:
        with ConsoleTracker(config) as console:
            launch(config, console)
    except EndedBySignalError as ended:
        run = RunFolder(config.run.storage, str(config.run.name))
        if run.has_checkpoint(LATEST):
            typer.echo(f"{ended}. Go on with: {resume_command(config, run.path)}")
        else:
            number = signal.Signals(ended.number).name
            typer.echo(f"Ended by {number} before the first iteration. Run the same command again")
        raise typer.Exit(128 + ended.number) from None
    return config
