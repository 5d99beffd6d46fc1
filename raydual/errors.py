"""The errors a user can act on.

Each message says what was got, what was expected and what to do. The command line prints such
a message alone, without a traceback, and exits with `exit_code`.
"""

LONGEST = 900
"""Characters of a message on the terminal."""


def printable(message: str) -> str:
    """Return a message as one line, without the codes that move a terminal's cursor."""
    line = "".join(letter if letter.isprintable() else " " for letter in message)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


class RaydualError(Exception):
    """Something the user gave cannot be used; nothing has been started (exit code 2)."""

    exit_code = 2


class ConfigError(RaydualError):
    """A key or a value of the configuration is wrong."""


class DataError(RaydualError):
    """A dataset, an image or an annotation cannot be used."""


class CheckpointError(RaydualError):
    """A checkpoint is missing, incomplete or not raydual's."""


class StorageError(RaydualError):
    """A folder or a bucket could not be written or read, at last (exit code 1)."""

    exit_code = 1


class TrainingError(RaydualError):
    """A training that had started cannot go on (exit code 1)."""

    exit_code = 1


class EvaluationError(RaydualError):
    """An evaluation that had started cannot go on (exit code 1)."""

    exit_code = 1
