"""Storage that fails for a while is asked again; what will fail for ever is not."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import tenacity

from raydual.data.storage import first_line

T = TypeVar("T")

WAITS_S = (0.5, 1, 2, 4, 8, 16)
"""How long to wait before each further try."""

PERMANENT = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
HOPELESS = re.compile(
    "ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH"
    "|thrift|corrupt|end of stream|parquet",
    re.IGNORECASE,
)
"""What pyarrow says, without an errno, of a bucket that is not ours and of a damaged file."""


def patiently(action: Callable[[], T], on_wait: Callable[[str], None] = lambda text: None) -> T:
    """Return what `action` returns; while storage fails, try again after each of `WAITS_S`.

    action: may have run in part when it is run again. on_wait: is told why, and for how long.

    Raises:
        Exception: the last failure, or the first one that waiting does not mend.
    """

    def before_sleep(attempt: tenacity.RetryCallState) -> None:
        assert attempt.outcome is not None
        assert attempt.next_action is not None
        reason = storage_error(attempt.outcome.exception())
        wait = attempt.next_action.sleep
        on_wait(f"storage fails ({first_line(reason or OSError())}); once more in {wait:g} s")

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_chain(*(tenacity.wait_fixed(s) for s in WAITS_S)),
        stop=tenacity.stop_after_attempt(len(WAITS_S) + 1),
        before_sleep=before_sleep,
        reraise=True,
    )(action)


def storage_error(error: BaseException | None) -> OSError | None:
    """Find the failure of storage that an error stands for, or None.

    torch raises a RuntimeError while it handles the OSError; safetensors, and pyarrow by way of
    its buckets, have it in their text.
    """
    for seen in _behind(error):
        if isinstance(seen, OSError):
            return seen
        if found := re.search(r"\(os error (\d+)\)", str(seen)):
            return OSError(int(found[1]), str(seen))
    return None


def _may_pass(error: BaseException) -> bool:
    reason = storage_error(error)
    return (
        reason is not None
        and reason.errno not in PERMANENT
        and (reason.errno is not None or not HOPELESS.search(str(reason)))
    )


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
