"""The command line: parses, calls, prints; torch and Ray are loaded only where they are needed."""

from __future__ import annotations

import datetime
import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from raydual.cli_count import evaluate
from raydual.cli_data import data_app
from raydual.config import DEFAULT_PRESET, load, presets, with_values
from raydual.config_tree import Config
from raydual.errors import RaydualError
from raydual.version import __version__

app = typer.Typer(
    help="Train vision-language models to count one object at a time: two tasks, one trunk, "
    "two optimizers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(data_app, name="data")
app.command()(evaluate)


def main() -> None:
    """Run the command line; an error the user can act on is one line, and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except RaydualError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(error.exit_code) from None


@app.callback(invoke_without_command=True)
def _about(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="Such as coord.lr=1e-4 train.epochs=20."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file over the preset.")] = None,
    preset: Annotated[
        str, typer.Option(help=f"Where the defaults come from: {', '.join(presets())}.")
    ] = DEFAULT_PRESET,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_FOLDER", help="Go on with this run.")
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the configuration and stop.")
    ] = False,
) -> None:
    """Train the dual-task counter.

    Two optimizers share one trunk; each task keeps its best checkpoint and its patience, and
    training ends when both are used up.

    Every key of the configuration can be given as `key=value`; `--show-config` lists them.

    Examples:

    - `raydual train` draws a synthetic dataset and trains the tiny preset on it

    - `raydual train data.path=datasets/cells scale.num_workers=2 run.name=cells`

    - `raydual train --resume runs/cells train.epochs=40`
    """
    settings = (
        _resumed(resume, config, overrides or [])
        if resume
        else load(config, overrides or [], preset)
    )
    if show_config:
        typer.echo(settings.to_yaml(), nl=False)
        return
    from raydual.training.launch import launch
    from raydual.training.trackers import ConsoleTracker

    with ConsoleTracker(settings) as console:
        launch(_named(settings), console)


@app.command()
def count(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    checkpoint: Annotated[
        Path, typer.Option(help="A checkpoint folder, as runs/NAME/best_coord_checkpoint.")
    ],
    done_checkpoint: Annotated[
        Path | None, typer.Option(help="Another one for the done task, as best_done_checkpoint.")
    ] = None,
    category: Annotated[str, typer.Option(help="What to count, as named in training.")] = "object",
    max_objects: Annotated[
        int, typer.Option(min=1, help="End a count that would not end by itself.")
    ] = 500,
    out: Annotated[Path, typer.Option(help="Folder for the annotated pictures.")] = Path("counted"),
) -> None:
    """Count the objects in images: predict the next one, mark it, look again, until done.

    Prints the count and the points in pixels, and writes each picture with numbered points.
    Exit code 1 if an image could not be read.
    """
    from raydual.counting.command import count_files

    if count_files(images, checkpoint, done_checkpoint, category, max_objects, out):
        raise typer.Exit(1)


def _named(config: Config) -> Config:
    if config.run.name is not None:
        return config
    return with_values(config, {"run.name": f"{datetime.datetime.now():%Y%m%d-%H%M%S}"})


def _resumed(run_folder: str, file: Path | None, overrides: list[str]) -> Config:
    from raydual.training.launch import resumed

    return resumed(run_folder, file, overrides)
