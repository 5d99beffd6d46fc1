"""Give raydual every hostile input of the tests' corpus, each in a process of its own.

    python benchmarks/hostile.py [KIND]

Prints the kind and name of each input, the exit code and the error; then how many gave one clear
error, and how many a traceback, a hang, or anything outside the output folder. Ends with exit
code 1 unless all gave a clear error and nothing else. KIND: only inputs of this kind, as Parquet.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.hostile.case import Case, faults, snapshot, the_error
from tests.hostile.corpus import CORPUS
from tests.hostile.materials import checkpoint

ROOT = Path(__file__).parents[1]
SECONDS = 120
"""A process that takes longer hangs."""


@dataclass(frozen=True)
class Answer:
    """What a process said; code: None where it was ended because it hung."""

    case: Case
    code: int | None
    error: str
    faults: list[str]
    outside: list[str]

    @property
    def clear(self) -> bool:
        """Whether it was one clear error and nothing else."""
        return not self.faults and not self.outside


def answer(case: Case) -> Answer:
    """Run raydual on an input, with a home and a place for temporary files that are watched too."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = case.set_up(Path(scratch))
        places = {name: Path(scratch) / name.lower() for name in ("HOME", "TMPDIR")}
        for place in places.values():
            place.mkdir()
        before = snapshot(Path(scratch))
        environment = os.environ | {name: str(place) for name, place in places.items()}
        environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "300", "HF_HUB_OFFLINE": "1"}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "raydual", *case.arguments], cwd=folder, env=environment,
                capture_output=True, text=True, errors="replace", timeout=SECONDS,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Answer(case, None, "", ["hang"], changes(before, snapshot(Path(scratch))))
        line = the_error(case, done.stdout, done.stderr)
        error = line or (done.stderr or done.stdout).strip().rpartition("\n")[2]
        found = faults(case, done.returncode, done.stdout, done.stderr)
        outside = changes(before, snapshot(Path(scratch)))
        return Answer(case, done.returncode, error.replace(f"{scratch}/input/", ""), found, outside)


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the paths outside the output folder that are new, gone or changed."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def answers(cases: list[Case]) -> Iterator[Answer]:
    """Yield the answers in the order of the inputs, as many at a time as there are cores."""
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint(Path(scratch))  # what many are made of is trained once, before the threads
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(answer, cases)


def main() -> None:
    """Print the table and the sums."""
    kinds = sys.argv[1:]
    cases = [case for case in CORPUS if not kinds or case.kind in kinds]
    found = []
    print(f"{'input':<70} exit  error")
    for one in answers(cases):
        found.append(one)
        code = "hang" if one.code is None else one.code
        name = f"{one.case.kind}: {one.case.name}"
        print(f"{name:<70} {code:<5} {one.error.strip()[:110]}", flush=True)
        for fault in (*one.faults, *(f"outside: {path}" for path in one.outside)):
            print(f"    WRONG: {fault}", flush=True)
    clear = sum(one.clear for one in found)
    tracebacks = sum("traceback" in one.faults for one in found)
    hangs = sum(one.code is None for one in found)
    outside = sum(len(one.outside) for one in found)
    print(
        f"{clear} of {len(found)} gave a clear error; {tracebacks} tracebacks; {hangs} hangs; "
        f"{outside} files outside"
    )
    raise SystemExit(clear < len(found) or not found)


if __name__ == "__main__":
    main()
