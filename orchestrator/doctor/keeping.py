"""The state directory: room and size. Whether it can be written is asked with the other files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from orchestrator.doctor.patient import Patient
from orchestrator.doctor.report import Diagnosis
from orchestrator.settings import state_dir

MIB: Final = 2**20
LITTLE: Final = 512 * MIB
TOO_LITTLE: Final = 16 * MIB
MOST_FILES: Final = 20_000


def look(patient: Patient) -> Iterator[Diagnosis]:
    """How much is in it, how much more fits."""
    folder = state_dir(patient.known, patient.environ)
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if there == folder:
        files, size = _content(folder)
        yield Diagnosis("ok", "content", f"{folder}: {files} files, {size / MIB:.1f} MiB")
    else:
        yield Diagnosis("ok", "content", f"{folder} is not there yet; the daemon makes it")
    free = shutil.disk_usage(there).free
    text = f"{free // MIB} MiB free"
    if free < TOO_LITTLE:
        yield Diagnosis("FAIL", "disk", text, "make room: state and uploads cannot be kept")
    elif free < LITTLE:
        yield Diagnosis(
            "note", "disk", text, "uploaded characters need room; see max_uploaded_bytes"
        )
    else:
        yield Diagnosis("ok", "disk", text)


def _content(folder: Path) -> tuple[int, int]:
    files = size = 0
    for path in islice(folder.rglob("*"), MOST_FILES):
        try:
            if path.is_file():
                files, size = files + 1, size + path.stat().st_size
        except OSError:
            continue
    return files, size
