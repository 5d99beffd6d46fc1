"""The files at the top level that users run as they are."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_cluster_file_is_what_ray_takes() -> None:
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    schema = resources.files(ray.autoscaler) / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
    validate_config(prepare_config(config))


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
