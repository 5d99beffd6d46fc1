"""`raydual report` and `raydual dashboard`: the page of a run or a search, written or served."""

from pathlib import Path
from typing import Annotated, Any

import typer

Folder = Annotated[
    str, typer.Argument(metavar="FOLDER", help="A run or a search, as runs/NAME; or a trial.")
]


def report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option(help="Another file; report.html in the folder if not given.")
    ] = None,
) -> None:
    """Write the page of a run or a search: one HTML file that needs no network.

    Of a search it shows the Pareto front, what the parameters do to each task, every trial's
    learning curves and configuration; of a run its curves, its sample pictures and what the
    losses say, which is printed too.

    Examples:

    - `raydual report runs/lr_patience` writes runs/lr_patience/report.html

    - `raydual report runs/cells --out cells.html`

    - `raydual report runs/lr_patience/trials/0003` looks at one trial
    """
    from raydual.report.page import gather, open_folder, render
    from raydual.report.words import in_words

    opened = open_folder(folder)
    data = gather(opened)
    content = render(data).encode(errors="replace")
    if out is None:
        opened.write("report.html", content)
    else:
        _write(out, content)
    for line in in_words(data):
        typer.echo(line)
    typer.echo(f"Report: {out or f'{opened.path}/report.html'}")


def dashboard(
    folder: Folder,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of this machine; 0 takes a free one.")
    ] = 8266,
    host: Annotated[
        str, typer.Option(help="Address to answer on; of another than 127.0.0.1 with a token.")
    ] = "127.0.0.1",
) -> None:
    """Serve the page of a run or a search, and keep it up to date while it trains.

    It answers on this machine only, at 127.0.0.1; from another machine, reach it through
    `ssh -L 8266:127.0.0.1:8266 HOST`. With `--host` it answers who opens the URL that is printed,
    which holds a new token; HTTP carries that in the clear. Zoom, sort order and the selected
    trial stay as they are when new epochs come in. Ctrl-C ends it.

    Examples:

    - `raydual dashboard runs/lr_patience`

    - `raydual dashboard runs/cells --port 0` takes any free port and prints it

    - `raydual dashboard runs/cells --host 0.0.0.0` answers on every address, with a token
    """
    from raydual.report.dashboard import serve

    serve(
        folder, port, host, lambda url: typer.echo(f"{folder} is shown at {url} (Ctrl-C ends it)")
    )


def _write(out: Path, content: Any) -> None:
    from raydual.errors import ConfigError

    try:
        out.write_bytes(content)
    except OSError as error:
        raise ConfigError(
            f"cannot write {out}: {error.strerror}; give --out a file in a folder that is there"
        ) from None
