"""Look up the installed packages in a database of known vulnerabilities, by pip-audit.

    python .ci/audit.py [--ignore-vuln ID]...

Ends with exit code 1 if any package has a known vulnerability. Where the database cannot be
reached, or does not know a package, it says so and does not fail. Arguments are handed on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 300
COMMAND = [
    sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--skip-editable"
]  # fmt: skip


def audited() -> list[dict[str, Any]] | str:
    """Return what pip-audit says of each package, or why it says nothing."""
    try:
        done = subprocess.run(
            [*COMMAND, *sys.argv[1:]], capture_output=True, text=True, timeout=SECONDS
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        return packages
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS} s"
    except ValueError:
        return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"


def main() -> None:
    """Print the vulnerabilities, or that there are none, or that nobody knows."""
    packages = audited()
    if isinstance(packages, str):
        if "No module named pip_audit" in packages:
            raise SystemExit("audit: pip-audit is not installed; it is in raydual[dev]")
        print(f"audit: NOT audited, the source of vulnerabilities was not reached: {packages}")
        return
    known = [package for package in packages if "vulns" in package]
    if not known:
        print(f"audit: NOT audited, the source knows none of {len(packages)} packages")
        return
    print(f"audit: {len(known)} of {len(packages)} packages were looked up")
    found = [(package, vulnerability) for package in known for vulnerability in package["vulns"]]
    for package, vulnerability in found:
        versions = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        name = f"{package['name']} {package['version']}"
        print(f"audit: {name} has {vulnerability['id']}, fixed in {versions}")
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
