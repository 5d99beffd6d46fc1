"""What the server answers, and to whom."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.searches import add_trial, drawn_search, line, write_history, write_run

HISTORY = [line(i + 1, 1 / (i + 1), 0.6 / (i + 1)) for i in range(5)]
Served = Callable[[str], str]


def ask(url: str, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body; the header names are given with underscores."""
    host = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_new_data_have_a_new_tag(tmp_path: Path, served: Served) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    url = served(str(folder))
    status, headers, body = ask(url, "/data.json")
    assert status == 200
    assert json.loads(body)["epochs"] == [1, 2, 3, 4, 5]
    assert ask(url, "/data.json", If_None_Match=headers["ETag"])[0] == 304
    write_history(folder, [*HISTORY, line(6, 0.1, 0.1)])
    status, newer, body = ask(url, "/data.json", If_None_Match=headers["ETag"])
    assert status == 200
    assert json.loads(body)["epochs"][-1] == 6
    assert newer["ETag"] != headers["ETag"]


def test_a_search_that_grows(tmp_path: Path, served: Served) -> None:
    folder = drawn_search(tmp_path / "s", 3, epochs=4)
    url = served(folder.path)
    assert len(json.loads(ask(url, "/data.json")[2])["trials"]) == 3
    add_trial(folder, "0003", {"coord.lr": 1e-4, "done.lr": 1e-4}, [line(1, 0.2, 0.3)], "running")
    assert json.loads(ask(url, "/data.json")[2])["trials"][3]["state"] == "running"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8266", "127.0.0.1.evil.example"])
def test_other_names_are_refused(tmp_path: Path, served: Served, host: str) -> None:
    url = served(str(write_run(tmp_path / "r", HISTORY)))
    for path in ("/", "/data.json", "/none"):
        status, _, body = ask(url, path, Host=host)
        assert status == 403
        assert "epoch" not in body
    assert ask(url, "/data.json", Host="localhost:1234")[0] == 200


def test_a_folder_that_goes_away_is_said(tmp_path: Path, served: Served) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    url = served(str(folder))
    assert ask(url, "/data.json")[0] == 200
    (folder / "metrics.jsonl").write_text("{")
    status, _, body = ask(url, "/data.json")
    assert status == 503
    assert "is damaged" in body
    shutil.rmtree(folder)
    assert ask(url, "/data.json")[0] == 503


def test_nothing_else_is_served(tmp_path: Path, served: Served) -> None:
    url = served(str(write_run(tmp_path / "r", HISTORY)))
    for path in ("/config.yaml", "/../r/config.yaml", "/%2e%2e/config.yaml"):
        assert ask(url, path)[0] == 404
