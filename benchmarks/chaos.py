"""Kill trainings in every way and at every moment, and compare them with one that was left alone.

    python benchmarks/chaos.py SCRATCH_FOLDER [--seed 0]    # or: make chaos

Prints the table of chaos.md. Exit code 1 if a training that was disturbed ends otherwise than the
undisturbed one, bit for bit, or if a row was lost or trained on twice.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

EPOCHS, ITERATIONS, IMAGES = 4, 8, 64
Kill = dict[str, Any]
"""How (kill, exit, raise, driver, node), in which epoch, at which moment, on which rank."""

MOMENTS = {
    "validation": ("raydual.training.loop", "validate"),
    "writing weights": ("raydual.model.counter.DualTaskCounter", "save_manifest"),
    "replacing a checkpoint": ("raydual.training.run_folder.RunFolder", "_replace"),
}
"""What is about to be called, in which module or class, when a kill strikes."""

BETWEEN = "between two checkpoints"
"""When the old one has been removed, and the new one is not in its place yet."""

SAVING = ["writing weights", "replacing a checkpoint", BETWEEN]


def schedules(seed: int) -> dict[str, list[Kill]]:
    """Return the kills of each training: 20 in all, at moments drawn by the seed."""
    rng = random.Random(seed)

    def kill(how: str, moment: str, epoch: int | None = None) -> Kill:
        on = 0 if moment in SAVING else rng.randrange(2)
        return {"how": how, "moment": moment, "epoch": epoch or rng.randint(1, EPOCHS), "rank": on}

    def iteration() -> str:
        return f"iteration {rng.randint(2, ITERATIONS)}"

    ways = ["kill", "exit", "raise"]
    workers = [
        kill("kill", "iteration 1", 1),
        kill("kill", "validation"),
        kill("exit", "validation"),
    ]
    workers += [kill(ways[i % 3], moment) for i, moment in enumerate(SAVING)]
    workers += [kill(ways[i % 3], iteration(), i % EPOCHS + 1) for i in range(6)]
    driver = [kill("driver", "iteration 1", 1), kill("driver", "replacing a checkpoint", 2)]
    driver += [kill("driver", iteration(), 3), kill("driver", "validation", 4)]
    node = [kill("node", iteration(), e) for e in (1, 2, 3, 4)]
    return {"undisturbed": [], "workers": workers, "driver": driver, "node": node}


# --- in the workers -------------------------------------------------------------------------------


def sabotaged(setup: dict[str, Any], *, folder: str, kills: list[Kill], driver: int) -> None:
    """Run one rank, write down its rows, and strike where the schedule says so."""
    import ray.train

    from raydual.training import loop, worker

    rank = ray.train.get_context().get_world_rank()
    at = {"epoch": 0}
    log = Path(folder) / f"rows_{rank}.jsonl"
    real = loop.iteration

    def strike(moment: str) -> None:
        for number, kill in enumerate(kills):
            place = (kill["moment"], kill["epoch"], kill["rank"])
            if place == (moment, at["epoch"], rank) and _first(Path(folder) / f"kill_{number}"):
                _strike(kill["how"], driver)

    def iteration(*args: Any, **kwargs: Any) -> Any:
        micro, watch = args[3], args[4]
        at["epoch"] = watch._epoch
        strike(f"iteration {watch._iteration}")
        ids = [s.id for batches in micro for s in next(iter(batches.values())).samples]
        place = {"epoch": watch._epoch, "iteration": watch._iteration, "rank": rank}
        figures = real(*args, **kwargs)
        with log.open("a") as file:
            file.write(json.dumps({**place, "ids": ids, "time": time.time()}) + "\n")
        return figures

    loop.iteration = iteration
    for moment, (owner, name) in MOMENTS.items():
        _before(owner, name, partial(strike, moment))
    _after_a_removal(partial(strike, BETWEEN))
    worker.train_worker(setup)


def _before(owner: str, name: str, act: Callable[[], None]) -> None:
    """Let something be done before each call of a function of a module or class."""
    import pydoc

    place = pydoc.locate(owner)
    real = getattr(place, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        act()
        return real(*args, **kwargs)

    setattr(place, name, patched)


def _after_a_removal(act: Callable[[], None]) -> None:
    from raydual.training.run_folder import RunFolder

    real = RunFolder._remove

    def patched(self: RunFolder, folder: str) -> None:
        real(self, folder)
        if folder.endswith("_checkpoint"):  # and not the new one beside it
            act()

    RunFolder._remove = patched


def _first(marker: Path) -> bool:
    """Leave a marker that names this node, unless it is there."""
    import ray

    if marker.exists():
        return False
    marker.write_text(ray.get_runtime_context().get_node_id())
    return True


def _strike(how: str, driver: int) -> None:
    if how == "raise":
        raise RuntimeError("chaos")
    if how == "exit":
        os._exit(1)
    if how == "driver":
        os.kill(driver, signal.SIGKILL)
    if how == "node":
        time.sleep(600)  # until the node is gone
    os.kill(os.getpid(), signal.SIGKILL)


# --- in the driver --------------------------------------------------------------------------------


def train(folder: Path, name: str, kills: list[Kill]) -> None:
    """Train as `raydual train` would, in a process of its own, among saboteurs."""
    import raydual.training.trainer as trainer
    from raydual.config import load
    from raydual.training.launch import launch

    trainer.train_worker = partial(
        sabotaged, folder=str(folder / name), kills=kills, driver=os.getpid()
    )
    overrides = [
        f"run.storage={folder}/runs",
        f"run.name={name}",
        "run.resume=true",
        "run.max_failures=20",
        f"data.path={folder}/data",
        "data.image_size=48",
        f"train.epochs={EPOCHS}",
        "train.batch_size=4",
        "train.checkpoint_every=2",
        "train.count_every=2",
        "scale.num_workers=2",
        "scale.cpus_per_worker=0.5",
        "log.wandb=disabled",
        "log.images=2",
    ]
    if any(kill["how"] == "node" for kill in kills):
        _on_vanishing_nodes(folder / name, kills)
    launch(load(None, overrides), lambda event: print(event, flush=True))


def _on_vanishing_nodes(folder: Path, kills: list[Kill]) -> None:
    """Start a cluster of which the node that a worker names is removed at each kill."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(len(kills) + 1)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

    def watch() -> None:
        for number in range(len(kills)):
            while not (named := _read(folder / f"kill_{number}")):
                time.sleep(0.05)
            (node,) = (node for node in nodes if node.node_id == named)
            cluster.remove_node(node, allow_graceful=False)

    threading.Thread(target=watch, daemon=True).start()


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


