"""The pages in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydual.report.page import gather, open_folder, render
from tests.report.searches import (
    SPACE,
    add_trial,
    drawn_search,
    line,
    new_search,
    write_history,
    write_run,
)

HISTORY = [line(i + 1, 1 / (i + 1), 0.6 / (i + 1)) for i in range(5)]
DRAWN = "performance.getEntriesByName('drawn').length > 0"
FIGURES = ["front", "parallel", "curves", "heat", "importance"]
NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt;"


def written(folder: str | Path) -> str:
    """Write the page of a folder; return its address."""
    file = Path(folder) / "report.html"
    file.write_text(render(gather(open_folder(str(folder)))))
    return file.as_uri()


def opened(page: Any, url: str) -> Any:
    page.goto(url)
    page.wait_for_function(DRAWN)
    return page


def column(page: Any, number: int) -> list[str]:
    return page.locator(f"#trials tbody td:nth-child({number})").all_inner_texts()


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """Return a search of eight trials, one of which failed and one of which waits."""
    folder = drawn_search(tmp_path / "s", 6, epochs=8)
    values = {"coord.lr": 1e-3, "done.lr": 1e-3, "coord.patience": 8, "done.patience": 8}
    add_trial(folder, "0006", values, state="failed", reason="loss_coord is not finite")
    add_trial(folder, "0007", values, state="waiting")
    return tmp_path / "s"


def test_a_search_from_a_file(search: Path, page: Any) -> None:
    opened(page, written(search))
    assert column(page, 1) == [f"{i:04d}" for i in range(8)]
    for name in FIGURES:
        assert page.locator(f"#{name} .main-svg").count() > 0, name
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_a_click_in_the_table_shows_the_configuration(search: Path, page: Any) -> None:
    opened(page, written(search))
    page.click("tr[data-trial='0003']")
    assert page.inner_text("#selected-name") == "trial 0003"
    config = (search / "trials/0003/config.yaml").read_text()
    assert page.inner_text("#trial-config").strip() == config.strip()
    page.focus("tr[data-trial='0004']")
    page.keyboard.press("Enter")
    assert page.inner_text("#selected-name") == "trial 0004"
    assert page.locator("tr[aria-selected=true]").get_attribute("data-trial") == "0004"


def test_a_click_on_the_front_shows_the_configuration(search: Path, page: Any) -> None:
    opened(page, written(search))
    page.click("tr[data-trial='0007']")
    page.locator("#front").scroll_into_view_if_needed()
    at = page.evaluate(
        """() => {
        const figure = document.getElementById("front"), layout = figure._fullLayout;
        const trace = figure.data.find((t) => t.name === "Pareto front");
        const box = figure.getBoundingClientRect();
        return {x: box.x + layout.xaxis._offset + layout.xaxis.d2p(trace.x[0]),
                y: box.y + layout.yaxis._offset + layout.yaxis.d2p(trace.y[0]),
                trial: trace.customdata[0][0], epoch: trace.customdata[0][1]};}"""
    )
    page.mouse.move(at["x"], at["y"])
    page.mouse.click(at["x"], at["y"])
    page.wait_for_selector("#outcome")
    assert page.inner_text("#selected-name") == f"trial {at['trial']}"
    assert f"Ends in epoch {at['epoch']} with patience" in page.inner_text("#outcome")


def test_every_column_sorts(search: Path, page: Any) -> None:
    opened(page, written(search))
    for i in range(1, page.locator("#trials th").count() + 1):
        for order in ("ascending", "descending"):
            heading = page.locator(f"#trials th:nth-child({i})")
            heading.locator("button").click()
            if page.locator(f"#trials th:nth-child({i})").get_attribute("aria-sort") != order:
                heading.locator("button").click()  # trial is sorted to begin with
            values = [v for v in column(page, i) if v not in ("–", "")]
            try:
                keys: list[Any] = [float(v.replace(",", "")) for v in values]
            except ValueError:
                keys = values
            assert keys == sorted(keys, reverse=order == "descending"), (i, order)
            assert column(page, i)[len(values) :] == [v for v in column(page, i) if v in ("–", "")]


def test_the_heat_map_of_the_selected_trial(search: Path, page: Any) -> None:
    opened(page, written(search))
    page.click("tr[data-trial='0001']")
    page.check("input[value=one]")
    assert page.inner_text("#heat-note").startswith("Trial 0001.")
    page.click("tr[data-trial='0007']")
    assert "not come to the end" in page.inner_text("#heat")
    page.check("input[value=all]")
    assert page.locator("#heat .main-svg").count() > 0


@pytest.mark.parametrize("trials", [0, 1])
def test_searches_with_next_to_nothing(tmp_path: Path, page: Any, trials: int) -> None:
    folder = new_search(tmp_path / "s", space={"coord.lr": SPACE["coord.lr"]})
    if trials:
        add_trial(folder, "0000", {"coord.lr": 1e-4}, state="running")
    opened(page, written(folder.path))
    assert page.errors == []
    assert "first" in page.inner_text("#front")
    assert "No trial" in page.inner_text("#curves")
    assert "one pair of patiences" in page.inner_text("#heat")
    assert "trials that have ended: 0" in page.inner_text("#importance")


def test_one_trial_whose_losses_are_no_numbers(tmp_path: Path, page: Any) -> None:
    folder = new_search(tmp_path / "s", epochs=2)
    nan = float("nan")
    add_trial(folder, "0000", {"coord.lr": 1e-4, "done.lr": 1e-4}, [line(1, nan, 0.5)], "failed")
    opened(page, written(folder.path))
    assert page.errors == []
    assert column(page, 1) == ["0000"]


def test_whatever_is_shown_is_text(tmp_path: Path, page: Any) -> None:
    space = {"data.category": {"choice": [NASTY, "</script>"]}, "coord.lr": SPACE["coord.lr"]}
    folder = new_search(tmp_path / "s", epochs=2, space=space)
    for i, category in enumerate([NASTY, "</script>"] * 2):
        values = {"data.category": category, "coord.lr": 1e-4 * (i + 1)}
        add_trial(folder, f"{i:04d}", values, [line(1, 0.3, 0.5), line(2, 0.2, 0.4)], reason=NASTY)
    shown = []
    page.on("dialog", lambda dialog: (shown.append(dialog.message), dialog.dismiss()))
    opened(page, written(folder.path))
    assert page.locator("tr[data-trial='0000'] td.reason").inner_text() == NASTY
    assert page.locator("tr[data-trial='0000'] td:nth-child(3)").inner_text() == NASTY
    labels = page.locator("#parallel .annotation").all_text_contents()
    assert f"{NASTY[:7]}…{NASTY[-6:]}" in labels
    assert page.locator("img").count() == 0
    assert (shown, page.errors) == ([], [])


def test_a_run_from_a_file(tmp_path: Path, page: Any) -> None:
    folder = write_run(tmp_path / "r", HISTORY, f"data.category='{NASTY}'")
    opened(page, written(folder))
    for name in ("losses", "plain", "lr", "norms", "cosine"):
        assert page.locator(f"#{name} .main-svg").count() > 0, name
    assert "Healthy" in page.inner_text("#diagnosis")
    assert "no sample pictures" in page.inner_text("#pictures")
    assert NASTY in page.inner_text("#config")
    assert page.errors == []


def test_a_run_without_an_epoch(tmp_path: Path, page: Any) -> None:
    opened(page, written(write_run(tmp_path / "r", [])))
    assert page.inner_text("#losses") == "No epoch has finished yet."
    assert page.errors == []


def test_a_new_epoch_appears_and_the_zoom_stays(
    tmp_path: Path, page: Any, served: Callable[[str], str]
) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    url = served(str(folder))
    opened(page, url)
    page.evaluate("Plotly.relayout('losses', {'xaxis.range': [2, 4]})")
    page.evaluate("window.scrollTo(0, 150); window.notReloaded = true")
    write_history(folder, [*HISTORY, line(6, 0.1, 0.05)])
    page.wait_for_function("document.getElementById('losses').data[0].x.length === 6")
    assert page.inner_text("#facts").startswith("6 of")
    assert page.evaluate("document.getElementById('losses').layout.xaxis.range") == [2, 4]
    assert page.evaluate("[window.scrollY, window.notReloaded]") == [150, True]
    assert all(r.startswith((url, "data:")) for r in page.requests)
    assert page.errors == []


def test_a_search_that_runs_keeps_what_the_reader_chose(
    tmp_path: Path, page: Any, served: Callable[[str], str]
) -> None:
    folder = drawn_search(tmp_path / "s", 4, epochs=5)
    url = served(folder.path)
    opened(page, url)
    page.click("tr[data-trial='0002']")
    page.click("button[data-column='coord.lr']")
    page.evaluate("Plotly.relayout('front', {'xaxis.range': [-2, -1], 'yaxis.range': [-1, 0]})")
    values = {"coord.lr": 1e-3, "done.lr": 1e-3, "coord.patience": 8, "done.patience": 8}
    add_trial(folder, "0004", values, [line(1, 0.2, 0.3)], "running")
    page.wait_for_selector("tr[data-trial='0004']")
    assert page.inner_text("#selected-name") == "trial 0002"
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("coord.lr")
    assert page.evaluate("document.getElementById('front').layout.xaxis.range") == [-2, -1]
    assert "1 running" in page.inner_text("#facts")
    assert all(r.startswith((url, "data:")) for r in page.requests)
    assert page.errors == []
