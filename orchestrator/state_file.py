"""The small file through which character and mood survive a restart."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger()

FILE_NAME: Final = "state.json"
FORMAT: Final = 1
MAX_BYTES: Final = 2**20


class StateFile:
    """Reads and writes `state.json` in the state directory; always whole, never half.

    Args:
        folder: the state directory; made when the first state is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME

    def load(self) -> dict[str, Any]:
        """Stage name to what it remembers; empty when there is nothing usable."""
        try:
            if self._path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            body = json.loads(self._path.read_text("utf-8"))
            if not isinstance(body, dict) or body.get("format") != FORMAT:
                raise ValueError(f"not a state file of format {FORMAT}")
            stages = body.get("stages")
            return stages if isinstance(stages, dict) else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("state_not_read", file=str(self._path), error=str(error))
            return {}

    def save(self, stages: Mapping[str, Any]) -> None:
        """Replace the file atomically: written beside, flushed to disk, renamed.

        Raises:
            OSError: the directory cannot be made or written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        body = json.dumps({"format": FORMAT, "stages": stages}, indent=1) + "\n"
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".state-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
