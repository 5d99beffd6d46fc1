"""Ctrl-C and SIGTERM while training: the iteration under way is finished and saved first."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EndedBySignalError(Exception):
    """The training was asked to end, and has been saved.

    number: the signal that asked; 128 plus that is the exit code of a program it ends.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"Ended by {signal.Signals(number).name}, and saved")
        self.number = number


class Interruption:
    """Says, inside its `with` block, whether the training should end.

    The first SIGINT or SIGTERM asks for it; a second one acts at once, as it would have without
    the block. In a thread that is not the main one no signal arrives, and nothing ever asks.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
        if error is None and self._number is not None:
            raise EndedBySignalError(self._number)

    def __call__(self) -> bool:
        """Whether a signal has asked for the end."""
        return self._number is not None

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
