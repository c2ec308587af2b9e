"""The small file through which character and mood survive a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger()

FILE_NAME: Final = "state.json"
FORMAT: Final = 1
MAX_BYTES: Final = 2**20

_UNFINISHED: Final = ".state-"


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
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=_UNFINISHED)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def clean_up(self) -> None:
        """Remove what a run that was killed has not finished writing; nobody may be saving."""
        with contextlib.suppress(OSError):
            for leftover in self._folder.glob(f"{_UNFINISHED}*"):
                leftover.unlink()


class StateSaver:
    """Writes the state when it has changed, in a thread, one write at a time.

    Args:
        file: where to.
        memory: gives what is to be saved, stage name to what it remembers.
        files: the thread that writes.

    Attributes:
        problem: None, or why what has changed last is not saved.
    """

    def __init__(
        self, file: StateFile, memory: Callable[[], Mapping[str, Any]], files: Executor
    ) -> None:
        self._file = file
        self._memory = memory
        self._files = files
        self._saved: Mapping[str, Any] | None = None
        self.problem: str | None = None
        self._writing = asyncio.Lock()
        self._soon: asyncio.Task[None] | None = None
        self._asked = False

    def soon(self) -> None:
        """Save without waiting for it; what changes while it is being saved is saved next."""
        self._asked = True
        if self._soon is None or self._soon.done():
            self._soon = asyncio.create_task(self._while_asked(), name="save-state")

    async def _while_asked(self) -> None:
        while self._asked:
            self._asked = False
            await self.now()

    async def now(self) -> None:
        """Save if something has changed; a failure is logged once and tried again later."""
        async with self._writing:
            memory = self._memory()
            if memory == self._saved:
                return
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._files, self._file.save, memory)
            except OSError as error:
                if self.problem is None:
                    log.error("state_not_saved", error=str(error))
                self.problem = str(error)
                return
            if self.problem is not None:
                log.info("state_saved_again")
            self._saved, self.problem = memory, None