# --- outside --------------------------------------------------------------------------------------


def survive(folder: Path, name: str, kills: list[Kill], console: Console) -> str:
    """Start a training, and again with the same command as long as it is killed; "" if it ends."""
    (folder / name).mkdir()
    command = [sys.executable, __file__, "--train", name, "--kills", json.dumps(kills), str(folder)]
    own = {**os.environ, "RAY_worker_niceness": "0"}  # not behind everything else that runs here
    for _ in range(len(kills) + 1):
        with (folder / name / "log.txt").open("a") as log:
            code = subprocess.run(command, stdout=log, stderr=log, env=own).returncode
        if code != -signal.SIGKILL:
            break
    console.print(
        f"{name}: ended with {code}, {sum(1 for _ in (folder / name).glob('kill_*'))} kills"
    )
    return "" if code == 0 else f"exit code {code}"


def outcome(folder: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the metrics without times, and every tensor of every checkpoint, as bytes."""
    from safetensors.torch import load_file

    run = folder / "runs" / name
    timed = ("seconds", "samples_per_s", "waiting_share", "peak_memory_gib")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if not k.endswith(timed)} for line in lines]
    files = sorted(run.glob("*_checkpoint/*.safetensors"))
    weights = {
        f"{file.parent.name}/{file.name}/{key}": tensor.numpy().tobytes()
        for file in files
        for key, tensor in load_file(file).items()
    }
    return metrics, weights


def rows(folder: Path, name: str) -> dict[int, Counter[str]]:
    """Count, by epoch, how often each row was in an iteration that lasted: its number's last."""
    last: dict[tuple[int, int, int], list[str]] = {}
    for log in sorted((folder / name).glob("rows_*.jsonl")):
        for line in map(json.loads, log.read_text().splitlines()):
            last[line["epoch"], line["iteration"], line["rank"]] = line["ids"]
    counts: dict[int, Counter[str]] = {}
    for (epoch, _, _), ids in last.items():
        counts.setdefault(epoch, Counter()).update(ids)
    return counts


def recoveries(folder: Path, name: str, kills: list[Kill]) -> list[float]:
    """Seconds from each kill to the next iteration that was finished after it."""
    logs = [log.read_text().splitlines() for log in (folder / name).glob("rows_*.jsonl")]
    times = sorted(json.loads(line)["time"] for log in logs for line in log)
    markers = [folder / name / f"kill_{n}" for n in range(len(kills))]
    struck = [marker.stat().st_mtime if marker.exists() else math.nan for marker in markers]
    return [min((t for t in times if t > s + 0.5), default=math.nan) - s for s in struck]


def report(folder: Path, plan: dict[str, list[Kill]], failed: dict[str, str]) -> Table:
    """Return one line a kill; `failed` gets what a training did otherwise than it should."""
    table = Table("training", "killed", "in epoch", "at", "rank", "recovery", "result")
    alone = outcome(folder, "undisturbed")
    for name, kills in plan.items():
        lost = [c for epoch in rows(folder, name).values() for c in epoch.values() if c != 1]
        complete = all(len(c) == IMAGES for c in rows(folder, name).values())
        if not failed[name] and (lost or not complete):
            failed[name] = "rows lost or doubled"
        unused = [n for n in range(len(kills)) if not (folder / name / f"kill_{n}").exists()]
        if not failed[name] and unused:
            failed[name] = f"kills {unused} never struck"
        if not failed[name] and outcome(folder, name) != alone:
            failed[name] = "other metrics or weights"
        times = recoveries(folder, name, kills)
        for kill, seconds in zip(kills, times, strict=True):
            table.add_row(
                name, kill["how"], str(kill["epoch"]), kill["moment"], str(kill["rank"]),
                f"{seconds:.1f} s", failed[name] or "identical",
            )  # fmt: skip
    return table


def main(
    folder: Path, seed: int = 0, train_one: str = typer.Option("", "--train"), kills: str = "[]"
) -> None:
    """Disturb trainings and print what came of it."""
    folder = folder.absolute()
    if train_one:
        return train(folder, train_one, json.loads(kills))
    from raydual.data.formats.synthetic import SynthConfig
    from raydual.data.formats.synthetic import rows as drawn
    from raydual.data.schema import write_dataset

    console = Console(width=110)
    folder.mkdir(parents=True)
    drawing = SynthConfig(images=80, image_size=64, max_objects=5, splits=(0.8, 0.15, 0.05))
    write_dataset(drawn(drawing), f"{folder}/data", source="synthetic")
    plan = schedules(seed)
    failed = {name: survive(folder, name, kills, console) for name, kills in plan.items()}
    console.print(report(folder, plan, failed))
    struck = sum(len(kills) for kills in plan.values())
    good = sum(len(kills) for name, kills in plan.items() if not failed[name])
    console.print(f"{good} of {struck} kills survived with identical metrics and weights")
    raise typer.Exit(1 if any(failed.values()) else 0)


if __name__ == "__main__":
    typer.run(main)
