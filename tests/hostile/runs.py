"""The folders of runs and searches, as they might be handed to a user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.case import Case
from tests.hostile.checkpoints import Change, content, remote_code
from tests.hostile.materials import (
    RESUME,
    Planted,
    both,
    changed,
    planted,
    planted_python,
    put,
    resign,
    run,
)

STATE = "training_state.pt"


def state(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Return what changes the state of a training."""

    def apply(place: Path) -> None:
        found = torch.load(place / STATE, weights_only=True)
        change(found)
        torch.save(found, place / STATE)

    return apply


def planted_state(place: Path) -> None:
    torch.save({"epoch": Planted(place.parent.parent.parent)}, place / STATE)


RUNS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "pickle that runs code, as state": (changed(run, planted_state), (STATE,)),
    "bare pickle that runs code, as state": (
        changed(run, lambda p: (p / STATE).write_bytes(planted(p.parent.parent.parent))), (STATE,)),
    "state cut in the middle": (
        changed(run, content(STATE, lambda b: b[: len(b) // 2])), (STATE,)),
    "state that is a list": (changed(run, lambda p: torch.save([1], p / STATE)), (STATE,)),
    "state without optimizers": (changed(run, state(lambda s: s.pop("optimizers"))), (STATE,)),
    "state with an epoch in words": (changed(run, state(lambda s: s.update(epoch="one"))),
                                     (STATE, "epoch")),
    "state before the first epoch": (changed(run, state(lambda s: s.update(epoch=-7))),
                                     (STATE, "epoch")),
    "state with parts in words": (changed(run, state(lambda s: s.update(parts=["x"]))),
                                  (STATE, "parts")),
    "state with a best loss in words": (
        changed(run, state(lambda s: s["stoppers"]["coord"].update(best="x"))), (STATE,)),
    "state with moments of other shapes": (
        changed(run, state(lambda s: s["optimizers"]["coord"]["optimizer"]["state"][0].update(
            exp_avg=torch.zeros(1)))), (STATE,)),
    "state of a model with more parameters": (
        changed(run, state(lambda s: s["optimizers"]["coord"]["optimizer"]["param_groups"][0][
            "params"].append(999))), (STATE,)),
    "Python object in the configuration": (
        both(run, put("out/r/config.yaml", "seed: !!python/name:os.system")), ("config.yaml",)),
    "configuration that is no text": (
        both(run, put("out/r/config.yaml", b"\xff\xfe\xff")), ("config.yaml",)),
    "history that is no JSON": (both(run, put("out/r/metrics.jsonl", "{\n")), ("metrics.jsonl",)),
    "history of a million brackets": (
        both(run, put("out/r/metrics.jsonl", "[" * 10**6)), ("metrics.jsonl",)),
    "history without epochs": (
        both(run, put("out/r/metrics.jsonl", '{"a": 1}\n')), ("metrics.jsonl",)),
}  # fmt: skip


def trusting(folder: Path) -> None:
    """Hand over a run that says itself that its Python is to be trusted."""
    place = run(folder)
    remote_code(place)
    (place / "evil.py").write_text(planted_python(folder))
    resign(place)
    path = folder / "out/r/config.yaml"
    text = path.read_text().replace("trust_remote_code: false", "trust_remote_code: true")
    path.write_text(text.replace("trunk: tiny", f"trunk: {place}"))


def search(**texts: str) -> Change:
    """Return what writes the folder of a search with one trial, some files replaced."""

    def build(folder: Path) -> None:
        from tests.report.searches import drawn_search

        drawn_search(folder / "out/s", 1, epochs=2)
        for name, text in texts.items():
            path = {"search": "search.yaml", "driver": "driver.json"}.get(
                name, f"trials/0000/{name}"
            )
            (folder / "out/s" / path.replace("_", ".")).write_text(text)

    return build


SHOW = "report out/s --out out/page.html"
SHOWN: dict[str, tuple[Change, str, tuple[str, ...]]] = {
    "run with a history of a million brackets": (
        both(run, put("out/r/metrics.jsonl", "[" * 10**6)), "report out/r", ("metrics.jsonl",)),
    "run with an epoch in words": (
        both(run, put("out/r/metrics.jsonl", '{"epoch": "<script>"}\n')), "report out/r",
        ("metrics.jsonl",)),
    "run with losses in words": (
        both(run, put("out/r/metrics.jsonl", '{"epoch": 1, "val/loss_coord": "<script>"}\n')),
        "report out/r", ("metrics.jsonl",)),
    "run with a configuration in Python": (
        both(run, put("out/r/config.yaml", "a: !!python/name:os.system")), "report out/r",
        ("config.yaml",)),
    "search in Python": (search(search="a: !!python/name:os.system"), SHOW, ("search.yaml",)),
    "search of 10**5 brackets": (search(search="[" * 10**5), SHOW, ("search.yaml",)),
    "search that is a list": (search(search="[]"), SHOW, ("search.yaml",)),
    "trial of a million brackets": (search(trial_json="[" * 10**6), SHOW, ("trial.json",)),
    "trial with an unknown key": (search(trial_json='{"evil": 1}'), SHOW, ("trial.json",)),
    "driver that is no JSON": (search(driver="{"), SHOW, ("driver.json",)),
    "driver that is a list, gone on with": (
        search(driver="[]"), "tune --resume out/s", ("driver.json",)),
    "process number in words": (
        search(driver='{"state": "running", "host": "a", "pid": "b", "time": "c"}'), SHOW,
        ("driver.json",)),
}  # fmt: skip

CASES = [
    *(Case("run", name, build, RESUME, says) for name, (build, says) in RUNS.items()),
    Case("run", "Python that it says to trust", trusting, RESUME, ("trust_remote_code",)),
    *(Case("report", name, build, command, says)
      for name, (build, command, says) in SHOWN.items()),
]  # fmt: skip
