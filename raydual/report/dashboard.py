"""The page of a run or a search, served on this machine and kept up to date.

The server looks at the folder whenever a page asks, and gathers anew what has changed. It answers
on the loopback address, and only requests that were addressed to it by such a name: a page of
another site cannot read it by pointing its own name here. On any other address it answers only who
brings its token, which a page of another site does not know.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import secrets
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
NAMES = (ADDRESS, "localhost", "[::1]")
COOKIE = "raydual_token"
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


def make_app(path: str, token: str | None = None) -> web.Application:
    """Return the server of a folder: the page at /, its data at /data.json.

    token: what a request has to bring, as `?token=`, which is answered with a cookie, or as
    `Authorization: Bearer`. None: it has to be addressed to a name of this machine instead.

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

    app = web.Application(middlewares=[_own_names if token is None else _token(token), _plainly])
    app.add_routes([web.get("/", page), web.get("/data.json", data)])
    return app


@web.middleware
async def _own_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what is addressed to another name than those of the loopback address."""
    if re.sub(r":\d*$", "", request.headers.get("Host", "").lower()) not in NAMES:
        return web.Response(status=403, text=f"raydual answers to {', '.join(NAMES)} only")
    return await handler(request)


def _token(token: str) -> Any:
    """Return what refuses requests without the token, and hands a cookie to those with it."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = request.query.get("token")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = asked or request.cookies.get(COOKIE) or bearer
        if not hmac.compare_digest(given.encode(errors="replace"), token.encode()):
            return web.Response(status=401, text="the token is missing or wrong: see the terminal")
        if asked is None:
            return await handler(request)
        response = web.Response(status=303, headers={"Location": "/"})  # without it in the URL
        response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        return response

    return guard


@web.middleware
async def _plainly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say in one line what went wrong."""
    try:
        response = await handler(request)
    except RaydualError as error:
        return web.Response(status=503, text=str(error))
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def bind(port: int, host: str = ADDRESS) -> socket.socket:
    """Take a port of an address of this machine; 0 takes a free one.

    Raises:
        ConfigError: it is in use, or may not be taken.
    """
    taken = None
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except (OSError, UnicodeError) as error:
        if taken is not None:
            taken.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot serve on port {port} of {host}: {reason}; give another with --port, "
            "--port 0 for any free one, or an address of this machine with --host"
        ) from None
    return taken


def serve(path: str, port: int, host: str, say: Callable[[str], None]) -> None:
    """Serve the page of a folder until Ctrl-C; `say` is told the URL once it answers.

    Off the loopback address the URL holds a new token.

    Raises:
        ConfigError: as `make_app` and `bind`.
    """
    taken = bind(port, host)
    address = ipaddress.ip_address(taken.getsockname()[0])
    token = None if address.is_loopback else secrets.token_urlsafe()
    name = socket.gethostname() if address.is_unspecified else str(address)
    name = f"[{name}]" if ":" in name else name
    url = f"http://{name}:{taken.getsockname()[1]}/{f'?token={token}' if token else ''}"
    with taken:
        app = make_app(path, token)
        web.run_app(app, sock=taken, access_log=None, print=lambda _: say(url))
