"""Actors of their own, in a module that loads nothing: starting them takes no torch."""

from __future__ import annotations

import asyncio
import time


class Gate:
    """Where the workers of a trial wait between two epochs for the word to go on, or to end."""

    def __init__(self) -> None:
        self._opened = 0
        self._closed = False
        self._changed = asyncio.Condition()

    async def passes(self, epoch: int) -> bool:
        """Wait until it is known whether the training goes on after an epoch."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._opened >= epoch)
        return not self._closed

    async def open(self, epoch: int) -> None:
        """Let the workers go on after this epoch."""
        async with self._changed:
            self._opened = epoch
            self._changed.notify_all()

    async def close(self) -> None:
        """Let the workers end."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


class Desk:
    """Where a driver leaves a request for the ranks, and the ranks leave word of where they are.

    restarts: how many times the training may be started again after a failure.
    """

    def __init__(self, restarts: int) -> None:
        self._restarts = restarts
        self._end_asked = False
        self._stages: dict[int, tuple[str, float]] = {}

    def restarts_left(self) -> int:
        """How many restarts have not been taken."""
        return self._restarts

    def start_again(self, counts: bool) -> int | None:
        """Forget where the ranks were, for they are started again; return the restarts left.

        counts: whether this is one of them; None is returned where there was none to take.
        """
        if counts and not self._restarts:
            return None
        self._restarts -= counts
        self._stages = {}
        return self._restarts

    def ask_to_end(self) -> None:
        """Let the workers end after the iteration under way."""
        self._end_asked = True

    def end_asked(self) -> bool:
        """Whether they should."""
        return self._end_asked

    def enters(self, rank: int, ranks: int, stage: str) -> None:
        """Note where a rank is from now on, and how many there are: others are gone."""
        self._stages = {r: known for r, known in self._stages.items() if r < ranks}
        self._stages[rank] = (stage, time.monotonic())

    def stages(self) -> dict[int, tuple[str, float]]:
        """Where each rank is, and for how many seconds."""
        now = time.monotonic()
        return {rank: (stage, now - since) for rank, (stage, since) in self._stages.items()}
