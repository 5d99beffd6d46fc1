"""Keep secrets out of what is written down: a path that holds any is refused.

Paths are stored in config.yaml, shown in reports and sent to Weights & Biases. The clients of
buckets find their credentials themselves: in the environment, in a profile, in the role of the
machine.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

ADVICE = (
    "holds credentials, which would be written into config.yaml and reports; leave them out and "
    "give them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "GOOGLE_APPLICATION_CREDENTIALS), a profile or the role of the machine"
)

_USER_AND_PASSWORD = re.compile(r"//[^/?#@]*:[^@]*@")
"""Also where the password holds a slash or a question mark, as those of AWS may."""

_SECRET_OPTION = re.compile(
    r"[?&;][^=&]*(key|secret|token|password|passwd|signature|credential|sig)[^=&]*=", re.I
)


def has_credentials(path: str) -> bool:
    """Whether a path is a URI with a password, or with an option that is named like a secret."""
    if "://" not in path:
        return False
    return any(
        pattern.search(form)
        for form in (path, unquote(path))
        for pattern in (_USER_AND_PASSWORD, _SECRET_OPTION)
    )
