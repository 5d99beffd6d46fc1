"""The page of a run or a search, served on this machine and kept up to date.

The server looks at the folder whenever a page asks, and gathers anew what has changed. It answers
only on the loopback address, and only requests that were addressed to it by such a name: a page of
another site cannot read it by pointing its own name here.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow.fs as pafs
from aiohttp import web

from raydual.data.storage import open_filesystem
from raydual.errors import ConfigError, RaydualError
from raydual.report.page import gather, open_folder, render, to_json

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
WATCHED = (".json", ".jsonl", ".yaml", ".png")
STALE_S = 15.0
"""A trial can be lost, and a driver go silent, without a file that changes."""
REST = 2.0
"""Gathering a large search takes a second or so, from the trials beside it: after one it rests for
so many times as long."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LiveFolder:
    """What the page of a folder shows, gathered when something in the folder has changed."""

    def __init__(self, path: str) -> None:
        self._folder = open_folder(path)
        self._seen: Any = None
        self._gathered, self._rest = -STALE_S, 0.0
        self._lock = asyncio.Lock()
        self.data: dict[str, Any] = {}
        self.tag = ""

    async def refresh(self) -> None:
        """Bring `data` and `tag`, its ETag, up to date.

        Raises:
            RaydualError: the folder is gone, or its files are damaged.
        """
        async with self._lock:  # two pages that ask at once are answered from one gathering
            await asyncio.to_thread(self._refresh)

    def _refresh(self) -> None:
        started = time.monotonic()
        age = started - self._gathered
        if age < self._rest:
            return
        files = self._files()
        if files == self._seen and age < STALE_S:
            return
        self.data = gather(self._folder)
        self._seen, self._gathered = files, time.monotonic()
        if self.tag:  # the first one loads libraries too, and is no measure
            self._rest = REST * (self._gathered - started)
        self.tag = f'"{hashlib.blake2b(to_json(self.data).encode(), digest_size=12).hexdigest()}"'

    def _files(self) -> list[tuple[str, Any, int]]:
        """Return name, time and size of what the page is made of."""
        filesystem, root = open_filesystem(self._folder.path)
        try:
            found = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
        except OSError as error:
            if not self._folder.exists():
                raise ConfigError(f"{self._folder.path} is gone") from error
            return []  # a checkpoint was replaced while it was listed: gather to be sure
        return [(f.path, f.mtime_ns, f.size) for f in found if f.path.endswith(WATCHED)]


def make_app(path: str) -> web.Application:
    """Return the server of a folder: the page at /, its data at /data.json.

    Raises:
        ConfigError: there is no run and no search in the folder.
    """
    live = LiveFolder(path)

    async def page(request: web.Request) -> web.Response:
        await live.refresh()
        return web.Response(text=render(live.data, live.tag), content_type="text/html")

    async def data(request: web.Request) -> web.Response:
        await live.refresh()
        headers = {"ETag": live.tag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == live.tag:
            return web.Response(status=304, headers=headers)
        text = to_json(live.data)
        return web.Response(text=text, content_type="application/json", headers=headers)

    app = web.Application(middlewares=[_guard])
    app.add_routes([web.get("/", page), web.get("/data.json", data)])
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what is addressed to another name, and say in one line what went wrong."""
    if request.headers.get("Host", "").partition(":")[0].lower() not in NAMES:
        return web.Response(status=403, text=f"raydual answers to {' and '.join(NAMES)} only")
    try:
        response = await handler(request)
    except RaydualError as error:
        return web.Response(status=503, text=str(error))
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def bind(port: int) -> socket.socket:
    """Take a port of the loopback address; 0 takes a free one.

    Raises:
        ConfigError: it is in use, or may not be taken.
    """
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((ADDRESS, port))
    except OSError as error:
        taken.close()
        raise ConfigError(
            f"cannot serve on port {port}: {error.strerror}; give another with --port, "
            "or --port 0 for any free one"
        ) from None
    return taken


def serve(path: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the page of a folder until Ctrl-C; `say` is told the address once it answers.

    Raises:
        ConfigError: as `make_app` and `bind`.
    """
    app, taken = make_app(path), bind(port)
    url = f"http://{ADDRESS}:{taken.getsockname()[1]}/"
    web.run_app(app, sock=taken, access_log=None, print=lambda _: say(url))
