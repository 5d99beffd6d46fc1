"""Random numbers that depend on what they are for, never on worker, order or time."""

from __future__ import annotations

import hashlib

import numpy as np


def example_rng(seed: int, epoch: int, row: str, purpose: str) -> np.random.Generator:
    """Return the generator of one example: a function of its arguments alone.

    purpose: the name of an objective, or of what is done to the image itself.
    """
    key = f"{seed}/{epoch}/{purpose}/{row}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()))
