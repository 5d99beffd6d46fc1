"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """What was found, whether a training can do with it, and otherwise what to do."""

    name: str
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""

    @classmethod
    def failed(cls, name: str, error: Exception) -> Check:
        """Return a check that failed; an error's message is what was found, then what to do."""
        found, _, remedy = str(error).partition("; ")
        return cls(name, found, "fail", remedy)


def gib(size: float) -> str:
    """Return a number of bytes in words."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
