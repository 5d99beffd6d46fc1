"""What `make check` says of vulnerabilities, for each answer that pip-audit has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit.py"
SOUND = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
BAD = {
    "name": "pillow",
    "version": "9.0",
    "vulns": [{"id": "CVE-1", "fix_versions": ["9.1", "10.0"], "aliases": [], "description": ""}],
}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([SOUND, SKIPPED], 0, "1 of 2 packages were looked up"),
        ([SOUND, BAD], 1, "pillow 9.0 has CVE-1, fixed in 9.1, 10.0"),
        ([SKIPPED], 0, "NOT audited, the source knows none of 1 packages"),
        (None, 0, "NOT audited, the source of vulnerabilities was not reached: ConnectionError"),
    ],
)
def test_audit(tmp_path: Path, packages: list | None, code: int, says: str) -> None:
    (tmp_path / "pip_audit").mkdir()
    answer = (
        "raise ConnectionError('no route')"
        if packages is None
        else f"print({json.dumps({'dependencies': packages})!r}); raise SystemExit({code})"
    )
    (tmp_path / "pip_audit" / "__init__.py").touch()
    (tmp_path / "pip_audit" / "__main__.py").write_text(answer)
    done = subprocess.run(
        [sys.executable, AUDIT], env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code
    assert says in done.stdout
