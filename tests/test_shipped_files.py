"""The files at the top level that users run as they are."""

from __future__ import annotations

import copy
import json
import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

from raydual.config import load
from raydual.training.capacity import check_fits

ROOT = Path(__file__).parents[1]


CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_cluster_file_is_what_ray_takes() -> None:
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = resources.files(ray.autoscaler) / "ray-schema.json"
    jsonschema.validate(CLUSTER, json.loads(schema.read_text()))
    validate_config(prepare_config(copy.deepcopy(CLUSTER)))


def test_cluster_has_a_head_without_gpu_and_types_that_grow_from_nothing() -> None:
    types = dict(CLUSTER["available_node_types"])
    head = types.pop(CLUSTER["head_node_type"])
    assert "GPU" not in head["resources"]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in types.values())
    assert sum(kind["max_workers"] for kind in types.values()) == CLUSTER["max_workers"]
    for spot in (name for name in types if name.endswith("_spot")):
        one, other = types[spot], types[spot.removesuffix("_spot")]
        assert one["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert one["priority"] > other.get("priority", 0)
        assert one["resources"] == other["resources"]
        assert one["node_config"]["InstanceType"] == other["node_config"]["InstanceType"]
    assert [name for name, kind in types.items() if "GPU" not in kind["resources"]] == ["data"]
    assert "," in CLUSTER["provider"]["availability_zone"]
    assert all((ROOT / path).exists() for path in CLUSTER["file_mounts"].values())


def test_documented_manifest_has_the_image_and_the_packages_of_the_shipped_files() -> None:
    """The blocks of YAML in docs/cluster.md are read as a user would copy them."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/cluster.md").read_text(), re.M | re.S)
    (job,) = map(yaml.safe_load, blocks)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    (image,) = {
        container["image"]
        for group in groups
        for container in group["template"]["spec"]["containers"]
    }
    assert image == CLUSTER["docker"]["image"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins
    assert f"ray:{cluster['rayVersion']}-" in image
    shipped = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["pip"] == shipped["pip"]
    keys = [word.partition("=")[::2] for word in job["spec"]["entrypoint"].split() if "=" in word]
    config = load(None, [f"{key}={value}" for key, value in keys])
    gpus = [group for group in groups if group.get("replicas", 0) >= config.scale.num_workers]
    assert len(gpus) == 1
    check_fits(config, [{"CPU": 3.0, "GPU": 1.0}] * gpus[0]["replicas"] + [{"CPU": 3.0}])


def test_runtime_env_is_what_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.runtime_env import RuntimeEnv

    monkeypatch.chdir(ROOT)
    given = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())
    assert RuntimeEnv(**given).pip_config()["packages"] == given["pip"]["packages"]


def test_pinned_versions_are_within_the_declared_ranges() -> None:
    import tomllib

    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert pins["torch"] == "2.13.0"
    assert pins["ray"] == "2.60.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, declared):
        pin = {name.lower(): version for name, version in pins.items()}[requirement.name.lower()]
        assert requirement.specifier.contains(pin), requirement
