"""How large the page of a large search is, and how long a browser takes to draw it.

    python benchmarks/report_page.py [TRIALS EPOCHS]

Makes up a search of 200 trials of 30 epochs, writes its page and opens it three times, each in a
new Chromium that has come to rest. Needs playwright and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Playwright, sync_playwright

from raydual.report.page import gather, open_folder, render, to_json
from tests.report.searches import drawn_search

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def drawn_after(playwright: Playwright, page: Path) -> float:
    """Return the seconds from the opening of a page to the last of its figures."""
    path = next(filter(None, map(shutil.which, BROWSERS)))
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    time.sleep(2)
    opened.goto(page.as_uri())
    opened.wait_for_function("performance.getEntriesByName('drawn').length > 0")
    drawn = opened.evaluate("performance.getEntriesByName('drawn')[0].startTime") / 1000
    browser.close()
    return drawn


def main() -> None:
    """Print the figures."""
    given = [int(argument) for argument in sys.argv[1:]]
    trials, epochs = given or (200, 30)
    with tempfile.TemporaryDirectory() as scratch:
        folder = drawn_search(Path(scratch) / "s", trials, epochs=epochs)
        started = time.perf_counter()
        data = gather(open_folder(folder.path))
        gathered = time.perf_counter() - started
        page = Path(scratch) / "report.html"
        page.write_text(render(data))
        print(f"{trials} trials of up to {epochs} epochs")
        print(f"gathered in {gathered:.2f} s, {len(to_json(data)) / 1e6:.2f} MB of data")
        print(f"page: {page.stat().st_size / 1e6:.2f} MB")
        with sync_playwright() as playwright:
            for _ in range(3):
                print(f"last figure drawn after {drawn_after(playwright, page):.2f} s")


if __name__ == "__main__":
    main()
