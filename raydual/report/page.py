"""One self-contained HTML page: its data, its scripts and plotly are all inside."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from raydual.data.storage import first_line
from raydual.errors import ConfigError
from raydual.report.run_page import run_data
from raydual.report.search_page import search_data
from raydual.training.run_folder import CONFIG_FILE, METRICS_FILE, RunFolder

SCRIPTS = (
    "base.js",
    "figures.js",
    "search_figures.js",
    "parallel.js",
    "search.js",
    "run.js",
    "main.js",
)


def open_folder(path: str) -> RunFolder:
    """Return a run or a search as a folder.

    Raises:
        ConfigError: there is no folder, or it is neither.
    """
    folder = RunFolder.at(path)
    if not folder.exists():
        raise ConfigError(
            f"{path} is no folder, or an empty one; expected that of a run or a search, "
            "as runs/NAME"
        )
    if not _is_search(folder) and not any(map(folder.read, (METRICS_FILE, CONFIG_FILE))):
        from raydual.tuning.files import read_record

        if trial := read_record(folder):
            reason = f" ({trial.reason})" if trial.reason else ""
            raise ConfigError(
                f"{path} is a trial without an epoch so far, {trial.state}{reason}; "
                "its values are on the page of its search"
            )
        raise ConfigError(
            f"{path} is neither a run nor a search: it has no {METRICS_FILE} and no search.yaml; "
            "give a folder that `raydual train` or `raydual tune` has written"
        )
    return folder


def gather(folder: RunFolder) -> dict[str, Any]:
    """Return what the page of a run or a search shows, as it is now.

    Raises:
        ConfigError: the folder's files are damaged.
    """
    if not _is_search(folder):
        return run_data(folder)
    from raydual.tuning.results import summary

    try:
        return search_data(summary(folder.path))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder.path} holds a damaged trial.json or metrics.jsonl ({first_line(error)}); "
            "correct it, or move that trial's folder away"
        ) from error


def render(data: Mapping[str, Any], tag: str | None = None) -> str:
    """Return the page.

    data: of `gather`. tag: the data's ETag, where the page is to ask its server for newer ones.
    """
    title = f"{data['name']} · raydual {data['kind']}"
    parts = {
        "TITLE": html.escape(title),
        "STYLE": _asset("style.css"),
        "DATA": to_script(data),
        "LIVE": json.dumps(tag),
        "PLOTLY": _plotly(),
        "SCRIPT": "\n".join(map(_asset, SCRIPTS)),
    }
    page = _asset("page.html")
    return "".join(parts.get(part, part) for part in page.split("@@"))


def to_script(data: Any) -> str:
    """Return JSON that can stand inside a script element: no text in it can end the element."""
    return to_json(data).replace("<", "\\u003c")


def to_json(data: Any) -> str:
    """Return compact JSON in ASCII."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"))


def _plotly() -> str:
    """Return plotly.js, with its one large function in parentheses where it is as known.

    A browser compiles a function in parentheses at once; without them it reads these 5 MB twice,
    a tenth of the time in which the page opens.
    """
    from plotly.offline import get_plotlyjs

    source = get_plotlyjs().rstrip()
    head, found, body = source.partition("? self : this, () => {")
    if not found or not body.endswith("}));"):
        return source
    return f"{head}? self : this, (() => {{{body[:-1]});"


def _is_search(folder: RunFolder) -> bool:
    from raydual.tuning.results import is_search

    return is_search(folder.path)


def _asset(name: str) -> str:
    return (resources.files("raydual.report") / "assets" / name).read_text(encoding="utf-8")
