"""Whether anybody answers at the address of a Ray cluster."""

from __future__ import annotations

import socket

from raydual.errors import ConfigError

ANSWER_S = 5.0


def check_answers(address: str, resolved: str | None) -> None:
    """Find out within seconds whether anybody listens; `ray.init` would try for minutes.

    address: as RAY_ADDRESS has it. resolved: the host and port that Ray makes of it, if any.

    Raises:
        ConfigError: nobody does.
    """
    host, _, port = (resolved or "").removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        shown = address if resolved == address else f"{address}, which is {resolved} to Ray"
        raise ConfigError(
            f"nobody answers at RAY_ADDRESS={shown}: {reason}; start that cluster, or unset "
            "RAY_ADDRESS to start Ray on this machine"
        ) from None
