"""`raydual report` and `raydual dashboard` on the command line."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from raydual.cli_report import dashboard, report
from raydual.errors import ConfigError
from raydual.report.dashboard import ADDRESS, bind
from raydual.tuning.files import SearchFolder, TrialRecord
from tests.report.searches import drawn_search, line, write_run

HISTORY = [line(i + 1, 1 / (i + 1), 0.6 / (i + 1)) for i in range(5)]


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(report)
    made.command()(dashboard)
    return made


def test_report_of_a_search(app: typer.Typer, tmp_path: Path) -> None:
    drawn_search(tmp_path / "s", 6)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "s")])
    assert done.exit_code == 0, done.output
    assert re.search(r"^Best coord  trial \d{4}: coord 0\.\d+, done 0\.\d+, ", done.output, re.M)
    assert re.search(r"^Best done .*coord\.lr=.* done\.patience=\d$", done.output, re.M)
    assert re.search(r"^Knee ", done.output, re.M)
    assert done.output.splitlines()[-1] == f"Report: {tmp_path}/s/report.html"
    page = (tmp_path / "s/report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "plotly.js v" in page


def test_report_of_a_run_says_the_diagnosis(app: typer.Typer, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    done = CliRunner().invoke(app, ["report", f"{folder}/", "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Healthy: every task learns and none overfits\n- coord learns")
    assert (tmp_path / "r.html").stat().st_size > 1_000_000
    assert not (folder / "report.html").exists()


def test_report_of_a_trial_that_failed_at_once(app: typer.Typer, tmp_path: Path) -> None:
    search = SearchFolder(str(tmp_path / "s"))
    search.save_trial(TrialRecord("0000", {}, "failed", "its loss is not finite"))
    done = CliRunner().invoke(app, ["report", str(tmp_path / "s/trials/0000")])
    assert isinstance(done.exception, ConfigError)
    assert "without an epoch so far, failed (its loss is not finite)" in str(done.exception)


def test_report_into_a_folder_that_is_not_there(app: typer.Typer, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    out = str(tmp_path / "nowhere/r.html")
    done = CliRunner().invoke(app, ["report", str(folder), "--out", out])
    assert isinstance(done.exception, ConfigError)
    assert "give --out a file" in str(done.exception)


def test_a_missing_folder(app: typer.Typer, tmp_path: Path) -> None:
    for command in ("report", "dashboard"):
        done = CliRunner().invoke(app, [command, str(tmp_path / "none")])
        assert isinstance(done.exception, ConfigError)
        assert "none is no folder" in str(done.exception)


def test_a_port_in_use_names_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind((ADDRESS, 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"in use; give another with --port"):
            bind(taken.getsockname()[1])


def test_the_dashboard_says_where_it_is_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", HISTORY)
    code = (
        "import typer; from raydual.cli_report import dashboard; "
        f"app = typer.Typer(); app.command()(dashboard); app([{str(folder)!r}, '--port', '0'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert url, said
        assert b"plotly" in urllib.request.urlopen(url[0], timeout=20).read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
