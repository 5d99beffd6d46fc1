"""What is measured: the rows of the tables, and the configuration of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raydual.config import with_values
from raydual.config_tree import Config
from raydual.errors import ConfigError

EPOCHS = 3
"""The first warms up; see `stopwatch.figures`."""

LOOP = ("reference", "dual", "ray", "mixed", "independent")
ONLY = (*LOOP, "data", "scaling")


@dataclass(frozen=True)
class Row:
    """One measurement, in a process of its own.

    table: "machine", "loop", "data" or "scaling". kind: what the process does. values: what its
    configuration has of its own. cores: those that it, with all it starts, may use; 0 for any.
    """

    table: str
    name: str
    kind: str
    values: dict[str, Any] = field(default_factory=dict, hash=False)
    cores: int = 0

    @property
    def workers(self) -> int:
        """How many train together."""
        return max(1, int(self.values.get("scale.num_workers", 0)))


def rows(only: Sequence[str], device: str) -> list[Row]:
    """List what is to be measured, in order.

    Raises:
        ConfigError: a name that is none.
    """
    for name in only:
        if name not in ONLY:
            raise ConfigError(f"--only: got {name!r}; expected some of {','.join(ONLY)}")
    wanted = set(only or ONLY)
    found = [
        Row("machine", "ceiling", "ceiling"),
        Row("loop", "reference", "reference"),
        Row("loop", "dual", "here"),
        Row("loop", "ray", "ray", {"scale.num_workers": 1}),
        Row("loop", "mixed", "here", {"train.strategy": "mixed"}),
        Row("loop", "independent", "here", {"train.strategy": "independent"}),
    ]
    found = [row for row in found if row.name in wanted or row.table == "machine"]
    if "data" in wanted:
        found += [Row("data", "torch DataLoader, 2 workers", "dataloader")]
        found += [Row("data", "stream on Ray Data", "stream")]
    if "scaling" in wanted and device == "cpu":  # cores can be given and taken, GPUs cannot
        for workers in (1, 2):
            values = {"scale.num_workers": workers, "scale.cpus_per_worker": 0.5}
            name = f"{workers} worker{'s' * (workers > 1)} on {workers} core{'s' * (workers > 1)}"
            found.append(Row("scaling", name, "ray", values, cores=workers))
    return found


def base_config(config: Config, device: str, iterations: int, storage: str) -> Config:
    """Return the configuration that the rows have in common: three short epochs of `dual`."""
    return with_values(
        config,
        {
            "run.storage": storage,
            "run.name": "bench",
            "run.resume": False,
            "scale.num_workers": 0,
            "scale.use_gpu": device == "cuda",
            "scale.strategy": "ddp",
            "train.strategy": "dual",
            "train.epochs": EPOCHS,
            "train.max_iterations": iterations,
            "train.accumulate": 1,
            "train.count_every": 0,
            "train.checkpoint_every": None,
            "coord.patience": EPOCHS,
            "done.patience": EPOCHS,
            "log.wandb": "disabled",
        },
    )


def images_needed(config: Config, iterations: int) -> int:
    """Return how many images to draw: an epoch of two workers, and what is split off."""
    return math.ceil(2 * iterations * config.train.batch_size / 0.9) + 10
