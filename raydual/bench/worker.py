"""One row in a process of its own, so that memory, threads and imports are its own.

python -m raydual.bench.worker JOB.json    # writes what it measured into the file that JOB names
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from raydual.bench.ending import exits_on_sigterm
from raydual.config import build
from raydual.config_tree import Config
from raydual.errors import ConfigError, RaydualError


def main() -> None:
    """Measure; an error that the user can act on is in the file too."""
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])
    try:
        with exits_on_sigterm():
            out.write_text(json.dumps(measured(job)))
    except RaydualError as error:
        out.write_text(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        raise SystemExit(error.exit_code) from None


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one row.

    job: kind, config, device, cores, workers, started (seconds since 1970) and out, a path.
    """
    if job["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["cores"]])
    import torch

    config, device = build(job["config"]), torch.device(job["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device=cuda, but torch finds no GPU here; take --device=cpu")
    torch.set_num_threads(threads(config))
    if job["kind"] == "ceiling":
        from raydual.bench import ceiling

        return ceiling.measure(config, device)
    if job["kind"] in ("dataloader", "stream"):
        from raydual.bench import feed

        return feed.measure(config, job["kind"])
    from raydual.bench.stopwatch import Stopwatch, figures

    record = Path(job["out"]).with_suffix(".record.json")
    train(job["kind"], config, device, Stopwatch(record, config.train.epochs, device.type))
    images = config.train.batch_size * job["workers"]
    return figures(json.loads(record.read_text()), job["started"], images, device.type)


def threads(config: Config) -> int:
    """How many threads torch may use, in every row: what a worker of Ray takes."""
    return max(1, int(config.scale.cpus_per_worker))


def train(kind: str, config: Config, device: Any, on_stage: Any) -> None:
    """Train to the end, told on a console as a user's training would be.

    kind: "reference", "here" or "ray".
    """
    if kind == "reference":
        from raydual.bench.reference import Reference, world_of_one

        with world_of_one(device):
            Reference(config, device, on_stage).train()
        return
    from raydual.training.trackers import ConsoleTracker

    if kind not in ("here", "ray"):
        raise ValueError(f"got {kind}")
    with ConsoleTracker(config) as console:
        if kind == "ray":
            from raydual.training.trainer import run_on_ray

            run_on_ray(config, console, on_stage)
            return
        from raydual.data.loading import load_here
        from raydual.training.run import run_training

        with contextlib.closing(
            run_training(config, load_here, device, console, on_stage=on_stage)
        ) as epochs:
            for _ in epochs:
                pass


if __name__ == "__main__":
    main()
