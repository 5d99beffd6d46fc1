"""Pass the notice of a spot machine on to Ray: `python -m raydual.spot HEAD:6379`, on the machine.

AWS says two minutes ahead that it takes a spot machine away, in the machine's metadata
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html), where
Ray 2.60 does not look. Told by `ray drain-node`, it places nothing more there, and a training saves
a checkpoint. cluster.yaml starts this on every worker; elsewhere than on spot it waits for ever.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Annotated

import psutil
import typer

METADATA = "http://169.254.169.254"
POLL_S = 5.0
MARGIN_S = 20.0
"""Ray is told to be gone so much earlier: a node that shuts down by itself would be a failure."""

ANSWER_S = 2.0


def notice(metadata: str = METADATA) -> datetime | None:
    """Return when this machine will be taken away, or None where nothing is announced.

    Raises:
        OSError: nobody answers at `metadata`; not on AWS.
    """
    token = _ask(
        f"{metadata}/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    path = f"{metadata}/latest/meta-data/spot/instance-action"
    try:
        action = json.loads(_ask(path, "GET", {"X-aws-ec2-metadata-token": token}))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return datetime.fromisoformat(action["time"])


def node_here() -> str:
    """Return the id of the one Ray node on this machine, from the command line of its raylet.

    Raises:
        LookupError: there is none.
    """
    for process in psutil.process_iter(["cmdline"]):
        for argument in process.info["cmdline"] or ():
            if argument.startswith("--node_id="):
                return str(argument.partition("=")[2])
    raise LookupError("no Ray node runs on this machine")


def main(
    address: Annotated[str, typer.Argument(help="of Ray's head, as HOST:6379")],
    node: Annotated[str, typer.Argument(help="the id of the node; that of this machine")] = "",
    metadata: Annotated[str, typer.Option(help="where AWS answers")] = METADATA,
) -> None:
    """Wait for the notice that this spot machine will be taken away, and tell Ray."""
    while (until := _patient_notice(metadata)) is None:
        time.sleep(POLL_S)
    node = node or node_here()
    while not _told(address, node, until):
        if datetime.now(UTC) >= until:
            raise typer.Exit(1)
        time.sleep(POLL_S)


def _told(address: str, node: str, until: datetime) -> bool:
    """Whether Ray has taken the word that the node ends."""
    left = max(0, int((until - datetime.now(UTC)).total_seconds() - MARGIN_S))
    done = subprocess.run(
        [
            "ray", "drain-node", f"--address={address}", f"--node-id={node}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=its spot machine ends",
            f"--deadline-remaining-seconds={left}",
        ]
    )  # fmt: skip
    return done.returncode == 0


def _patient_notice(metadata: str) -> datetime | None:
    try:
        return notice(metadata)
    except (OSError, ValueError):  # an HTTPError is an OSError
        return None


def _ask(url: str, method: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        content: bytes = answer.read()
    return content.decode()


if __name__ == "__main__":
    typer.run(main)
