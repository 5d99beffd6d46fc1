"""What can be looked at without Ray: versions, data, trunk, disk, trackers."""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from raydual.config_tree import Config
from raydual.doctor.check import Check, gib
from raydual.errors import RaydualError
from raydual.version import __version__

KEY = "set WANDB_API_KEY on the machines, or log.wandb=offline"
SHOWN = ("torch", "ray", "transformers", "pyarrow")


def versions() -> Check:
    """Compare what is installed with what raydual requires; nothing of it is imported."""
    shown = [f"{name} {_version(name) or 'missing'}" for name in SHOWN]
    found = ", ".join([f"raydual {__version__}", f"Python {platform.python_version()}", *shown])
    try:
        required = metadata.requires("raydual") or []
    except metadata.PackageNotFoundError:
        return Check(
            "versions",
            f"{found}; raydual runs from a folder, so what it requires is not known",
            "warn",
            "install it as a package: pip install FOLDER",
        )
    unmet = list(_unmet(required))
    if not unmet:
        return Check("versions", found)
    wrong = ", ".join(f"{r} is required, got {_version(r.name) or 'none'}" for r in unmet)
    remedy = "pip install " + " ".join(f'"{r}"' for r in unmet)
    return Check("versions", f"{found}: {wrong}", "fail", remedy)


def _unmet(required: list[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, required):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield requirement


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def data(config: Config) -> Check:
    """Read the index of the dataset, as a training does first."""
    from raydual.training.launch import SYNTHETIC, check_data

    if config.data.path == SYNTHETIC:
        return Check("data.path", "synthetic: drawn into run.storage when first used")
    try:
        return Check("data.path", f"{config.data.path}: {check_data(config)}")
    except RaydualError as error:
        return Check.failed("data.path", error)


def trunk(config: Config, trials: int) -> Iterator[Check]:
    """Size the model from its config.json, and the checkpoints against the disk's free space.

    trials: how many runs there will be.
    """
    from raydual.doctor.size import sized

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it counts its retries
    try:
        size = sized(config)
    except RaydualError as error:
        yield Check.failed("model.trunk", error)
        return
    yield Check(
        "model.trunk",
        f"{config.model.trunk}: {size.parameters:,} parameters with the heads, "
        f"{size.trained:,} trained",
    )
    need = trials * size.checkpoints
    found = f"checkpoints of {trials} run(s) take about {gib(need)}"
    if size.features:
        features = size.features * _pictures(config)
        need += features
        found += f", kept features {gib(features)}"
    if "://" in config.run.storage:
        yield Check("disk", found)
        return
    folder = config.run.storage
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    found = f"{found}; {gib(free)} are free"
    if need > free:
        yield Check("disk", found, "fail", "free some space, or set run.storage to another disk")
    else:
        yield Check("disk", found)


def _pictures(config: Config) -> int:
    """Return how many pictures' features a training keeps; 0 where there is no dataset yet."""
    from raydual.data.batches import read_splits
    from raydual.data.plan import num_rows

    try:
        train, val = read_splits(config)
    except RaydualError:
        return 0
    return config.data.views * num_rows(train) + num_rows(val)


def wandb(config: Config) -> Check:
    """Say where metrics go, and whether there is a key where one is needed."""
    mode = config.log.wandb
    if mode != "online":
        return Check("W&B", mode)
    if os.environ.get("WANDB_API_KEY"):
        return Check("W&B", "online, a key is set here")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb as library

    try:
        known = library.login(prompt=False, verify=False)
    except Exception as error:  # of a key that is none, say; its text might hold the key
        reason = type(error).__name__
        return Check("W&B", f"online, and wandb refuses the key: {reason}", "warn", KEY)
    if known:
        return Check("W&B", "online, a key is stored here")
    return Check("W&B", "online, and no key is set here", "warn", KEY)
