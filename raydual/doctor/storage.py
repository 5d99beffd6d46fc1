"""Whether `run.storage` can be written, read and emptied, and whether every node sees it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence

from raydual.data.storage import first_line
from raydual.doctor.check import Check
from raydual.errors import ConfigError, RaydualError
from raydual.training.run_folder import RunFolder

CONTENT = bytes(range(256)) * 4
FILE = "probe"
SHARED = "set run.storage to a bucket (s3://...) or to a folder that all nodes share"


class Probe:
    """A small file in `run.storage`: written and read back, looked for by the nodes, deleted."""

    def __init__(self, storage: str) -> None:
        self.storage = storage
        self.folder = f".doctor-{uuid.uuid4().hex[:8]}"
        self._seconds = 0.0
        self._error: Exception | None = None

    def write(self) -> None:
        """Write the file and read it back."""
        self._try(self._write)

    def delete(self) -> None:
        """Delete the file, if it was written."""
        if self._error is None:
            self._try(lambda: RunFolder.at(self.storage).remove(self.folder))

    def check(self, blind: Sequence[str], grows: bool) -> Check:
        """Say what came of it.

        blind: the nodes that did not see the file. grows: whether other nodes will join.
        """
        if self._error is not None:
            return Check.failed("storage", self._error)
        took = f"{self.storage}: written, read and deleted in {self._seconds * 1000:.0f} ms"
        if blind:
            return Check("storage", f"{took}; not seen from {', '.join(blind)}", "fail", SHARED)
        if grows and "://" not in self.storage:
            return Check("storage", f"{took}; nodes that join have to see it too", "warn", SHARED)
        return Check("storage", took)

    def _write(self) -> None:
        folder = RunFolder.at(self.storage)
        folder.write(f"{self.folder}/{FILE}", CONTENT)
        if not is_seen(self.storage, self.folder):
            raise ConfigError(f"{self.storage} gives back other bytes than were written to it")

    def _try(self, step: Callable[[], None]) -> None:
        start = time.perf_counter()
        try:
            step()
        except RaydualError as error:
            self._error = error
        except OSError as error:
            self._error = ConfigError(f"{self.storage}: {first_line(error)}")
        self._seconds += time.perf_counter() - start


def is_seen(storage: str, folder: str) -> bool:
    """Whether the file can be read from this machine."""
    return RunFolder.at(storage).read(f"{folder}/{FILE}") == CONTENT
