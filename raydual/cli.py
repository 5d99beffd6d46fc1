"""The command line: parses, calls, prints; torch and Ray are loaded only where they are needed."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from raydual.cli_bench import bench
from raydual.cli_count import calibrate, count, evaluate
from raydual.cli_data import data_app
from raydual.cli_doctor import doctor
from raydual.cli_report import dashboard, report
from raydual.config import DEFAULT_PRESET, load, presets
from raydual.errors import ConfigError, RaydualError, printable
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
app.command()(report)
app.command()(dashboard)
app.command()(count)
app.command()(evaluate)
app.command()(calibrate)
app.command()(doctor)
app.command()(bench)


def main() -> None:
    """Run the command line; an error the user can act on is one line, and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except RaydualError as error:
        typer.secho(f"error: {printable(str(error))}", fg="red", err=True)
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

    Ctrl-C and SIGTERM end it after an iteration, or about a second of them, with a checkpoint to
    resume from, and exit code 130 or 143; a second Ctrl-C ends it at once.

    Examples:

    - `raydual train` draws a synthetic dataset and trains the tiny preset on it

    - `raydual train --preset photo data.path=datasets/pears run.name=pears` for real photos

    - `raydual train data.path=datasets/cells scale.num_workers=2 run.name=cells`

    - `raydual train --resume runs/cells train.epochs=40`
    """
    if resume:
        from raydual.training.launch import resumed

        settings = resumed(resume, config, overrides or [])
    else:
        settings = load(config, overrides or [], preset)
    if show_config:
        typer.echo(settings.to_yaml(), nl=False)
        return
    from raydual.training.command import start_training

    settings = start_training(settings)
    if settings.train.calibrate:
        from raydual.counting.calibrate_run import calibrate_run

        typer.echo(calibrate_run(settings))


@app.command()
def tune(
    search: Annotated[
        Path | None, typer.Argument(metavar="SEARCH_FILE", help="As tune_configs/lr_patience.yaml.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value]...",
            help="Keys of the search file (num_samples=8) or of the configuration "
            "(train.epochs=20 run.name=first).",
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="SEARCH_FOLDER", help="Go on with this search.")
    ] = None,
) -> None:
    """Search each task's learning rate and patience, or any other key, on Ray Tune.

    The two tasks are never folded into one number: every trial reports the best val/loss_coord,
    the best val/loss_done and its cost, and the search ends in their Pareto front.

    Ends with exit code 1 if no trial came to its end, 130 after Ctrl-C.

    Examples:

    - `raydual tune tune_configs/smoke.yaml` takes a minute

    - `raydual tune tune_configs/lr_patience.yaml data.path=datasets/cells run.name=cells`

    - `raydual tune --resume runs/cells` goes on; `num_samples=32` with it adds trials
    """
    given = overrides or []
    if resume:
        from raydual.tuning.command import resume_search

        complete = resume_search(resume, [*([str(search)] if search else []), *given])
    elif search:
        from raydual.tuning.command import start_search

        complete = start_search(search, given)
    else:
        raise ConfigError(
            "got no search file; give one, as tune_configs/lr_patience.yaml, or --resume FOLDER"
        )
    if not complete:
        raise typer.Exit(1)
