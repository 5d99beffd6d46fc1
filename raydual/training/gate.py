"""Actors of their own, in a module that loads nothing: starting them takes no torch."""

from __future__ import annotations

import asyncio


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


class Flag:
    """Tells the workers that the driver was asked to end."""

    def __init__(self) -> None:
        self._raised = False

    def raise_it(self) -> None:
        """Let the workers end after the iteration under way."""
        self._raised = True

    def raised(self) -> bool:
        """Whether they should."""
        return self._raised
