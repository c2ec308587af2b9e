"""Whether the model files in a folder are the right ones, and what to do where they are not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
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
    try:
        problem = _change(found, fetched) if official and fetched else None
        if problem is None:
            return _judge(file, folder, found, _origin(file, found, fetched, official), cure)
    except CheckpointError as error:
        problem = f"expected {error.expected}, found {error.found}"
        if error.key:
            problem = f"{error.key}: {problem}"
        if official and fetched:
            cure = "The source of the download has it so: is HF_ENDPOINT right?"
    except OSError as error:
        return Finding("FAIL", shown, f"cannot be read: {error.strerror or error}")
    return Finding("FAIL", shown, f"{problem}. {cure}")


@dataclass(frozen=True, slots=True)
class _Origin:
    """What is known of a file apart from its content.

    Attributes:
        text: in words.
        doubtful: it is not the published file; one that loads all the same is somebody's choice.
    """

    text: str
    doubtful: bool = False


def _origin(file: ModelFile, found: Path, fetched: Fetched | None, official: bool) -> _Origin:
    if not official:
        return _Origin("in place of the official file")
    if fetched:
        return _Origin("SHA-256 as fetched")
    problem = file.size_problem(found.stat().st_size)
    return _Origin(problem, doubtful=True) if problem else _Origin("no SHA-256 known")


def _judge(file: ModelFile, folder: Path, found: Path, origin: _Origin, cure: str) -> Finding:
    """
    Raises:
        CheckpointError: it would not load.
    """
    shown = found.relative_to(folder).as_posix()
    unchecked = _unchecked(file, folder, found)
    if origin.doubtful and unchecked:
        return Finding("FAIL", shown, f"{origin.text}, {unchecked}. {cure}")
    verdict: Verdict = "note" if origin.doubtful else "ok"
    size = mib(found.stat().st_size)
    return Finding(verdict, shown, f"{size}, {origin.text}, {unchecked or 'layout right'}")


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


def _change(found: Path, fetched: Fetched) -> str | None:
    size_bytes = found.stat().st_size
    if size_bytes != fetched.size_bytes:
        return f"{size_bytes} bytes where {fetched.size_bytes} were fetched"
    if sha256_of(found) != fetched.sha256:
        return "the content has changed since it was fetched (SHA-256)"
    return None


def _unchecked(file: ModelFile, folder: Path, found: Path) -> str | None:
    """None where the layout is right, else why it was not looked at.

    Raises:
        CheckpointError: it would not load.
    """
    try:
        if found.suffix != ".onnx":
            return _unchecked_checkpoint(folder, Path(file.path).stem)
        if Path(file.path) == LANDMARK_FILE:
            LandmarkNetwork(folder, _CPU)
        else:
            InsightFaceDetector(folder, _CPU)
    except ConfigError as error:
        return f"layout not checked ({error})"
    except CheckpointError as error:
        if error.file == found:
            raise
        # The detector is opened first: where the other file is to blame, this one has passed.
        if Path(file.path) != DETECTOR_FILE:
            return f"layout not checked ({error.file.name} does not load)"
    return None


def _unchecked_checkpoint(folder: Path, stem: str) -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "layout not checked (torch is not installed)"
    from pipeline.liveportrait.checkpoints import check_checkpoint

    check_checkpoint(folder, stem)
    return None
