"""What a cluster may grow to, and where one that is started here answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml

from raydual.training.cluster import largest_cluster


def test_the_largest_cluster_is_what_there_is_and_what_may_be_added(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [
        {"Alive": True, "Resources": {"CPU": 2.0, "node:__internal_head__": 1.0}},
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 7e9}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: there)
    assert [node["CPU"] for node in largest_cluster()] == [2.0, 4.0]

    gpu = {"CPU": 4, "GPU": 1, "memory": 8 * 10**9}
    types = {
        "gpu": {"resources": gpu, "max_workers": 2},
        "spot": {"resources": gpu, "max_workers": 1},
        "head": {"resources": {"CPU": 2}},
        "big": {"resources": {"CPU": 9}, "max_workers": 1},
    }
    file = tmp_path / "autoscaling.yaml"
    file.write_text(yaml.safe_dump({"available_node_types": types}))
    address = ray.get_runtime_context().gcs_address
    # an autoscaler's command line is all of it that is looked at
    autoscaler = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "input()",
            f"--autoscaling-config={file}",
            f"--gcs-address={address}",
        ],
        stdin=subprocess.PIPE,
    )
    try:
        nodes = sorted((node["CPU"], node.get("GPU", 0)) for node in largest_cluster())
    finally:
        autoscaler.communicate(b"\n", timeout=60)
    assert nodes == [(2, 0), (4, 1), (4, 1), (4, 1), (9, 0)]
