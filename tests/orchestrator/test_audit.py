"""The step that asks a service about vulnerabilities: what it makes of its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
AUDIT = CHECKOUT / ".ci" / "audit.py"
HOLE = {"id": "CVE-2026-1", "fix_versions": ["3.15"]}


def audited(tmp_path: Path, script: str, limit_s: str = "20") -> tuple[int, str]:
    """Exit status and words, where `pip-audit` is this shell script."""
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    done = subprocess.run(
        [sys.executable, str(AUDIT), "requirements.lock", limit_s],
        env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def answering(*packages: dict[str, Any]) -> str:
    return f"echo '{json.dumps({'dependencies': packages, 'fixes': []})}'"


def package(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "3.14"} | more


def test_what_is_found_fails_with_its_name(tmp_path: Path) -> None:
    """The package, the id and the version that mends it; what is unknown is counted."""
    answer = answering(package("aiohttp", vulns=[HOLE]), package("other", skip_reason="unknown"))
    status, said = audited(tmp_path, f"{answer}; exit 1")
    assert status == 1
    assert "aiohttp 3.14: CVE-2026-1; fixed in 3.15" in said
    assert "1 packages asked about, 1 unknown, 1 found" in said


def test_nothing_found_is_fine(tmp_path: Path) -> None:
    """And says how much was looked at."""
    status, said = audited(tmp_path, answering(package("aiohttp", vulns=[])))
    assert (status, "NOT POSSIBLE" in said) == (0, False)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'ConnectionError: no route' >&2; exit 1", "no route"),
        (answering(package("aiohttp", skip_reason="not found")), "knows none"),
        ("echo '<html>login</html>'", "ended with 0"),
        ("exec sleep 20", "no answer within 0.3 s"),
    ],
)
def test_where_nobody_could_be_asked_it_says_so(tmp_path: Path, script: str, why: str) -> None:
    """No network, a mirror without such answers, a page in between, a service that hangs."""
    status, said = audited(tmp_path, script, "0.3" if "sleep" in script else "20")
    assert status == 0
    assert "NOT POSSIBLE" in said
    assert why in said
