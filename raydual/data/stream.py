"""Read the rows of a plan by Ray Data: decoded and resized by CPU tasks anywhere in the cluster.

Each rank streams its own plan, so no coordinator has to split a dataset between ranks: rows
come in the plan's order whatever the number of workers, and a rank that resumes asks for exactly
what an undisturbed one would have read next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pyarrow as pa
import ray.data

from raydual.data.loading import Preparation, Sample, load_unit
from raydual.data.plan import Unit, num_rows
from raydual.data.prefetch import Prefetched
from raydual.data.sample_table import from_table, to_table

CPUS_PER_TASK = 0.5
WINDOW_BYTES = 2**27
"""Decoded pixels read in one execution of Ray Data."""


def load_with_ray(units: Sequence[Unit], preparation: Preparation) -> Iterator[Sample]:
    """Yield the samples of the units in order, read and decoded by Ray Data tasks.

    One execution reads a window and is emptied at once, while the window before it is used up:
    an execution that waits for its consumer polls without a pause (Ray 2.60), and takes half a
    core from the training.
    """
    windows = Prefetched(
        (_run(window, preparation) for window in _windows(units, preparation)), ahead=1
    )
    try:
        for tables in windows:
            for table in tables:
                yield from from_table(table, preparation.image_size)
    finally:
        windows.close()


def _windows(units: Sequence[Unit], preparation: Preparation) -> Iterator[list[Unit]]:
    rows = max(1, WINDOW_BYTES // (3 * preparation.image_size**2))
    window: list[Unit] = []
    for unit in units:
        if window and num_rows([*window, unit]) > rows:
            yield window
            window = []
        window.append(unit)
    if window:
        yield window


def _run(units: Sequence[Unit], preparation: Preparation) -> list[pa.Table]:
    dataset = ray.data.from_items(
        [{**asdict(unit), "rows": list(unit.rows)} for unit in units],
        override_num_blocks=len(units),
    ).map_batches(
        _load,
        fn_kwargs={"preparation": preparation},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=CPUS_PER_TASK,
    )
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = True
    return list(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))


def _load(units: pa.Table, preparation: Preparation) -> pa.Table:
    samples: list[Sample] = []
    for unit in units.to_pylist():
        samples += load_unit(Unit(**unit), preparation)
    return to_table(samples)
