"""The real thing: a TorchTrainer with two workers, fed by Ray Data, on a cluster here."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray._private.state import actors

from raydual.data.loading import Preparation, load_here
from raydual.data.plan import Unit, read_index
from raydual.data.stream import load_with_ray
from raydual.errors import ConfigError, TrainingError
from raydual.model.counter import DualTaskCounter
from raydual.training.capacity import check_fits
from raydual.training.events import EpochResult, Note, Step
from raydual.training.launch import launch, resumed
from raydual.training.trainer import run_on_ray


@pytest.mark.parametrize("augment", [None, (3, 1)])
def test_ray_data_gives_the_same_samples_in_the_same_order(
    cluster: None, dataset: str, augment: tuple[int, int] | None
) -> None:
    units = read_index(dataset, "train")
    units.append(Unit(units[0].shard, units[0].row_group, units[0].rows[5:1:-1]))
    preparation = Preparation(48, "reading_order", augment)
    here, streamed = list(load_here(units, preparation)), list(load_with_ray(units, preparation))
    assert [s.id for s in streamed] == [s.id for s in here]
    for one, other in zip(here, streamed, strict=True):
        assert (one.pixels == other.pixels).all()
        assert (one.points == other.points).all()
        assert (one.category, one.error, one.size) == (other.category, other.error, other.size)


def test_a_fit_with_two_workers_and_its_resumption(cluster: None, small: Callable) -> None:
    """In parts, where a rank that does not take part in a pass would hold up the others."""
    own = ("scale.num_workers=2", "scale.cpus_per_worker=0.5", "scale.strategy=fsdp")
    own += ("train.checkpoint_every=2", "train.count_every=1")
    config = small(*own, "train.epochs=1", "run.name=two")
    events: list = []
    launch(config, events.append)
    (result,) = [e for e in events if isinstance(e, EpochResult)]
    assert result.improved == ["coord", "done"]
    assert any(isinstance(e, Step) for e in events)
    folder = Path(config.run.storage) / "two"
    model = DualTaskCounter.from_pretrained(folder / "latest_checkpoint")
    assert model.config.scale.num_workers == 2
    assert (folder / "samples" / "epoch_0001.png").is_file()

    launch(resumed(str(folder), None, ["train.epochs=2"]), events.append)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[0]["val/loss_coord"] == result.metrics["val/loss_coord"]


def test_an_error_in_a_worker_arrives_as_one_line(cluster: None, small: Callable) -> None:
    config = small(
        "scale.num_workers=2", "scale.cpus_per_worker=0.5", "coord.lr=1e30", "coord.warmup=0"
    )
    with pytest.raises(TrainingError, match=r"^loss_(coord|done) is not finite in epoch 1, "):
        launch(config, lambda event: None)


DIE_ONCE = """
import os, pathlib, signal
here, mark = pathlib.Path("/proc/self/cmdline").read_text(), pathlib.Path({mark!r})
if "RayTrainWorker" in here and not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


class DiesOnArrival:
    """Kills the first worker that receives it: a node that goes while workers start does so."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return exec, (DIE_ONCE.format(mark=str(self.mark)),)

    def __call__(self, stage: str) -> None:
        """Never called: what arrives is what exec returns."""


def kill_the_next_worker() -> None:
    """Kill a worker as soon as it has started: it has yet to join the others.

    Before that, Ray itself would start it again; one of an earlier training may still be there.
    """
    earlier = set(living_workers())

    def wait_and_kill() -> None:
        while not (new := [pid for pid in living_workers() if pid not in earlier]):
            time.sleep(0.02)
        os.kill(new[0], signal.SIGKILL)

    threading.Thread(target=wait_and_kill, daemon=True).start()


def living_workers() -> list[int]:
    """Return the process of every worker of Ray Train that has started and has not ended."""
    alive = actors(actor_state_name="ALIVE").values()
    return [a["Pid"] for a in alive if a["ActorClassName"] == "RayTrainWorker"]


@pytest.mark.parametrize("before", ["it joins the others", "it begins to train"])
def test_a_worker_lost_while_workers_start_costs_a_restart(
    cluster: None, small: Callable, tmp_path: Path, before: str
) -> None:
    """And leaves room for the next one: this cluster holds one worker, and Ray Data."""
    own = ("scale.num_workers=1", "scale.cpus_per_worker=1", "train.epochs=1")
    config = small(*own, "run.max_failures=1")
    events: list = []
    dies = None
    if before == "it joins the others":
        kill_the_next_worker()
    else:
        dies = DiesOnArrival(tmp_path / "died")
    run_on_ray(config, events.append, on_stage=dies)
    assert [e.epoch for e in events if isinstance(e, EpochResult)] == [1]
    (note,) = [e.text for e in events if isinstance(e, Note) and "starting again" in e.text]
    assert note.startswith(
        "⚠ starting again, 0 restart(s) left: a worker was lost while workers started: "
    )


def test_workers_that_never_start_end_a_training_without_restarts(
    cluster: None, small: Callable
) -> None:
    config = small("scale.num_workers=1", "scale.cpus_per_worker=1", "train.epochs=1")
    kill_the_next_worker()
    with pytest.raises(TrainingError, match=r"lost while workers started: .*; no restart is left"):
        run_on_ray(config, lambda event: None)


def test_more_workers_than_the_cluster_holds_is_an_error_with_the_arithmetic(
    small: Callable,
) -> None:
    config = small("scale.num_workers=2", "scale.cpus_per_worker=1")
    with pytest.raises(ConfigError, match=r"2 x .*=1 \+ 1 for Ray Data = 3 CPUs, .* has 2"):
        check_fits(config, [{"CPU": 2.0}])
    check_fits(config, [{"CPU": 3.0}])
    with pytest.raises(ConfigError, match=r"4 on 4 node.*at most scale.num_workers=0"):
        check_fits(small("scale.num_workers=1", "scale.cpus_per_worker=2"), [{"CPU": 1.0}] * 4)
    gpu = small("scale.num_workers=2", "scale.use_gpu=true", "scale.cpus_per_worker=0.5")
    with pytest.raises(ConfigError, match=r"2 GPU.*has 1"):
        check_fits(gpu, [{"CPU": 4.0, "GPU": 1.0}])


def test_elastic_workers_leave_room_for_ray_data_on_every_node(small: Callable) -> None:
    nodes = [{"CPU": 2.0}, {"CPU": 4.0}]
    check_fits(small("scale.num_workers=[1,3]", "scale.cpus_per_worker=1.5"), nodes)
    with pytest.raises(ConfigError, match=r"takes 2 x .*=1 of a node of 2 CPUs.*=0\.75 at most"):
        check_fits(small("scale.num_workers=[1,3]", "scale.cpus_per_worker=1"), nodes)
    gpus = [{"CPU": 4.0, "GPU": 1.0}] * 2
    own = ("scale.use_gpu=true", "scale.cpus_per_worker=2")
    check_fits(small("scale.num_workers=[1,2]", *own), gpus)
