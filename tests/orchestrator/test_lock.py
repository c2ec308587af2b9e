"""The lock file: what a reproducible installation takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
ENTRIES = re.split(
    r"\n(?=\S)", (CHECKOUT / "config" / "requirements.lock").read_text("utf-8").strip()
)
LOCKED = [entry for entry in ENTRIES if not entry.startswith("#")]


def locked() -> dict[str, list[str]]:
    """Name to the versions of it: several where they depend on the Python."""
    found: dict[str, list[str]] = {}
    for entry in LOCKED:
        name, version = re.match(r"(\S+)==([^\s;\\]+)", entry).groups()  # type: ignore[union-attr]
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def test_every_dependency_of_the_core_is_locked_to_what_it_may_be() -> None:
    """A dependency that is added or raised without `make lock` is found here."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = locked()
    for text in project["dependencies"]:
        wanted = Requirement(text)
        for version in versions[canonicalize_name(wanted.name)]:
            assert wanted.specifier.contains(version), f"{text}: {version} is locked; make lock"


def test_every_file_is_checked_by_its_hash() -> None:
    """An entry without a hash would be any file of that name."""
    for entry in LOCKED:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
        assert "://" not in entry
        assert " @ " not in entry
