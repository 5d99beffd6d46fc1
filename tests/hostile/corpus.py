"""Every hostile input."""

from tests.hostile import checkpoints, images, parquet, settings, sources

CORPUS = [
    case for module in (images, parquet, sources, settings, checkpoints) for case in module.CASES
]
