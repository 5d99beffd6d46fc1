"""Hold what so many trials would, all at the same time; print the type of each one's node.

python like_trials.py NUMBER CPUS GPUS
"""

from __future__ import annotations

import json
import os
import sys
import time

import ray


@ray.remote(num_cpus=0)
class Meeting:
    """Counts who is there."""

    def __init__(self) -> None:
        self.present = 0

    def come(self) -> None:
        self.present += 1

    def size(self) -> int:
        return self.present


@ray.remote
def trial(meeting: ray.actor.ActorHandle, number: int) -> tuple[str, str]:
    """Wait for the others; return the node and its type."""
    ray.get(meeting.come.remote())
    while ray.get(meeting.size.remote()) < number:
        time.sleep(0.2)
    return ray.get_runtime_context().get_node_id(), os.environ["RAY_NODE_TYPE_NAME"]


if __name__ == "__main__":
    number, cpus, gpus = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    ray.init(logging_level="ERROR", log_to_driver=False)
    meeting = Meeting.options(resources={"node:__internal_head__": 0.001}).remote()
    trials = [
        trial.options(num_cpus=cpus, num_gpus=gpus).remote(meeting, number) for _ in range(number)
    ]
    print(json.dumps(ray.get(trials)))
