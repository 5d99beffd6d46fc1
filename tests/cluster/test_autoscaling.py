"""cluster.yaml on this host: trials that wait make the cluster grow, idling makes it shrink.

Ray's own autoscaler reads the file, with its node types, limits and priorities; a provider that
starts nodes as processes stands in for AWS. All CPUs are a quarter of the file's, and the idle
timeout is 10 s. GPUs are numbers here: what needs one holds it and computes nothing, while the
trials of a search on CPUs are real.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from raydual.tuning.resources import needs
from raydual.tuning.space import build_search
from tests.cluster.heads import Head, free_port, head, listed

pytestmark = pytest.mark.slow

CLUSTER = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text())
TYPES = CLUSTER["available_node_types"]
HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"  # the name that the provider gives its head
CPUS_ARE, IDLE_S, OBJECT_STORE = 4, 10, 80 * 2**20


def on_this_host(port: int) -> dict:
    """Return cluster.yaml for the provider of processes, whose head is at a port."""
    types = {}
    for name, kind in TYPES.items():
        cpus, rest = divmod(kind["resources"]["CPU"], CPUS_ARE)
        assert not rest, f"{name}: {CPUS_ARE} does not divide its CPUs"
        scaled = {"CPU": cpus, "object_store_memory": OBJECT_STORE}
        name = HEAD_TYPE if name == CLUSTER["head_node_type"] else name
        types[name] = kind | {"resources": kind["resources"] | scaled, "node_config": {}}
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "launch_multiple": True,
        "head_node_id": HEAD_ID,
        "gcs_address": f"127.0.0.1:{port}",
    }
    kept = {key: CLUSTER[key] for key in ("cluster_name", "max_workers", "upscaling_speed")}
    commands = [f"{part}setup_commands" for part in ("", "head_", "worker_")]
    commands += ["initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"]
    return kept | {
        **{key: [] for key in (*commands, "cluster_synced_files")},
        "file_mounts": {},
        "auth": {},
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": provider,
        "available_node_types": types,
        "head_node_type": HEAD_TYPE,
    }


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    port = free_port()
    file = tmp_path_factory.mktemp("growing") / "cluster.yaml"
    file.write_text(yaml.safe_dump(on_this_host(port)))
    cpus = TYPES[CLUSTER["head_node_type"]]["resources"]["CPU"] // CPUS_ARE
    with head(
        f"--num-cpus={cpus}",
        "--num-gpus=0",
        f"--autoscaling-config={file}",
        port=port,
        RAY_FAKE_CLUSTER="1",
        RAY_enable_autoscaler_v2="1",
        RAY_CLOUD_INSTANCE_ID=HEAD_ID,
        RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_ID,
        RAY_NODE_TYPE_NAME=HEAD_TYPE,
        AUTOSCALER_UPDATE_INTERVAL_S="1",
    ) as found:
        found.environment["RAY_ADDRESS"] = found.address
        yield found


def wait_until_alone(head: Head) -> None:
    """Wait until no node is left beside the head."""
    for _ in range(60):
        alive = [node for node in listed(head, "nodes") if node["state"] == "ALIVE"]
        if [node["is_head_node"] for node in alive] == [True]:
            return
        time.sleep(1)
    raise AssertionError(f"still there: {alive}")


def new_nodes(head: Head, before: set[str]) -> dict[str, dict]:
    return {n["node_id"]: n for n in listed(head, "nodes") if n["node_id"] not in before}


def test_waiting_gpu_trials_bring_nodes_within_the_limits_spot_first_and_idle_ones_go(
    growing: Head, small: Callable
) -> None:
    search = build_search({"space": {"coord.lr": {"choice": [1e-4, 1e-3]}}, "searcher": "grid"})
    config = small("scale.num_workers=1", "scale.use_gpu=true", "scale.cpus_per_worker=1")
    held = needs(search, config)
    limits = {kind: TYPES[kind]["max_workers"] for kind in TYPES if kind.startswith("gpu")}
    gpus = {kind: TYPES[kind]["resources"]["GPU"] for kind in limits}
    trials = 1 + sum(limits[kind] * gpus[kind] for kind in ("gpu_spot", "gpu4_spot"))
    script = str(Path(__file__).with_name("like_trials.py"))
    done = growing.run(sys.executable, script, str(trials), str(held["CPU"]), str(held["GPU"]))
    assert done.returncode == 0, done.stdout
    landed = [tuple(pair) for pair in json.loads(done.stdout.splitlines()[-1])]
    assert new_nodes(growing, {HEAD_ID}).keys() == {node for node, _ in landed}
    brought = Counter(kind for _, kind in set(landed))
    assert all(count <= limits[kind] for kind, count in brought.items()), brought
    for kind in ("gpu", "gpu4"):  # more than spot nodes have room for
        assert not brought[kind] or brought[f"{kind}_spot"] == limits[f"{kind}_spot"], brought
    assert brought["gpu"] + brought["gpu4"] > 0
    wait_until_alone(growing)


def test_the_trials_of_a_search_bring_a_cpu_node_each(
    growing: Head, dataset: str, tmp_path: Path
) -> None:
    cpus = TYPES["data"]["resources"]["CPU"] // CPUS_ARE
    values = {
        "data.path": dataset,
        "run.storage": tmp_path,
        "run.name": "s",
        "data.image_size": 48,
        "train.batch_size": 4,
        "train.epochs": 1,
        "train.max_iterations": 2,
        "train.max_val_batches": 1,
        "train.count_every": 0,
        "log.wandb": "disabled",
        "log.images": 0,
        "scale.num_workers": 1,
        "scale.cpus_per_worker": cpus,
    }
    file = tmp_path / "search.yaml"
    space = {"coord.lr": {"choice": [1e-4, 1e-3]}}
    file.write_text(yaml.safe_dump({"space": space, "searcher": "grid"}))
    before = {HEAD_ID, *(node["node_id"] for node in listed(growing, "nodes"))}
    done = growing.run(
        sys.executable, "-m", "raydual", "tune", str(file),
        *(f"{key}={value}" for key, value in values.items()),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "s" / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["finished", "finished"]
    new = new_nodes(growing, before)
    assert {node["resources_total"]["CPU"] for node in new.values()} == {cpus}
    assert not any("GPU" in node["resources_total"] for node in new.values())
    actors = listed(growing, "actors")
    trials = [actor for actor in actors if "ResourceTrainable" in actor["class_name"]]
    assert len(trials) == len(new) == 2, actors
    assert {actor["node_id"] for actor in trials} == new.keys()
    wait_until_alone(growing)
