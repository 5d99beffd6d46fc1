"""Find which kept features are missing, and compute them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from raydual.config_tree import Config
from raydual.data.batches import read_splits
from raydual.data.features import FOLDER, FORMAT, KeptFeatures
from raydual.data.loading import Sample
from raydual.data.plan import Unit, num_rows, repeated
from raydual.data.storage import file_version, join
from raydual.model.counter import DualTaskCounter
from raydual.model.digest import tower_digest
from raydual.model.inputs import FEATURES
from raydual.model.trunk import Trunk
from raydual.training.events import Note, OnEvent, Step
from raydual.training.parallel import arithmetic
from raydual.version import __version__

BATCH = 8
"""Images that the tower sees at once."""


def kept_features(config: Config) -> KeptFeatures | None:
    """Return where the features of a configuration lie; None where it keeps none.

    The folder's name is a hash of all that features depend on: format, version of raydual, tower
    and its settings, dtype and device, image size, order of points, views and their seed, the rows,
    and size and date of the shards.

    Raises:
        DataError, ConfigError, CheckpointError: the dataset or the trunk cannot be found.
    """
    data = config.data
    if not data.views:
        return None
    train, val = read_splits(config)
    seed = config.seed if data.views > 1 else 0
    about = {
        "format": FORMAT,
        "version": __version__,
        "tower": tower_digest(config),
        "dtype": [config.model.dtype, config.scale.use_gpu, config.model.lora.r > 0],
        "image_size": data.image_size,
        "order": data.order,
        "views": [data.views, seed],
        "rows": [[dataclasses.astuple(unit) for unit in units] for units in (train, val)],
        "shards": {shard: file_version(shard) for shard in {unit.shard for unit in (*train, *val)}},
    }
    content = json.dumps(about, sort_keys=True).encode()
    key = hashlib.blake2b(content, digest_size=8).hexdigest()
    where = data.features or join(config.run.storage, FOLDER)
    return KeptFeatures(join(where, key), data.views, config.seed)


def missing(config: Config, kept: KeptFeatures) -> list[Unit]:
    """Return the row groups, and their views, whose features are not there yet."""
    train, val = read_splits(config)
    wanted = [*val, *repeated(train, kept.views)]
    return [unit for unit in wanted if not kept.has(unit)]


class FeatureMaker:
    """Looks at images with the tower that a training freezes, and writes what it saw."""

    def __init__(self, config: Config, kept: KeptFeatures) -> None:
        self._config, self._kept = config, kept
        self._device = torch.device("cuda" if config.scale.use_gpu else "cpu")

    @cached_property
    def _counter(self) -> DualTaskCounter:
        dtype = arithmetic(self._config, self._device)
        return DualTaskCounter.from_config(self._config, dtype).to(self._device).eval()

    def make(self, unit: Unit) -> int:
        """Compute and write the features of a unit; return how many images it has."""
        data = self._config.data
        samples = self._kept.images(unit, data.image_size, data.order)
        starts = range(0, len(samples), BATCH)
        seen = [s for start in starts for s in self._looked_at(samples[start : start + BATCH])]
        self._kept.write(unit, seen)
        return len(seen)

    def _looked_at(self, samples: Sequence[Sample]) -> Iterator[Sample]:
        pixels = np.stack([sample.pixels for sample in samples])
        inputs = self._counter.encode(pixels, [s.category for s in samples], [0] * len(samples))
        trunk = next(iter(self._counter.trunks.values()))
        assert isinstance(trunk, Trunk)
        (looked,) = trunk.look([inputs])
        features = looked[FEATURES].cpu()
        if features.dtype == torch.bfloat16:
            features = features.view(torch.uint16)
        for sample, own in zip(samples, features.numpy(), strict=True):
            yield dataclasses.replace(sample, features=own)


def features_progress(
    config: Config, kept: KeptFeatures, on_event: OnEvent
) -> Callable[[int, int], None]:
    """Announce how many images are to be computed; return the callback for progress."""
    units = missing(config, kept)
    images = num_rows(units)
    if images:
        views = f"{config.data.views} views of an image"
        on_event(Note(f"Computing features of {images} pictures ({views}) into {kept.path}"))
    return lambda done, total: on_event(Step("Features", done, total))


def make_here(
    config: Config,
    kept: KeptFeatures,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Compute what is missing in this process.

    on_progress: called with images done and in all. ended: whether to end before the next unit.
    """
    units = missing(config, kept)
    total = num_rows(units)
    maker, done = FeatureMaker(config, kept), 0
    for unit in units:
        if ended():
            return
        on_progress(done, total)
        # another trial of a search may have made it meanwhile
        done += len(unit.rows) if kept.has(unit) else maker.make(unit)
