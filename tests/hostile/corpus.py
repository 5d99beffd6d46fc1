"""Every hostile input."""

from tests.hostile import checkpoints, images, parquet, runs, settings, sources

MODULES = (images, parquet, sources, settings, checkpoints, runs)
CORPUS = [case for module in MODULES for case in module.CASES]
