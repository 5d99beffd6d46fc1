"""`raydual count`, `evaluate` and `calibrate`: count images, measure how well, and set the end."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raydual.errors import ConfigError, printable

if TYPE_CHECKING:
    from raydual.counting.summary import Figures


Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE|FOLDER|GLOB...",
        help="Files, folders, 'quoted/**/*.jpg': JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, JPEG 2000, "
        "AVIF or ICO.",
    ),
]
MODEL = "A run, each task from its best checkpoint; or one checkpoint folder."
Model = Annotated[str, typer.Argument(metavar="RUN_OR_DIR", help=MODEL)]
Data = Annotated[str, typer.Option(help="A dataset: a folder, s3:// or gs://.")]
MaxObjects = Annotated[int, typer.Option(min=1, help="End a count that would not end by itself.")]
RepeatRadius = Annotated[
    float,
    typer.Option(min=0, help="A point this near to a mark is not counted; pixels of 384."),
]
PerLook = Annotated[
    str | None,
    typer.Option(
        metavar="N|all",
        help="The most objects that one look marks; `all` marks every one that is probable enough. "
        "Default: `all` for a model trained with coord.match=all, else 1.",
    ),
]


def count(
    images: Images,
    checkpoint: Annotated[str, typer.Option(metavar="RUN_OR_DIR", help=MODEL)],
    category: Annotated[
        str | None,
        typer.Option(help="What to count, as in training; needed where that was more than one."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, not a table.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures with numbered points; `counted` if not given, and none "
            "with --json or --csv."
        ),
    ] = None,
    gif: Annotated[
        bool, typer.Option("--gif", help="Beside each picture, an animation of the counting.")
    ] = False,
    per_look: PerLook = None,
    max_objects: MaxObjects = 500,
    repeat_radius: RepeatRadius = 3.0,
) -> None:
    """Count the objects in images: look, mark what is there, look again, until done.

    Points are in pixels of the image as displayed, turned as its EXIF orientation says. A count
    that did not end by itself says so: stopped at `max_objects`, because every likely place has a
    mark already (`repeat`), or because no place is likely enough (`unsure`).

    Exit code 1 if an image could not be read.

    Examples:

    - `raydual count photo.jpg --checkpoint runs/cells --gif`

    - `raydual count photos/ --checkpoint runs/fruit --category pear --csv > counts.csv`

    - `raydual count photo.jpg --checkpoint runs/cells --per-look 1` counts one by one
    """
    form = _form(as_json, as_csv)
    if out is None and (gif or form == "table"):
        out = Path("counted")
    from raydual.counting.command import CountOptions, count_files
    from raydual.counting.looks import parse

    looks = parse(per_look)
    options = CountOptions(category, looks, max_objects, repeat_radius, out, gif, form)
    if not count_files(images, checkpoint, options):
        raise typer.Exit(1)


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[
        str | None,
        typer.Option(help="Where the results go. [default: RUN/evaluation or DIR-evaluation]"),
    ] = None,
    per_look: PerLook = None,
    max_objects: MaxObjects = 500,
    repeat_radius: RepeatRadius = 3.0,
) -> None:
    """Count a split of a dataset and measure how well.

    Writes evaluation.json, predictions.parquet (a row an image) and report.html. Started again
    after an interruption, the same command goes on where it was. Every image is counted, also those
    that data.min_objects or data.max_objects kept from training; only where data.category limited
    training to one category are others left out.

    RAY_ADDRESS names the cluster to count on; without it Ray is started on this machine.

    Exit code 1 if an image could not be read, 130 after Ctrl-C.
    """
    from raydual.counting.evaluate import evaluate as run
    from raydual.counting.evaluation import REPORT_FILE, Evaluation
    from raydual.counting.looks import parse
    from raydual.counting.subject import Subject
    from raydual.data.storage import absolute
    from raydual.training.trackers import ConsoleTracker

    subject = Subject.at(model, parse(per_look))
    _note(subject.note())
    folder = absolute(out) if out else subject.beside("evaluation")
    evaluation = Evaluation(subject, absolute(data), split, folder, max_objects, repeat_radius)
    with _kept(), ConsoleTracker(subject.config) as console:
        evaluated = run(evaluation, console)
    unknown = {p.category for p in evaluated.predictions} - set(subject.categories)
    if unknown and subject.categories:
        _note(printable(f"note: not trained on: {', '.join(sorted(unknown))}"))
    _show(evaluated.figures)
    unreadable = [p for p in evaluated.predictions if p.error is not None]
    for prediction in unreadable:
        typer.echo(printable(f"{prediction.id}: skipped, {prediction.error}"))
    typer.echo(f"Figures, predictions and {REPORT_FILE} are in {folder}")
    if unreadable:
        raise typer.Exit(1)


def calibrate(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option(help="One not trained on: val, or test.")] = "val",
    per_look: PerLook = None,
    repeat_radius: RepeatRadius = 3.0,
) -> None:
    """Find how sure the model has to be for counts to come out best.

    A count ends where the probability of being done is above a threshold, 0.5 at first. Where a
    look marks many objects, it marks the cells above another threshold, 0.3 at first. Those
    with the lowest mean absolute error on the split are stored in the manifest of the done task's
    checkpoint, from which `raydual count` and `raydual evaluate` take them, until training goes on
    to other weights. Measure on another split than this.

    Started again after an interruption, the same command goes on where it was.

    Exit code 1 if an image could not be read, 130 after Ctrl-C.
    """
    from raydual.counting.evaluate import calibrate as run
    from raydual.counting.evaluation import Evaluation
    from raydual.counting.looks import parse
    from raydual.counting.subject import CALIBRATION, Subject
    from raydual.data.storage import absolute
    from raydual.training.trackers import ConsoleTracker

    subject = Subject.at(model, parse(per_look))
    if split == "train":
        _note("note: of images trained on, a model is surer than of others; take --split val")
    folder = subject.beside(CALIBRATION)
    evaluation = Evaluation(subject, absolute(data), split, folder, repeat_radius=repeat_radius)
    with _kept(), ConsoleTracker(subject.config) as console:
        found, unreadable = run(evaluation, console)
    for prediction in unreadable:
        typer.echo(printable(f"{prediction.id}: skipped, {prediction.error}"))
    typer.echo(found.said(split, subject.most))
    if unreadable:
        raise typer.Exit(1)


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Say after Ctrl-C what there is to do, and end with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        _note("Interrupted; images counted so far are kept: give the same command to go on")
        raise typer.Exit(130) from None


def _form(as_json: bool, as_csv: bool) -> str:
    """Return how results are printed, a key of `FORMS`."""
    if as_json and as_csv:
        raise ConfigError("--json and --csv are both given; choose one")
    return "json" if as_json else "csv" if as_csv else "table"


def _note(text: str | None) -> None:
    if text is not None:
        typer.echo(text, err=True)


def _show(figures: "Figures") -> None:
    """Print the counts' figures beside the constants', MAE with intervals, and others that tell."""
    from rich.console import Console
    from rich.table import Column, Table

    columns = {
        "counted": "count",
        "always mean": "baseline_mean",
        "always median": "baseline_median",
    }
    there = {label: prefix for label, prefix in columns.items() if f"{prefix}/mae" in figures}
    table = Table(Column(f"{figures['count/images']:.0f} images", no_wrap=True), *there)
    table.add_row("mae", *(_mae(figures, prefix) for prefix in there.values()))
    for name in ("rmse", "nae", "bias", "exact", "within_1"):
        table.add_row(name, *(_text(figures[f"{prefix}/{name}"]) for prefix in there.values()))
    table.add_section()
    for name in ("loc/f1@10px", "loc/duplicate_rate@10px", "done/accuracy", "done/auroc"):
        table.add_row(name, _text(figures[name]))
    Console().print(table)


def _mae(figures: "Figures", prefix: str) -> str:
    low, high = (_text(figures[f"{prefix}/mae_{end}"]) for end in ("low", "high"))
    return f"{_text(figures[f'{prefix}/mae'])} [{low}, {high}]"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
