"""A Ray head as a child process, on loopback alone, that leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))

OPEN = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
"""For a head that other nodes join: Ray lets none join on loopback, even from the same machine."""


@dataclass(frozen=True)
class Head:
    """A head that runs: where it answers, and the environment in which commands reach it."""

    process: psutil.Process
    address: str
    dashboard: str
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command against it; stdout and stderr come together."""
        return subprocess.run(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def head(*options: str, port: int | None = None, **variables: str) -> Iterator[Head]:
    """Start `ray start --head --block`; when the block ends, so does every process under it."""
    port, dashboard = port or free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="rd-", dir="/tmp")  # short: sockets have paths of 107 bytes
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own.pop("PYTHONPATH", None)
    environment = {
        **own,
        "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",  # a job's `python` is this one
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on 127.0.0.1, as raydual's own does
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # not behind everything else on this machine
        "RAY_memory_monitor_refresh_ms": "0",  # other programs may fill the memory of this machine
        **variables,
    }
    command = [
        RAY, "start", "--head", "--block", f"--port={port}", f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}",
        f"--object-store-memory={200 * 2**20}", *options,
    ]  # fmt: skip
    with open(f"{folder}/said", "w") as said:
        child = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=folder)
    process = psutil.Process(child.pid)
    found = Head(process, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
    try:
        _wait_until_it_answers(found, Path(folder) / "said")
        yield found
    finally:
        end(process)
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def node(head: Head, cpus: int) -> Iterator[str]:
    """Add a node of this machine to a head's cluster, as long as the block lasts; yield its id.

    The head has to have been started `OPEN`.
    """
    name = secrets.token_hex(28)
    command = [
        RAY, "start", "--block", f"--address={head.address}", f"--num-cpus={cpus}",
        f"--object-store-memory={100 * 2**20}",
    ]  # fmt: skip
    own = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": name}
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, env=head.environment | own, stdout=said, stderr=said)
        process = psutil.Process(child.pid)
        try:
            while not any(n["node_id"] == name for n in listed(head, "nodes")):
                if child.poll() is not None:
                    said.seek(0)
                    raise AssertionError(f"the node has ended:\n{said.read()}")
                time.sleep(0.2)
            yield name
        finally:
            end(process)
            child.wait()


def listed(head: Head, what: str) -> list[dict]:
    """Return what `ray list` says, with what is gone by now."""
    done = head.run(
        RAY, "list", what, f"--address={head.dashboard}", "--detail", "--format=json",
        "--limit=1000",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    start = done.stdout.find("[")
    return json.loads(done.stdout[start:]) if start >= 0 else []


def end(process: psutil.Process) -> None:
    """End a process and all below it, by their ids; what does not go within 10 s is killed."""
    family = [process, *process.children(recursive=True)] if process.is_running() else []
    for signal in ("terminate", "kill"):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                family += [p for p in member.children(recursive=True) if p not in family]
                getattr(member, signal)()
        _, family = psutil.wait_procs(family, timeout=10)
    assert not family, f"still there: {family}"


def listening(process: psutil.Process) -> dict[tuple[str, int], str]:
    """Return where a process and all below it listen, each address with the process's name."""
    found = {}
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in member.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found[tuple(connection.laddr)] = member.name()
    return found


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_until_it_answers(head: Head, said: Path) -> None:
    for _ in range(1800):
        if "Ray runtime started" in said.read_text():
            return
        assert head.process.is_running(), said.read_text()
        time.sleep(0.1)
    raise AssertionError(f"no head within three minutes:\n{said.read_text()}")
