"""A browser, and a server of a folder's page."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raydual.report.dashboard import ADDRESS, bind, make_app

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Yield a headless Chromium; without one the test is left out, except in CI."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        reason = f"needs playwright and one of {', '.join(BROWSERS)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Yield a page that notes in `.requests` what it asks for and in `.errors` what goes wrong."""
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    opened.requests, opened.errors = [], []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("console", lambda m: opened.errors.append(m.text) if m.type == "error" else None)
    yield opened
    opened.close()


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """Return a function that serves a folder's page until the test ends, and says where.

    It takes the folder, and the token where requests have to bring one.
    """
    stops: list[Callable[[], None]] = []

    def start(path: str, token: str | None = None) -> str:
        taken = bind(0)
        loop, ready = asyncio.new_event_loop(), threading.Event()
        thread = threading.Thread(target=_run, args=(loop, make_app(path, token), taken, ready))
        thread.start()
        assert ready.wait(30)
        stops.append(lambda: (loop.call_soon_threadsafe(loop.stop), thread.join()))
        return f"http://{ADDRESS}:{taken.getsockname()[1]}/"

    yield start
    for stop in stops:
        stop()


def _run(loop: asyncio.AbstractEventLoop, app: Any, taken: Any, ready: threading.Event) -> None:
    from aiohttp import web

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.SockSite(runner, taken).start()
        return runner

    asyncio.set_event_loop(loop)
    runner = loop.run_until_complete(start())
    ready.set()
    loop.run_forever()
    loop.run_until_complete(runner.cleanup())
    loop.close()
