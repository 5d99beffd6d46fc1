"""A spot machine's notice, from the metadata service to the command that tells Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from raydual.spot import MARGIN_S, node_here, notice
from tests.cluster.metadata import metadata_service


def test_there_is_no_notice_until_there_is() -> None:
    with metadata_service() as service:
        assert notice(service.url) is None
        service.end = "2026-11-27T08:22:00Z"
        assert notice(service.url) == datetime(2026, 11, 27, 8, 22, tzinfo=UTC)


def test_ray_is_told_of_the_node_and_of_the_seconds_that_are_left(tmp_path: Path) -> None:
    """And told again where it has not answered."""
    stand_in = tmp_path / "ray"
    once = f"[ -e {tmp_path}/asked ] || {{ touch {tmp_path}/asked; exit 1; }}"
    stand_in.write_text(f'#!/bin/sh\n{once}\necho "$@" > {tmp_path}/told\n')
    stand_in.chmod(0o755)
    with metadata_service() as service:
        service.end = f"{datetime.now(UTC) + timedelta(seconds=120):%Y-%m-%dT%H:%M:%SZ}"
        subprocess.run(
            [sys.executable, "-m", "raydual.spot", "head:6379", "ab12", "--metadata", service.url],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            check=True,
        )
    *told, left = (tmp_path / "told").read_text().split("=")
    assert "=".join(told).startswith(
        "drain-node --address=head:6379 --node-id=ab12 --reason=DRAIN_NODE_REASON_PREEMPTION"
    )
    assert 40 < int(left) <= 120 - MARGIN_S


def test_the_node_of_this_machine_is_found_by_its_raylet(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [None, ["python", "agent.py"], ["raylet/raylet", "--port=0", "--node_id=ab12"]]
    running = [SimpleNamespace(info={"cmdline": line}) for line in lines]
    monkeypatch.setattr("psutil.process_iter", lambda attributes: running)
    assert node_here() == "ab12"


def test_a_machine_without_a_node_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.process_iter", lambda attributes: [])
    with pytest.raises(LookupError, match="no Ray node"):
        node_here()
