"""Check everything that can be checked, then train: here, or on Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from raydual.config import build, load, value_of, with_values
from raydual.config_tree import Config
from raydual.data.batches import read_splits
from raydual.data.formats.synthetic import DRAWING, SynthConfig, rows
from raydual.data.manifest import MANIFEST
from raydual.data.plan import num_rows
from raydual.data.schema import Row, write_dataset
from raydual.data.storage import absolute, join, open_filesystem
from raydual.errors import CheckpointError, ConfigError, DataError, StorageError
from raydual.model.files import read_manifest, saved_config
from raydual.training.events import Note, OnEvent, Step
from raydual.training.run_folder import CONFIG_FILE, LATEST, RunFolder

SYNTHETIC = "synthetic"
ARCHITECTURE = (
    "model.coord_head",
    "model.lora.r",
    "model.lora.alpha",
    "train.strategy",
    "data.image_size",
    "data.mark.style",
    "model.cell",
)
"""What a resumed training cannot change."""

TRUST = "model.trust_remote_code"


def launch(config: Config, on_event: OnEvent) -> None:
    """Train `config.run.name`, which has to be given, to its end.

    Raises:
        RaydualError: what `preflight` finds before anything starts, and what `fit` raises.
    """
    assert config.run.name is not None
    config = with_absolute_paths(config)
    folder = RunFolder(config.run.storage, str(config.run.name))
    check_folder(config, folder)
    config = with_dataset(config, on_event)
    preflight(config, on_event)
    on_event(Note(f"Run {config.run.name} in {folder.path}"))
    if config.scale.max_workers == 0:
        from raydual.training.run import run_here

        run_here(config, on_event)
    else:
        from raydual.training.trainer import run_on_ray

        run_on_ray(config, on_event)
    on_event(Note(f"Checkpoints, metrics.jsonl and samples/ are in {folder.path}"))


def check_folder(config: Config, folder: RunFolder) -> None:
    """Find whether the run can start, or go on, in its folder.

    Raises:
        ConfigError: another run is there; the configuration is not that of the checkpoint to go
            on from; its metrics.jsonl is damaged; or the folder cannot be written.
        CheckpointError: the checkpoint to go on from is damaged.
    """
    if not folder.has_checkpoint(LATEST):
        try:
            folder.write(CONFIG_FILE, config.to_yaml().encode())
        except StorageError as error:
            raise ConfigError(str(error)) from None
        return
    if not config.run.resume:
        raise ConfigError(
            f"{folder.path} is there already; go on with `{resume_command(config, folder.path)}`, "
            "or take another run.name"
        )
    folder.history()
    with folder.checkpoint(LATEST) as path:
        saved = build(saved_config(read_manifest(path), folder.path))
    for key in ARCHITECTURE:
        before, now = value_of(saved, key), value_of(config, key)
        if before != now:
            raise ConfigError(
                f"{key}={now} cannot go on from {folder.path}, which was trained with {before}; "
                "start another run"
            )


def preflight(config: Config, on_event: OnEvent) -> None:
    """Find what would fail later, in the dataset and the trunk.

    Raises:
        ConfigError, DataError: one line on what is wrong.
    """
    images = check_data(config)
    from raydual.model.prompt import Prompter

    Prompter.from_pretrained(
        config.model.trunk,
        config.data.image_size,
        trust_remote_code=config.model.trust_remote_code,
    )
    on_event(Note(images))


def check_data(config: Config) -> str:
    """Find what would fail later in the dataset; say how many images there are.

    Raises:
        DataError: one line on what is wrong.
    """
    train, val = read_splits(config)
    workers = max(1, config.scale.max_workers)
    if num_rows(train) < workers:
        raise DataError(
            f"{config.data.path} has {num_rows(train)} training rows for {workers} workers; "
            "each worker needs one"
        )
    return f"{num_rows(train)} training and {num_rows(val)} validation images"


def resumed(run_folder: str, file: Path | None, overrides: list[str]) -> Config:
    """Return the configuration of a run to go on with, overrides applied to it.

    It trusts code that comes with a trunk only if the file or the overrides do.

    Raises:
        CheckpointError: there is no run there, or nothing to resume from.
        ConfigError: the overrides are wrong, or rename the run.
    """
    storage, _, name = absolute(run_folder.rstrip("/")).rpartition("/")
    folder = RunFolder(storage, name)
    folder.recover(LATEST)
    if (saved := folder.config()) is None or not folder.has_checkpoint(LATEST):
        raise CheckpointError(f"{run_folder} is no run that can be resumed: it has no {LATEST}")
    base = with_values(saved, {TRUST: False}).to_yaml()  # what a folder says of itself is no reason
    config = load(file, overrides, base=base)
    return with_values(config, {"run.storage": storage, "run.name": name, "run.resume": True})


def resume_command(config: Config, path: str) -> str:
    """Return the command that goes on with the run at a path."""
    trust = f" {TRUST}=true" if config.model.trust_remote_code else ""
    return f"raydual train --resume {path}{trust}"


def with_absolute_paths(config: Config) -> Config:
    """Make local paths absolute, since workers run elsewhere."""
    paths = {"run.storage": absolute(config.run.storage)}
    if config.data.path != SYNTHETIC:
        paths["data.path"] = absolute(config.data.path)
    if config.data.features is not None:
        paths["data.features"] = absolute(config.data.features)
    if Path(config.model.trunk).expanduser().is_dir():
        paths["model.trunk"] = absolute(config.model.trunk)
    return with_values(config, paths)


def with_dataset(config: Config, on_event: OnEvent) -> Config:
    """Put the drawn dataset in the place of the word `synthetic`; `run.storage` is absolute."""
    if config.data.path != SYNTHETIC:
        return config
    return with_values(config, {"data.path": _synthetic(config.run.storage, on_event)})


def _synthetic(storage: str, on_event: OnEvent) -> str:
    """Return the path of the default synthetic dataset, drawn on first use, beside the runs."""
    drawing = SynthConfig(images=9000, splits=(0.9, 0.05, 0.05))
    content = f"{DRAWING} {drawing.model_dump_json()}"
    version = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    path = join(storage, f".datasets/synthetic-{version}")
    filesystem, root = open_filesystem(path)
    if not filesystem.get_file_info(f"{root}/{MANIFEST}").is_file:
        on_event(Note(f"Drawing {drawing.images} synthetic images into {path}"))
        write_dataset(_with_steps(drawing, on_event), path, source="synthetic")
    return path


def _with_steps(drawing: SynthConfig, on_event: OnEvent) -> Iterator[Row]:
    for number, row in enumerate(rows(drawing)):
        if number % 100 == 0:
            on_event(Step("Drawing", number, drawing.images))
        yield row
