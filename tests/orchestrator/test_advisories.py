"""Known vulnerabilities: none in what is locked, allowed or tested, as far as is known here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).parents[2]
LIST = CHECKOUT / "config" / "advisories.toml"


@dataclass(frozen=True, slots=True)
class Advisory:
    """An entry of the list."""

    package: str
    affected: SpecifierSet
    ids: tuple[str, ...]
    what: str
    source: str
    unaffected: str = ""

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Advisory:
        return cls(
            canonicalize_name(entry["package"]),
            SpecifierSet(entry["affected"], prereleases=True),
            tuple(entry["id"]),
            entry["what"],
            entry["source"],
            entry.get("unaffected", ""),
        )

    def concerns(self, package: str, version: Version | None) -> bool:
        """This version has it; None is a version that nobody has bounded."""
        if self.package != canonicalize_name(package) or self.unaffected:
            return False
        # `2.13.0+cpu` is 2.13.0, built differently.
        return version is None or self.affected.contains(version.public)


ADVISORIES = [Advisory.of(each) for each in tomllib.loads(LIST.read_text("utf-8"))["advisory"]]

Pinned = tuple[str, Version | None]


def found(pinned: Iterable[Pinned]) -> list[str]:
    """What is wrong with these versions, in words."""
    return [
        f"{package} {version or 'of any version'}: {', '.join(each.ids)}: {each.what}"
        for package, version in pinned
        for each in ADVISORIES
        if each.concerns(package, version)
    ]


def locked() -> Iterator[Pinned]:
    """Every version of the lock file."""
    text = (CHECKOUT / "config" / "requirements.lock").read_text("utf-8")
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE):
        yield name, Version(version)


def lowest(requirement: str) -> Pinned:
    """The lowest version that a requirement allows; None where it bounds none."""
    wanted = Requirement(requirement)
    bounds = [Version(each.version) for each in wanted.specifier if each.operator in (">=", "==")]
    return wanted.name, max(bounds, default=None)


def allowed() -> Iterator[Pinned]:
    """The lowest versions that an installation may come to."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    for requirements in (
        project["build-system"]["requires"], project["project"]["dependencies"], *extras, *groups
    ):  # fmt: skip
        yield from (lowest(each) for each in requirements)
    for file in ("Makefile", "config/container/Dockerfile"):
        text = (CHECKOUT / file).read_text("utf-8")
        yield from (lowest(each) for each in re.findall(r'"([\w.-]+>=[\w.]+)"', text))


def test_nothing_that_is_locked_is_known_to_be_vulnerable() -> None:
    """A reproducible installation reproduces no known hole; `make lock` takes newer ones."""
    assert found(locked()) == []


def test_nothing_that_may_be_installed_is_known_to_be_vulnerable() -> None:
    """The lower bounds leave known holes out, in pyproject.toml and where pip is called by hand."""
    pinned = list(allowed())
    assert {"aiohttp", "torch", "pip", "hatchling", "pillow", "av"} <= {name for name, _ in pinned}
    assert found(pinned) == []


def test_nothing_that_these_tests_run_with_is_known_to_be_vulnerable() -> None:
    """What others bring along is no part of the lock file where it belongs to an extra."""
    assert found((each.name, Version(each.version)) for each in distributions()) == []


@pytest.mark.parametrize(
    ("pinned", "advisory"),
    [
        (("aiohttp", Version("3.14.3")), "GHSA-2g87-pp6c-29x5"),
        (("Pillow", Version("12.2.0")), "PYSEC-2026-2253"),
        (("torch", Version("2.9.1+cu130")), "CVE-2026-24747"),
        (lowest("av>=15,<20"), "CVE-2026-40962"),
        (lowest("aiohttp"), "CVE-2026-22815"),
        (lowest("opencv_python_headless>=4.10"), "CVE-2025-53644"),
    ],
)
def test_what_is_vulnerable_would_be_found(pinned: Pinned, advisory: str) -> None:
    """Locked, bounded too low, built differently, spelt differently, or not bounded at all."""
    assert advisory in " ".join(found([pinned]))


def test_the_list_says_where_it_comes_from() -> None:
    """Each entry has a range that ends, an id, words and an address; none is there twice."""
    for each in ADVISORIES:
        assert any(part.operator in ("<", "<=") for part in each.affected), each
        assert each.ids
        assert all(re.fullmatch(r"(CVE|GHSA|PYSEC)-[\w-]+", name) for name in each.ids), each
        assert each.what
        assert each.source.startswith("https://")
    names = [(each.package, name) for each in ADVISORIES for name in each.ids]
    assert len(names) == len(set(names))
