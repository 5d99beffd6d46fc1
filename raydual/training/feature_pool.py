"""Compute missing features on a pool of Ray Data actors."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
import torch

from raydual.config import build
from raydual.config_tree import Config
from raydual.data.features import KeptFeatures
from raydual.data.plan import Unit, num_rows
from raydual.errors import RaydualError, TrainingError
from raydual.training.cluster import executors_ended, quiet_core
from raydual.training.kept import FeatureMaker, missing


def make_on_ray(
    config: Config,
    kept: KeptFeatures,
    on_progress: Callable[[int, int], None],
    ended: Callable[[], bool],
) -> None:
    """Compute what is missing, with up to one actor for each GPU if `scale.use_gpu`, else CPU.

    on_progress: called with images done and in all. ended: whether to end after the next unit.

    Raises:
        RaydualError: what an actor could not do, or Ray.
    """
    units = missing(config, kept)
    if not units:
        return
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if config.scale.use_gpu else 0
    most = max(1, min(gpus or int(resources.get("CPU", 1)), len(units)))
    dataset = ray.data.from_items(
        [{**asdict(unit), "rows": list(unit.rows)} for unit in units],
        override_num_blocks=len(units),
    ).map_batches(
        _Actor,
        fn_constructor_args=(config.model_dump(), kept),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    dataset.context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    done, total = 0, num_rows(units)
    on_progress(done, total)
    try:
        with quiet_core(), executors_ended():
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                done += _images(table)
                on_progress(done, total)
                if ended():
                    return
    except ray.exceptions.RayError as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        raise TrainingError(
            f"computing features failed at {done} of {total} pictures: {last}; the same command "
            "goes on from there"
        ) from error


def _images(table: pa.Table) -> int:
    """Return how many images an actor has looked at; raise what it could not do."""
    for failure in table["failure"].to_pylist():
        if failure is not None:
            raise pickle.loads(failure)  # noqa: S301 - of our own actor, from its memory
    return int(sum(table["images"].to_pylist()))


class _Actor:
    """One tower of the pool, loaded with its first unit."""

    def __init__(self, config: dict, kept: KeptFeatures) -> None:
        self._config, self._kept = build(config), kept

    @cached_property
    def _maker(self) -> FeatureMaker:
        if not self._config.scale.use_gpu:
            torch.set_num_threads(1)  # a CPU each
        return FeatureMaker(self._config, self._kept)

    def __call__(self, part: pa.Table) -> pa.Table:
        images, failure = 0, None
        try:
            images = sum(self._maker.make(Unit(**row)) for row in part.to_pylist())
        except RaydualError as error:  # Ray Data would hand on its text alone
            failure = pickle.dumps(error)
        columns = {"images": [images], "failure": pa.array([failure], pa.binary())}
        return pa.table(columns)
