"""A benchmark that is ended early leaves nothing behind: no process, and no files of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

import psutil

GRACE_S = 30.0
"""What a row that trains on Ray takes to save and to end Ray, and more."""


@contextlib.contextmanager
def exits_on_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM raises SystemExit, with exit code 143, once."""
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(process: subprocess.Popen) -> None:
    """End a process and all below it: it is asked first, and whatever is left is killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, left = psutil.wait_procs([psutil.Process(process.pid), *below], GRACE_S)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def _exit(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)
