"""Why a training on Ray has failed, in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from raydual.config_tree import Config
from raydual.errors import RaydualError, TrainingError
from raydual.training.run_folder import RunFolder

LOST = re.compile(
    "Connection (closed|reset) by peer|Broken pipe|remote process exited", re.IGNORECASE
)
"""What gloo and NCCL say in a rank when another one is gone."""

NAMED = re.compile(r"[\w.]*(Error|Exception)\b")

TIMED_OUT = re.compile("time(d )?[- ]?out", re.IGNORECASE)
"""What gloo, NCCL and Ray Train say in a rank that has waited for another one."""

Stages = Mapping[int, tuple[str, float]]
"""By rank: where it is, and for how many seconds."""


def first_cause(
    failures: Mapping[int, BaseException], error: Exception, stages: Stages, config: Config
) -> RaydualError:
    """Find raydual's own error in what the workers raised; keep any other in error.txt.

    failures: what workers raised, by rank; error: what Ray Train made of it.
    """
    for failure in [*failures.values(), getattr(error, "controller_failure", None)]:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, RaydualError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    folder = RunFolder(config.run.storage, str(config.run.name))
    folder.write("error.txt", str(error).encode())
    reason = why(failures or {0: error}, stages, config.scale.timeout_s)
    return TrainingError(f"the training failed: {reason}; see {folder.path}/error.txt")


def hang(failures: Mapping[int, BaseException], stages: Stages, timeout_s: float) -> str | None:
    """Say which rank the others have waited for in vain, or None if none says that it timed out.

    It is the one that has not moved for longest, and has not complained: those that wait for it
    give up after `timeout_s`.
    """
    still = {rank: age for rank, (_, age) in stages.items() if age >= timeout_s}
    if not still or not any(TIMED_OUT.search(str(failure)) for failure in failures.values()):
        return None
    rank = max(still, key=lambda r: (r not in failures, still[r]))
    return (
        f"rank {rank} hangs: it has been at {stages[rank][0]} for {still[rank]:.0f} s, and the "
        f"others gave up waiting after scale.timeout_s={timeout_s:g}; look at its machine and its "
        "data, then go on with `raydual train --resume`"
    )


def stuck(stages: Stages, timeout_s: float) -> list[str]:
    """Say of each rank that has not moved for `timeout_s` where it is: a lone one fails nobody."""
    return [
        f"rank {rank} has been at {stage} for {age:.0f} s"
        for rank, (stage, age) in stages.items()
        if age >= timeout_s
    ]


def why(failures: Mapping[int, BaseException], stages: Stages, timeout_s: float) -> str:
    """Return what the workers have failed of, on one line.

    A rank that only lost its connection to another is not the one that failed.
    """
    first = sorted(failures, key=lambda rank: bool(LOST.search(str(failures[rank]))))[0]
    return hang(failures, stages, timeout_s) or f"rank {first}: {gist(failures[first])}"


def gist(failure: BaseException) -> str:
    """Return the last line that names an error, as `RuntimeError: ...`, or else the last one."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    named = [line for line in lines if NAMED.match(line)]
    return (named or lines or [type(failure).__name__])[-1]
