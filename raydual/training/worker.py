"""What runs in each worker of Ray Train: one rank of the loop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.util.queue import Queue

from raydual.config import build
from raydual.data.stream import load_with_ray
from raydual.training.events import Event, Note, OnEvent, Step
from raydual.training.hooks import Request
from raydual.training.run import run_training

EVENTS_EVERY_S = 0.25


def train_worker(setup: dict[str, Any]) -> None:
    """Run one rank; Ray Train calls this in every worker."""
    context = ray.train.get_context()
    config = build(setup["config"])
    rank, ranks = context.get_world_rank(), context.get_world_size()
    desk, gate, on_event = setup["desk"], setup.get("gate"), _sender(setup["queue"])
    # Ray leaves the number unset, and each of several workers would take every core
    torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))

    watching = setup.get("on_stage") if rank == 0 else None
    with _stages(desk, rank, ranks, watching) as on_stage:
        for result in run_training(
            config,
            load_with_ray,
            ray.train.torch.get_device(),
            on_event,
            rank=rank,
            world_size=ranks,
            group=setup.get("group"),
            requested=_requests(desk, rank, on_event),
            on_stage=on_stage,
        ):
            ray.train.report({"epoch": result.epoch, **result.metrics})
            if gate is not None and not ray.get(gate.passes.remote(result.epoch)):
                return


@contextlib.contextmanager
def _stages(
    desk: Any, rank: int, ranks: int, watching: Callable[[str], None] | None
) -> Iterator[Callable[[str], None]]:
    """Yield what notes where this rank stands; a thread tells the desk, for that takes time.

    watching: called at once with each stage.
    """
    here, over = "", threading.Event()

    def tell() -> None:
        told = ""
        while not over.wait(EVENTS_EVERY_S):
            if here != told:
                told = here
                desk.enters.remote(rank, ranks, told)

    def on_stage(stage: str) -> None:
        nonlocal here
        here = stage
        if watching is not None:
            watching(stage)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield on_stage
    finally:
        over.set()


def _requests(desk: Any, rank: int, on_event: OnEvent) -> Callable[[], Request]:
    """Return what asks for a checkpoint when a node is about to be taken away, or for the end."""
    known: set[str] = set()

    def requested() -> Request:
        notice = ray.train.get_preemption_info()  # returns when every rank has asked
        if rank == 0 and ray.get(desk.end_asked.remote()):
            return Request.END
        if notice is None or known.issuperset(notice.preempted_node_ids):
            return Request.NOTHING
        known.update(notice.preempted_node_ids)
        ranks = ", ".join(map(str, notice.preempted_ranks))
        if rank == 0:
            what = f"the machine of rank {ranks} is about to be taken away"
            on_event(Note(f"⚠ {what}: saving, to go on elsewhere"))
        return Request.SAVE

    return requested


def _sender(queue: Queue) -> OnEvent:
    """Return what sends events to the driver; steps only a few times a second."""
    last = 0.0

    def send(event: Event) -> None:
        nonlocal last
        if isinstance(event, Step):
            now = time.monotonic()
            if now - last < EVENTS_EVERY_S and event.done:
                return
            last = now
        sent = queue.actor.put_nowait.remote(event)
        if not isinstance(event, Step):
            ray.get(sent)

    return send
