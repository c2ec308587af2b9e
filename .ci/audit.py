"""Ask a service about known vulnerabilities of what is locked, where it can be reached at all.

Ends with 1 only where something was found. Without a network, without pip-audit, or with a service
that does not know the packages or takes too long, it says so and ends with 0: what is known in
config/advisories.toml is looked for by the suite, which needs nobody.

usage: audit.py LOCK_FILE [SECONDS]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

SOCKET_S = 5


def main(lock: str, limit_s: float = 30.0) -> int:
    """Ask once; returns the exit status."""
    tool = shutil.which("pip-audit")
    if tool is None:
        return _not_possible("pip-audit is not installed")
    command = [tool, "--requirement", lock, "--require-hashes", "--disable-pip", "--format=json"]
    command += ["--progress-spinner=off", f"--timeout={SOCKET_S}"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, check=False
        )
        looked_at: list[dict[str, Any]] = json.loads(asked.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return _not_possible(f"no answer within {limit_s:g} s")
    except (ValueError, KeyError, TypeError):
        last = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _not_possible(f"pip-audit ended with {asked.returncode}: {last[:200]}")
    return _judged(looked_at)


def _judged(looked_at: list[dict[str, Any]]) -> int:
    known = [each for each in looked_at if "skip_reason" not in each]
    if not known:
        return _not_possible("the service knows none of the packages")
    found = [(each, hole) for each in known for hole in each.get("vulns", [])]
    for each, hole in found:
        fixed = ", ".join(hole.get("fix_versions", [])) or "nothing yet"
        _say(f"{each['name']} {each['version']}: {hole['id']}; fixed in {fixed}")
    unknown = len(looked_at) - len(known)
    _say(f"{len(known)} packages asked about, {unknown} unknown, {len(found)} found")
    return 1 if found else 0


def _say(text: str) -> None:
    sys.stdout.write(f"audit: {text}\n")


def _not_possible(why: str) -> int:
    _say(f"NOT POSSIBLE, nothing was asked: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:3])))
