"""Processes that stay, for tests of several ranks: each takes 5 s to load torch and the rest."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist


def in_processes(function: Callable, world: int, *args: Any) -> None:
    """Run function(rank, world, *args) in as many gloo processes, 3 at the most."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        _process(rank).submit(_as_rank, rank, function, world, port, args) for rank in range(world)
    ]
    for done in as_completed(ranks):
        done.result()


@cache
def _process(rank: int) -> ProcessPoolExecutor:
    """Return the process of a rank: in that of another one, DTensor would take the other's part.

    It keeps meshes that compare equal, and with them the rank that they were made on (torch 2.13).
    """
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _as_rank(rank: int, function: Callable, world: int, port: int, args: tuple) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    timeout = timedelta(seconds=60)  # of a collective that not every rank has come to
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timeout)
    try:
        function(rank, world, *args)
    finally:
        dist.destroy_process_group()
