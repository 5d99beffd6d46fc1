"""Where the time of a training goes, by the stages that the loop names anyway."""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from raydual.training.watch import peak_memory

GIB = 2**30
ALONE = ("waiting for data", "copying to the device", "image features")
"""Stages that are of no task."""
_PASS = {"forward pass": "forward", "backward pass": "backward", "clipping": "clip", "step": "step"}
_ITERATION = re.compile(r"epoch (\d+), iteration (\d+), (.*)")


class Stopwatch:
    """To be a training's `on_stage`: notes when each stage begins.

    After the last epoch it writes what it has into a file, since it may have been pickled and sent
    to another process. On a GPU it waits for the kernels of each stage in the last epoch, which is
    slower; the epochs before that are left alone, and give the iterations per second.
    """

    def __init__(self, file: Path, last_epoch: int, device: str) -> None:
        self._file, self._last, self._device = file, last_epoch, device
        self._marks: list[tuple[float, str]] = []
        self._before = 0.0

    def __call__(self, stage: str) -> None:
        """Note that a stage begins."""
        if not self._marks:
            self._before = psutil.Process().memory_info().rss / GIB
        if self._device == "cuda" and (
            not _ITERATION.match(stage) or stage.startswith(f"epoch {self._last}, ")
        ):
            torch.cuda.synchronize()
        self._marks.append((time.perf_counter(), stage))
        if stage == f"saving after epoch {self._last}":
            self._write()

    def _write(self) -> None:
        record = {
            "marks": self._marks,
            "clock": time.time() - time.perf_counter(),
            "host_before_gib": self._before,
            "host_peak_gib": peak_memory(torch.device("cpu")),
            "device_peak_gib": peak_memory(torch.device("cuda")) if self._device == "cuda" else 0.0,
        }
        self._file.write_text(json.dumps(record))


def figures(record: dict[str, Any], started: float, images: int, device: str) -> dict[str, Any]:
    """Turn what a stopwatch wrote of at least three epochs into figures.

    started: when the process was started, in seconds since 1970. images: of an iteration, of all
    workers. The first epoch warms up; `ms` splits the mean iteration of the last one on a GPU and
    of all later ones on a CPU, and adds up to `ms_iteration`.
    """
    marks = [(at, stage) for at, stage in record["marks"]]
    last = max(int(m[1]) for _, stage in marks if (m := _ITERATION.match(stage)))
    later = list(range(2, last + 1))
    timed, split = (later[:-1], later[-1:]) if device == "cuda" else (later, later)
    spans = {epoch: _span(marks, epoch) for epoch in range(1, last + 1)}
    done = {epoch: _iterations(marks, epoch) for epoch in spans}
    seconds = sum(spans[e][1] - spans[e][0] for e in timed)
    per_s = sum(done[e] for e in timed) / seconds
    phases: dict[str, float] = {}
    for (at, stage), (until, _) in itertools.pairwise(marks):
        if any(spans[e][0] <= at < spans[e][1] for e in split):
            phases[phase(stage)] = phases.get(phase(stage), 0.0) + until - at
    each = 1000 / sum(done[e] for e in split)
    ms = {name: each * value for name, value in phases.items()}
    first = _when(marks, "epoch 1, iteration 1, copying")
    return {
        "iterations_per_s": per_s,
        "images_per_s": per_s * images,
        "ms_iteration": sum(ms.values()),
        "ms": ms,
        "host_peak_gib": record["host_peak_gib"],
        "host_growth_gib": max(0.0, record["host_peak_gib"] - record["host_before_gib"]),
        "device_peak_gib": record["device_peak_gib"],
        "start_up_s": first + record["clock"] - started,
        "first_batch_s": _mean(_first_wait(marks, epoch) for epoch in later),
        "validation_s": _mean(_length(marks, f"validation after epoch {e - 1}") for e in later),
        "saving_s": _mean(_length(marks, f"saving after epoch {e - 1}") for e in later),
    }


def phase(stage: str) -> str:
    """Return the phase that a stage of an iteration belongs to.

    "epoch 2, iteration 7, forward pass of coord" is "coord forward"; agreement, figures, sampled
    gradients and progress are "rest".
    """
    match = _ITERATION.match(stage)
    what, _, of = (match[3] if match else stage).partition(" of ")
    if what in _PASS:
        return f"{of} {_PASS[what]}"
    if what == "processor":
        return "processor"
    return what if what in ALONE else "rest"


def _span(marks: list[tuple[float, str]], epoch: int) -> tuple[float, float]:
    start = _when(marks, f"epoch {epoch}, iteration ")
    return start, _when(marks, f"validation after epoch {epoch}")


def _iterations(marks: list[tuple[float, str]], epoch: int) -> int:
    found = (_ITERATION.match(stage) for _, stage in marks if "copying" in stage)
    return len({m[2] for m in found if m and int(m[1]) == epoch})


def _when(marks: list[tuple[float, str]], start: str) -> float:
    return next(at for at, stage in marks if stage.startswith(start))


def _length(marks: list[tuple[float, str]], stage: str) -> float:
    """Seconds from the beginning of a stage to that of the next one."""
    i = next(i for i, mark in enumerate(marks) if mark[1] == stage)
    return marks[i + 1][0] - marks[i][0]


def _first_wait(marks: list[tuple[float, str]], epoch: int) -> float:
    return _length(marks, f"epoch {epoch}, iteration 1, waiting for data")


def _mean(values: Any) -> float:
    collected = list(values)
    return sum(collected) / len(collected)
