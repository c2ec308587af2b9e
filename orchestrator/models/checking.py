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
from pipeline.liveportrait.errors import CheckpointError
from pipeline.liveportrait.files import STEMS, find_checkpoint
from pipeline.liveportrait.landmark_network import FILE as LANDMARK_FILE
from pipeline.liveportrait.landmark_network import LandmarkNetwork

_READERS: Final = {".onnx": "onnxruntime", ".pth": "torch", ".safetensors": "torch"}


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
    try:
        problem = _content_problem(file, found, fetched) if official else None
        if problem is None:
            return Finding("ok", shown, _praise(file, folder, found, fetched, official))
    except CheckpointError as error:
        problem = f"expected {error.expected}, found {error.found}"
        if error.key:
            problem = f"{error.key}: {problem}"
    except OSError as error:
        return Finding("FAIL", shown, f"cannot be read: {error.strerror or error}")
    cure = f"Fetch it anew: {remedy}" if official else "Delete it, or put the right one there"
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


def _praise(
    file: ModelFile, folder: Path, found: Path, fetched: Fetched | None, official: bool
) -> str:
    if not official:
        known = "in place of the official file"
    else:
        known = "SHA-256 as fetched" if fetched else "no SHA-256 known"
    reader = _READERS[found.suffix]
    if importlib.util.find_spec(reader) is None:
        layout = f"layout not checked ({reader} is not installed)"
    else:
        _check_layout(file, folder, found)
        layout = "layout right"
    return f"{mib(found.stat().st_size)}, {known}, {layout}"


def _check_layout(file: ModelFile, folder: Path, found: Path) -> None:
    """
    Raises:
        CheckpointError: it would not load.
    """
    if found.suffix != ".onnx":
        from pipeline.liveportrait.checkpoints import check_checkpoint

        check_checkpoint(folder, Path(file.path).stem)
    elif Path(file.path) == LANDMARK_FILE:
        LandmarkNetwork(folder)
    else:
        _check_onnx(found)


def _check_onnx(found: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of what models declare
    try:
        onnxruntime.InferenceSession(
            str(found), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no root of their own
        problem = str(error).splitlines()[0][:200]
        raise CheckpointError(
            found, None, "an ONNX network", f"what does not load ({problem})"
        ) from error
