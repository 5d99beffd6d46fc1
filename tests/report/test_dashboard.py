"""What the server answers, and to whom."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from raydual.errors import ConfigError
from raydual.report.dashboard import COOKIE, bind, serve
from tests.report.searches import add_trial, drawn_search, line, write_history, write_run

HISTORY = [line(i + 1, 1 / (i + 1), 0.6 / (i + 1)) for i in range(5)]
Served = Callable[..., str]


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


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8266", "127.0.0.1.evil.example", "", "[::1"]
)
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


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/data.json", {}),
        ("/none", {}),
        ("/data.json?token=", {}),
        ("/data.json?token=secre", {}),
        ("/data.json?token=secret%C3%A9", {}),
        ("/data.json", {"Authorization": "Bearer wrong"}),
        ("/data.json", {"Cookie": f"{COOKIE}=wrong"}),
    ],
)
def test_without_its_token_nothing_is_told(
    tmp_path: Path, served: Served, path: str, headers: dict[str, str]
) -> None:
    url = served(str(write_run(tmp_path / "r", HISTORY)), "secret")
    status, answered, body = ask(url, path, **headers)
    assert status == 401
    assert "epoch" not in body
    assert "secret" not in body + str(answered)


def test_a_token_in_the_url_becomes_a_cookie(tmp_path: Path, served: Served) -> None:
    url = served(str(write_run(tmp_path / "r", HISTORY)), "secret")
    status, headers, _ = ask(url, "/?token=secret", Host="any.example")
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    status, _, body = ask(url, "/", Cookie=cookie.partition(";")[0], Host="any.example")
    assert status == 200
    assert "secret" not in body
    assert ask(url, "/data.json", Authorization="Bearer secret")[0] == 200


@pytest.mark.parametrize(("host", "guarded"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_only_the_loopback_address_is_served_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, guarded: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(web, "run_app", lambda app, sock, access_log, print: print(""))
    for _ in range(2):
        serve(str(write_run(tmp_path / "r", HISTORY)), 0, host, told.append)
    tokens = [parse_qs(urlsplit(url).query).get("token") for url in told]
    if guarded:
        assert all(len(token) == 1 and len(token[0]) >= 32 for token in tokens)
        assert tokens[0] != tokens[1]
    else:
        assert tokens == [None, None]


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 300])
def test_an_address_that_is_not_here_is_said(host: str) -> None:
    with pytest.raises(ConfigError, match="--host"):
        bind(0, host)


def test_a_category_is_shown_as_text(tmp_path: Path, served: Served) -> None:
    nasty = "</script><script>alert(1)</script>"
    folder = write_run(tmp_path / "r", HISTORY, f"data.category='{nasty}'")
    url = served(str(folder.rename(tmp_path / "<b>r")))
    body = ask(url, "/")[2]
    assert nasty not in body
    assert "<script>alert" not in body
    assert "<title>&lt;b&gt;r" in body
    _, headers, data = ask(url, "/data.json")
    assert headers["Content-Type"].startswith("application/json")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert nasty in json.loads(data)["config"]
