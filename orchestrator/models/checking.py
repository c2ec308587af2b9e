"""Whether the model files in a folder are the right ones, and what to do where they are not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from orchestrator.check import Finding, Verdict
from orchestrator.models.catalogue import Catalogue, ModelFile, mib
from orchestrator.models.download import parts_of
from orchestrator.models.hub import sha256_of
from orchestrator.models.manifest import Fetched, read_manifest
from pipeline.errors import ConfigError
from pipeline.liveportrait.errors import CheckpointError
from pipeline.liveportrait.files import STEMS, find_checkpoint
from pipeline.liveportrait.insight_faces import DETECTOR_FILE, InsightFaceDetector
from pipeline.liveportrait.landmark_network import FILE as LANDMARK_FILE
from pipeline.liveportrait.landmark_network import LandmarkNetwork

_CPU: Final = ("CPUExecutionProvider",)


def examine(catalogue: Catalogue, folder: Path, remedy: str) -> Iterator[Finding]:
    """One finding per file of the catalogue, FAIL where LivePortrait would not run.

    Args:
        catalogue: what should be there.
        folder: the weights folder.
        remedy: the command that fetches into it, for the advice.

    Raises:
        ConfigError: the folder's manifest is damaged.
    """
    manifest = read_manifest(folder)
    for file in catalogue.files:
        yield _examine(file, folder, manifest.files.get(file.path), remedy)


def _examine(file: ModelFile, folder: Path, fetched: Fetched | None, remedy: str) -> Finding:
    found = _find(file, folder)
    if found is None:
        begun = sum(part.stat().st_size for part in parts_of(folder, file.path))
        state = f"incomplete ({mib(begun)} so far)" if begun else "missing"
        verdict: Verdict = "FAIL" if file.needed else "note"
        if not file.needed:
            remedy += f" --only {file.set}"
        return Finding(verdict, file.path, f"{state}: {file.what}. Fetch it: {remedy}")
    official = found == folder / file.path
    shown = found.relative_to(folder).as_posix()
    cure = f"Fetch it anew: {remedy}" if official else "Delete it, or put the right one there"
    known = "SHA-256 as fetched" if fetched else "no SHA-256 known"
    try:
        problem = _content_problem(file, found, fetched) if official else None
        if problem is None:
            known = known if official else "in place of the official file"
            return Finding("ok", shown, _praise(file, folder, found, known))
    except CheckpointError as error:
        problem = f"expected {error.expected}, found {error.found}"
        if error.key:
            problem = f"{error.key}: {problem}"
        if official and fetched:
            cure = "The source of the download has it so: is HF_ENDPOINT right?"
    except OSError as error:
        return Finding("FAIL", shown, f"cannot be read: {error.strerror or error}")
    return Finding("FAIL", shown, f"{problem}. {cure}")


def _find(file: ModelFile, folder: Path) -> Path | None:
    """The official file, or for a checkpoint what the loader would take instead."""
    if (folder / file.path).is_file():
        return folder / file.path
    stem = Path(file.path).stem
    if stem not in STEMS:
        return None
    try:
        return find_checkpoint(folder, stem)
    except CheckpointError:
        return None


def _content_problem(file: ModelFile, found: Path, fetched: Fetched | None) -> str | None:
    size_bytes = found.stat().st_size
    if fetched is None:
        return file.size_problem(size_bytes)
    if size_bytes != fetched.size_bytes:
        return f"{size_bytes} bytes where {fetched.size_bytes} were fetched"
    if sha256_of(found) != fetched.sha256:
        return "the content has changed since it was fetched (SHA-256)"
    return None


def _praise(file: ModelFile, folder: Path, found: Path, known: str) -> str:
    return f"{mib(found.stat().st_size)}, {known}, {_layout(file, folder, found)}"


def _layout(file: ModelFile, folder: Path, found: Path) -> str:
    """`layout right`, or why that was not looked at.

    Raises:
        CheckpointError: it would not load.
    """
    try:
        if found.suffix != ".onnx":
            return _checkpoint_layout(folder, Path(file.path).stem)
        if Path(file.path) == LANDMARK_FILE:
            LandmarkNetwork(folder, _CPU)
        else:
            InsightFaceDetector(folder, _CPU)
    except ConfigError as error:
        return f"layout not checked ({error})"
    except CheckpointError as error:
        if error.file == found:
            raise
        # The detector is opened first, so the file to blame comes before or after this one.
        if Path(file.path) == DETECTOR_FILE:
            return "layout right"
        return f"layout not checked ({error.file.name} does not load)"
    return "layout right"


def _checkpoint_layout(folder: Path, stem: str) -> str:
    if importlib.util.find_spec("torch") is None:
        return "layout not checked (torch is not installed)"
    from pipeline.liveportrait.checkpoints import check_checkpoint

    check_checkpoint(folder, stem)
    return "layout right"
