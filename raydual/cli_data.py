"""`raydual data`: make, import, check and look at datasets."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from raydual.data.formats.synthetic import SynthConfig
    from raydual.data.manifest import Manifest

data_app = typer.Typer(
    help="Make, import, check and look at datasets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="A dataset: a folder, s3:// or gs://.")
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="A new folder, s3:// or gs://.")]


@data_app.command()
def synth(
    out: Out,
    images: Annotated[int, typer.Option(help="How many images, over all splits.")] = 2400,
    seed: Annotated[int, typer.Option(help="Another seed draws other images.")] = 0,
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 192,
    min_objects: Annotated[
        int, typer.Option(help="Fewest objects in an image; 0 adds images without any.")
    ] = 1,
    max_objects: Annotated[
        int, typer.Option(help="Most objects in an image. They become smaller if need be.")
    ] = 8,
    min_size: Annotated[
        float, typer.Option(help="Smallest object, its diameter in sides of the image.")
    ] = 0.08,
    max_size: Annotated[
        float, typer.Option(help="Largest object, its diameter in sides of the image.")
    ] = 0.2,
    overlap: Annotated[
        float, typer.Option(help="How far objects may cover each other; 0: they do not touch.")
    ] = 0.0,
    background: Annotated[
        str, typer.Option(help="plain, gradient or texture, the hardest.")
    ] = "texture",
    distractors: Annotated[
        int, typer.Option(help="Most shapes of other categories in an image, not to be counted.")
    ] = 0,
    categories: Annotated[
        str, typer.Option(help="Shapes to draw: circle, square, triangle, star, cross.")
    ] = "circle,square,triangle,star",
    splits: Annotated[str, typer.Option(help="Fractions of train, val and test.")] = "0.8,0.1,0.1",
    png: Annotated[
        bool, typer.Option("--png", help="Write PNG files and points.csv instead of Parquet.")
    ] = False,
) -> None:
    """Draw a dataset from a seed: shapes of one named category in each image."""
    from raydual.data.formats.splits import parse_fractions

    values = {key: value for key, value in locals().items() if key in _synth_fields()}
    values["categories"] = tuple(name.strip() for name in categories.split(","))
    values["splits"] = parse_fractions(splits)
    config = _synth_config(values)
    if png:
        _write_pictures(config, out)
        return
    from raydual.data.formats.synthetic import rows
    from raydual.data.schema import write_dataset

    source = f"synthetic, seed {seed}"
    _summary(out, write_dataset(_progress("Drawing", images)(rows(config)), out, source=source))


@data_app.command("import")
def import_(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="fsc147, coco, voc or csv.")],
    src: Annotated[
        str, typer.Argument(metavar="SRC", help="The folder to import, or the COCO or CSV file.")
    ],
    out: Out,
    category: Annotated[
        str | None, typer.Option(help="Keep this category only; images without it count zero.")
    ] = None,
    min_objects: Annotated[
        int | None, typer.Option(help="Leave out images with fewer objects.")
    ] = None,
    max_objects: Annotated[
        int | None, typer.Option(help="Leave out images with more objects.")
    ] = None,
    resplit: Annotated[
        str | None,
        typer.Option(
            help="Split anew into train, val and test, for example 0.8,0.1,0.1. "
            "Tiles of one photo stay together."
        ),
    ] = None,
) -> None:
    """Import images with points or boxes.

    fsc147: annotation_FSC147_384.json, Train_Test_Val_FSC_147.json, ImageClasses_FSC147.txt and
    images_384_VarV2/ in one folder.

    coco: annotations.json with images beside it or in images/; or Roboflow's train/, valid/ and
    test/ with _annotations.coco.json in each.

    voc: Annotations/*.xml, JPEGImages/ and, for splits, ImageSets/Main/{train,val,test}.txt.

    csv: points.csv with the columns image,x,y and optionally category,split; x and y empty for
    an image without objects.
    """
    from raydual.data.formats.importing import Selection, import_dataset
    from raydual.data.formats.splits import parse_fractions

    fractions = parse_fractions(resplit) if resplit else None
    selection = Selection(category, min_objects, max_objects, fractions)
    imported = import_dataset(format_name, src, out, selection, _progress("Importing"))
    _summary(out, imported.manifest, imported.left_out, imported.notes)


@data_app.command()
def check(dataset: Dataset) -> None:
    """Look for what would break a training. Exit code 1 if there is anything."""
    from rich.console import Console

    from raydual.data.check import check as run_check
    from raydual.data.check import show
    from raydual.data.manifest import read_manifest

    total = sum(info.images for info in read_manifest(dataset).splits.values())
    report = run_check(dataset, _progress("Checking", total))
    show(report, Console())
    if report.breaks_training:
        typer.echo("These errors would break a training.")
        raise typer.Exit(1)
    typer.echo("Fit for training.")


@data_app.command()
def preview(
    dataset: Dataset,
    out_png: Annotated[str, typer.Argument(metavar="OUT.png", help="The PNG file to write.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    images: Annotated[int, typer.Option(help="How many, taken evenly over the split.")] = 16,
    order: Annotated[
        str, typer.Option(help="reading_order, left_to_right or nearest_neighbor.")
    ] = "reading_order",
) -> None:
    """Write a contact sheet: images with their points, numbered in the order of counting."""
    from raydual.data.preview import preview as write_preview

    shown = write_preview(dataset, out_png, n=images, split=split, order=order)
    typer.echo(f"{out_png}: {shown} images of {split} in {order}")


def _synth_fields() -> set[str]:
    from raydual.data.formats.synthetic import SynthConfig

    return set(SynthConfig.model_fields)


def _synth_config(values: dict[str, Any]) -> "SynthConfig":
    from pydantic import ValidationError

    from raydual.data.formats.synthetic import SynthConfig
    from raydual.errors import DataError

    try:
        return SynthConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise DataError(f"cannot draw that: {message}") from error
        option = str(first["loc"][0]).replace("_", "-")
        raise DataError(f"--{option} is {first['input']!r}: {message}") from error


def _write_pictures(config: "SynthConfig", out: str) -> None:
    """Write OUT/images/*.png and OUT/points.csv, which `raydual data import csv` reads."""
    import csv

    from raydual.data.formats.points_csv import COLUMNS
    from raydual.data.formats.synthetic import draw, name_of, splits_of
    from raydual.data.storage import appears_whole, refuse_occupied

    if "://" in out:
        from raydual.errors import DataError

        raise DataError(f"--png writes to a local folder, got {out}; leave --png out")
    refuse_occupied(out)
    with appears_whole(out) as (_, folder):
        (Path(folder) / "images").mkdir()
        with (Path(folder) / "points.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            splits = enumerate(splits_of(config))
            for index, split in _progress("Drawing", config.images)(splits):
                drawing = draw(config, index)
                name = f"images/{name_of(config, index)}.png"
                drawing.image.save(Path(folder) / name)
                for x, y in drawing.points.tolist() or [("", "")]:
                    table.writerow([name, x, y, drawing.category, split])
    typer.echo(f"{out}: {config.images} PNG files and points.csv")


def _progress(what: str, total: int | None = None) -> Callable[[Iterable], Iterator]:
    """A bar on the terminal while something is iterated; it goes away at the end."""

    def show(items: Iterable) -> Iterator:
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        quiet = not console.is_terminal
        yield from track(items, what, total, console=console, transient=True, disable=quiet)

    return show


def _summary(
    out: str,
    manifest: "Manifest",
    left_out: dict[str, list[str]] | None = None,
    notes: Iterable[str] = (),
) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    splits = Table("split", "images", "objects", title=escape(out))
    for split, info in manifest.splits.items():
        splits.add_row(split, f"{info.images:,}", f"{info.objects:,}")
    totals = [
        sum(getattr(i, key) for i in manifest.splits.values()) for key in ("images", "objects")
    ]
    splits.add_section()
    splits.add_row("all", *(f"{total:,}" for total in totals))
    console.print(splits)
    if left_out:
        table = Table("left out", "times", "which")
        for reason, names in left_out.items():
            different = list(dict.fromkeys(names))
            which = ", ".join(different[:3]) + (", ..." if len(different) > 3 else "")
            table.add_row(reason, f"{len(names):,}", escape(which))
        console.print(table)
    categories = ", ".join(manifest.categories[:12])
    more = len(manifest.categories) - 12
    console.print(f"Categories: {escape(categories)}" + (f" and {more} more" if more > 0 else ""))
    for note in notes:
        console.print(f"Note: {escape(note)}")
