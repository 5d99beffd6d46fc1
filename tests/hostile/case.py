"""What a hostile input is, and what is to be true after raydual has met it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LONGEST = 1000
"""Characters of an error; one that repeats its input could have any number."""

PASSWORD = "wJalrXUtnFEMI"
"""In the inputs that hold credentials; no answer repeats it."""

PLANTED = "planted-code-ran"
"""The file that code planted in an input would leave outside."""


@dataclass(frozen=True)
class Case:
    """One hostile input.

    build: writes it into a folder, which is the current one when `command` runs; only `out` in
    it may change then. command: of raydual, as in a shell. says: words of the error. code: 2
    where the input is refused, 1 where the rest of a whole was used or examined.

    """

    kind: str
    name: str
    build: Callable[[Path], object]
    command: str
    says: tuple[str, ...]
    code: int = 2

    @property
    def arguments(self) -> list[str]:
        """The command as a list."""
        return shlex.split(self.command)

    def set_up(self, scratch: Path) -> Path:
        """Make the folder with the input, beside a canary and a picture that is none of its own."""
        from tests.hostile.materials import picture

        folder = scratch / "input"
        folder.mkdir(parents=True)
        (scratch / "canary.txt").write_text("untouched")
        (scratch / "secret.png").write_bytes(picture())
        self.build(folder)
        return folder


def snapshot(scratch: Path) -> dict[str, str]:
    """Return path to content of everything but the output folder, `input/out`."""
    out = scratch / "input" / "out"
    return {
        str(path.relative_to(scratch)): _content(path)
        for path in sorted(scratch.rglob("*"))
        if path != out and out not in path.parents
    }


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        return "folder" if path.is_dir() else "special"
    size = path.stat().st_size
    if size > 2**26:  # sparse
        return f"{size} bytes"
    return hashlib.blake2b(path.read_bytes()).hexdigest()


def faults(case: Case, code: int | str | None, output: str, errors: str) -> list[str]:
    """Return what is wrong with an answer; nothing where it is one clear error.

    output, errors: what was printed on the standard output and the standard error.
    """
    found = []
    if "Traceback" in output + errors:
        found.append("traceback")
    if PASSWORD in output + errors:
        found.append("repeats a password")
    if code != case.code:
        found.append(f"exit code {code}, expected {case.code}")
    line = the_error(case, output, errors)
    if line is None:
        found.append(f"no line says {' and '.join(map(repr, case.says))}")
    elif len(line) > LONGEST:
        found.append(f"the error has {len(line)} characters")
    lines = errors.splitlines()
    if case.code == 2 and not (len(lines) == 1 and lines[0].startswith("error: ")):
        found.append(f"the standard error has {len(lines)} lines, expected one that starts error:")
    return found


def the_error(case: Case, output: str, errors: str) -> str | None:
    """Return the line that says what is wrong, if there is one."""
    for line in (errors + output).splitlines():
        if all(words in line for words in case.says):
            return line
    return None
