"""The software: versions, packages, and what looks wrong about them but is not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from typing import Final

from orchestrator import __version__
from orchestrator.doctor.patient import Patient
from orchestrator.doctor.report import Diagnosis
from orchestrator.renderers import INSTALL, PACKAGES

DISTRIBUTION: Final = "avatar-orchestrator"
PYTHONS: Final = ((3, 11), (3, 13))
REINSTALL: Final = "install the package anew into its virtual environment: pip install --upgrade ."


def look(patient: Patient) -> Iterator[Diagnosis]:
    """Versions, and packages that are there or missing."""
    yield Diagnosis("ok", "version", f"avatar-orchestrator {__version__}")
    yield _python()
    yield Diagnosis("ok", "system", f"{_system()}, {platform.machine()}")
    libc = " ".join(platform.libc_ver()).strip() or "unknown C library"
    yield Diagnosis("ok", "kernel", f"{platform.system()} {platform.release()}, {libc}")
    yield from _core()
    yield from _optional()
    yield from _false_alarms()


def _python() -> Diagnosis:
    place = "a virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    implementation, version = platform.python_implementation(), platform.python_version()
    text = f"{implementation} {version}, {sys.executable}, {place}"
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Diagnosis("FAIL", "python", text, "Python 3.11, 3.12 or 3.13 is needed")
    return Diagnosis("ok", "python", text)


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.version()}"


def _core() -> Iterator[Diagnosis]:
    try:
        wanted = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        text = "the package is not installed; it runs from its sources"
        yield Diagnosis("note", "packages", text, "pip install . makes versions checkable")
        return
    names = [_name(line) for line in wanted if "extra ==" not in line]
    there = {name: _version(name) for name in names}
    missing = [name for name, version in there.items() if version is None]
    if missing:
        yield Diagnosis("FAIL", "packages", f"not installed: {', '.join(missing)}", REINSTALL)
    listed = ", ".join(f"{name} {version}" for name, version in there.items() if version)
    yield Diagnosis("ok", "packages", listed)


def _optional() -> Iterator[Diagnosis]:
    versions = {name: _version(name) for name in PACKAGES}
    listed = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing and len(missing) < len(PACKAGES):
        yield Diagnosis(
            "note", "liveportrait", listed, f"LivePortrait needs all of them: {INSTALL}"
        )
    elif missing:
        text = "its packages are not installed; the mesh renderer needs none of them"
        yield Diagnosis("ok", "liveportrait", text)
    else:
        yield Diagnosis("ok", "liveportrait", listed)


def _false_alarms() -> Iterator[Diagnosis]:
    desktop, headless = _version("opencv-python"), _version("opencv-python-headless")
    if desktop and headless:
        yield Diagnosis(
            "note",
            "opencv",
            f"opencv-python {desktop} lies over opencv-python-headless {headless}; it needs "
            "desktop libraries",
            "pip uninstall -y opencv-python && "
            "pip install --force-reinstall --no-deps opencv-python-headless",
        )
    elif headless and _version("insightface"):
        yield Diagnosis(
            "ok",
            "false alarm",
            "`pip check` says that insightface requires opencv-python: opencv-python-headless "
            "serves as well",
        )


def _name(requirement: str) -> str:
    matched = re.match(r"[A-Za-z0-9._-]+", requirement)
    return matched.group() if matched else requirement


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
