"""Every hostile input gets one clear error, and changes nothing outside the output folder."""

from __future__ import annotations

import pickle
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydual.cli import main
from tests.hostile.case import PASSWORD, PLANTED, Case, faults, snapshot
from tests.hostile.corpus import CORPUS
from tests.hostile.materials import checkpoint, planted, put

SECONDS = 20


@pytest.fixture(scope="module", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Train the run that many inputs are made of, out of what is timed."""
    checkpoint(tmp_path_factory.mktemp("sound"))


class HangError(BaseException):
    """Raised through every `except Exception`."""


@pytest.fixture
def limited() -> Iterator[None]:
    """End what hangs."""

    def end(*_: object) -> None:
        raise HangError(f"no answer after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("case", CORPUS, ids=lambda c: f"{c.kind}: {c.name}"[:80])
def test_hostile_input(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    limited: None,
) -> None:
    folder = case.set_up(tmp_path)
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["raydual", *case.arguments])
    monkeypatch.chdir(folder)
    before = snapshot(tmp_path)
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    output, errors = capfd.readouterr()
    assert faults(case, ended.value.code, output, errors) == [], errors[:2000] + output[-3000:]
    assert snapshot(tmp_path) == before


def test_the_corpus_is_large_and_varied() -> None:
    assert len(CORPUS) >= 60
    assert len({(case.kind, case.name) for case in CORPUS}) == len(CORPUS)


def test_what_is_wrong_with_an_answer_is_found(tmp_path: Path) -> None:
    case = Case("a kind", "a name", put("x", planted(tmp_path / "input")), "count x", ("words",))
    assert faults(case, 2, "", "error: words\n") == []
    wrong = [
        (1, "", "error: words\n"),
        (2, "", "error: other\n"),
        (2, "", "error: words\nmore\n"),
        (2, "words", ""),
        (2, "Traceback", "error: words\n"),
        (2, "", f"error: words {'a' * 1000}\n"),
        (2, PASSWORD, "error: words\n"),
    ]
    assert all(faults(case, *answer) for answer in wrong)
    folder = case.set_up(tmp_path)
    before = snapshot(tmp_path)
    put("out/a", "x")(folder)
    assert snapshot(tmp_path) == before
    pickle.loads((folder / "x").read_bytes())  # noqa: S301 - it is our own
    assert set(snapshot(tmp_path)) - set(before) == {PLANTED}
