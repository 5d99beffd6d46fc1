"""The driver of a search: Ray Tune, then the results."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.schedulers import TrialScheduler

from raydual.config_tree import Config
from raydual.data.storage import join
from raydual.training.cluster import connected, largest_cluster
from raydual.training.events import Note
from raydual.training.launch import preflight, with_dataset
from raydual.training.trainer import RAY_FOLDER
from raydual.tuning.files import STUDY_FILE, SearchFolder, TrialRecord
from raydual.tuning.resources import check_capacity, needs
from raydual.tuning.results import drop_checkpoints, write_results
from raydual.tuning.schedulers import TwoTaskHalving, make_scheduler
from raydual.tuning.space import Search, most_epochs
from raydual.tuning.study import Study
from raydual.tuning.table import SearchTable
from raydual.tuning.trainable import TrialRunner
from raydual.tuning.watch import Proposals, Watch

QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


def run_search(
    folder: SearchFolder, search: Search, original: Config, table: SearchTable
) -> dict[str, Any]:
    """Train what is left of a search, write its results and return them, as in results.json.

    Raises:
        RaydualError: what is wrong with the data, the trunk or the resources, before any trial.
        KeyboardInterrupt: it was interrupted; the results so far are written.
    """
    config = with_dataset(original, table)
    preflight(config, table)
    known = folder.trials()
    left = [record for record in known if record.open]
    new = max(0, search.trials - len(known))
    if left or new:
        os.environ.update(QUIET)
        with connected(table):
            # what becomes of a trial is in the table, without the traceback
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
            concurrency = check_capacity(search, config, largest_cluster())
            folder.save_settings(search, original)
            table(Note(f"{len(left) + new} trials, {concurrency} at a time, in {folder.path}"))
            try:
                _fit(folder, search, config, table, left, new, concurrency)
            except KeyboardInterrupt:
                write_results(folder)
                raise
        folder.folder.remove(RAY_FOLDER)
    found = write_results(folder)
    if search.keep == "front":
        drop_checkpoints(folder, found)
    return found


def _fit(
    folder: SearchFolder,
    search: Search,
    config: Config,
    table: SearchTable,
    left: list[TrialRecord],
    new: int,
    concurrency: int,
) -> None:
    """Run Ray Tune over the trials that are left."""
    nested = config.scale.max_workers > 1
    population = search.trial_scheduler == "pbt"
    with _study(folder, search, config.seed) as study:
        watch = Watch(folder, study, table)
        runner = ray.tune.with_parameters(
            TrialRunner, base=config.model_dump(), trials=folder.trials_path, group=folder.name
        )
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(runner, needs(search, config)),
            tune_config=ray.tune.TuneConfig(
                search_alg=Proposals(folder, search, study, left, new),
                scheduler=_scheduler(folder, search, config),
                num_samples=len(left) + new,
                # trials of a population wait for their turn, and would count as running
                max_concurrent_trials=None if population else concurrency,
                reuse_actors=not nested,
            ),
            run_config=ray.tune.RunConfig(
                name="tune",
                storage_path=join(folder.path, RAY_FOLDER),
                verbose=0,
                failure_config=ray.tune.FailureConfig(max_failures=config.run.max_failures),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[watch],
            ),
        )
        folder.save_driver("running")
        state = "interrupted"
        try:
            tuner.fit()
            if not any(record.open for record in folder.trials()):
                state = "finished"
        finally:
            folder.save_driver(state)


def _scheduler(folder: SearchFolder, search: Search, config: Config) -> TrialScheduler:
    """Make the trial scheduler, which remembers the trials that are there."""
    scheduler = make_scheduler(search, most_epochs(search, config))
    if isinstance(scheduler, TwoTaskHalving):
        for record in folder.trials():
            history = folder.history(record.name, config.scale.max_workers)
            scheduler.remember(record.name, history)
    return scheduler


@contextlib.contextmanager
def _study(folder: SearchFolder, search: Search, seed: int) -> Iterator[Study]:
    """Open the study beside the results; sqlite needs a local file, so a bucket gets a copy."""
    local = folder.folder.local()
    if local is not None:
        yield Study(search, seed, str(local / STUDY_FILE), folder.name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / STUDY_FILE
        file.write_bytes(folder.folder.read(STUDY_FILE) or b"")

        def upload() -> None:
            folder.folder.write(STUDY_FILE, file.read_bytes())

        yield Study(search, seed, str(file), folder.name, upload)
