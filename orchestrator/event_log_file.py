"""Writes the event log: in a thread of its own, in bounded files, losing nothing silently."""

from __future__ import annotations

import asyncio
import os
import threading
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import structlog

from orchestrator.event_log import (
    CharacterLine,
    EmotionsLine,
    Line,
    LostLine,
    MessageLine,
    StageLine,
    encode_line,
    line_of,
)
from orchestrator.journal import CastChanged, Entry, Opened, TableChanged, Took
from pipeline.errors import ConfigError
from pipeline.ports import Metric, Metrics, Reply
from pipeline.types import Mood, StateChange

log = structlog.get_logger()

SETTING: Final = "log.events_file"
OLDER_FILES: Final = 4
"""Kept beside the newest: FILE.1, the youngest of them, to FILE.4."""
MAX_WAITING: Final = 8192
MAX_SOURCES: Final = 4096
MAX_STAGES: Final = 128  # whose standing lines are remembered; more than limits.stages allows
_STANDING: Final = (Opened, CastChanged, TableChanged, Mood, StateChange)


class EventLog:
    """A journal that is kept in files. Called in one thread; writes in another.

    A file that has grown to `max_bytes` is put aside, and so is what an earlier run has left.
    The next one begins with what still counts: stage, character, mood and state.

    Args:
        path: of the newest file.
        max_bytes: of one file, about.
        metrics: what is lost is counted there.

    Raises:
        ConfigError: no such file can be written.
    """

    def __init__(self, path: Path, max_bytes: int, metrics: Metrics) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._sources: dict[Reply, int] = {}
        self._numbers = 0
        self._waiting: list[tuple[Entry, int]] = []
        self._lost = 0
        self._changed = threading.Condition()
        self._closed = False
        self._file: int | None = None
        self._size = 0
        self._failed = False
        self._continues = False
        self._standing: dict[str, dict[type, Line]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._put_aside()
            self._open()
        except OSError as error:
            problem = f"{path} cannot be written: {error.strerror or error}"
            raise ConfigError(SETTING, problem) from error
        self._thread = threading.Thread(target=self._write_all, name="event-log", daemon=True)
        self._thread.start()

    def __call__(self, entry: Entry) -> None:
        """Take an entry; one too many is counted and lost."""
        source = self._number(entry.source) if isinstance(entry, Took) else 0
        with self._changed:
            if len(self._waiting) >= MAX_WAITING or self._closed:
                self._lost += 1
                self._metrics.count(Metric.EVENTS_UNLOGGED)
                return
            self._waiting.append((entry, source))
            self._changed.notify()

    async def close(self, deadline_s: float) -> bool:
        """Write what waits and end the thread.

        Returns:
            False if it is still at work after `deadline_s`.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, deadline_s)
        return not self._thread.is_alive()

    def _number(self, source: Reply | None) -> int:
        """The number of a producer, the same for all of its messages."""
        if source is None:
            return 0
        number = self._sources.get(source)
        if number is None:
            self._sources = {reply: n for reply, n in self._sources.items() if not reply.closed}
            while len(self._sources) >= MAX_SOURCES:
                del self._sources[next(iter(self._sources))]
            self._numbers += 1
            number = self._sources[source] = self._numbers
        return number

    # --- the thread -----------------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                batch, self._waiting = self._waiting, []
                lost, self._lost = self._lost, 0
                closed = self._closed
            unwritten = self._write(batch, lost)
            if unwritten:
                with self._changed:
                    self._lost += unwritten
            if closed:
                self._close()
                return

    def _write(self, batch: list[tuple[Entry, int]], lost: int) -> int:
        """Write a batch, and before it how much is missing; returns how many lines now are."""
        done = 0
        try:
            if self._file is None:
                self._open()
            if lost:
                self._append(encode_line(LostLine(lines=lost)))
                lost = 0
            for entry, source in batch:
                self._make_room(entry.t_s)
                self._append(encode_line(self._noted(entry, source)))
                done += 1
        except OSError as error:
            if not self._failed:
                log.error("event_log_not_written", file=str(self._path), error=str(error))
            self._failed = True
            self._close()
            for entry, source in batch[done:]:
                self._noted(entry, source)
            missing = len(batch) - done
            self._metrics.count(Metric.EVENTS_UNLOGGED, missing)
            return lost + missing
        if self._failed:
            log.info("event_log_written_again", file=str(self._path))
        self._failed = False
        return 0

    def _make_room(self, now_s: float) -> None:
        """Go on in another file where this one is full; it begins with what still counts."""
        if self._size >= self._max_bytes:
            self._close()
            self._put_aside()
            self._size = 0
            self._open()
            self._continues = True
        if self._continues:
            standing = [line for lines in self._standing.values() for line in lines.values()]
            self._append(b"".join(encode_line(_again(line, now_s)) for line in standing))
            self._continues = False

    def _append(self, text: bytes) -> None:
        assert self._file is not None
        view = memoryview(text)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(text)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        # What people were made to show is nobody else's business.
        self._file = os.open(self._path, flags, 0o600)
        # A disk that was full may have left half a line.
        os.ftruncate(self._file, self._size)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _put_aside(self) -> None:
        names = [self._path] + [
            self._path.with_name(f"{self._path.name}.{number}")
            for number in range(1, OLDER_FILES + 1)
        ]
        if not self._path.exists() or self._path.stat().st_size == 0:
            return
        for younger, older in reversed(list(pairwise(names))):
            if younger.exists():
                younger.replace(older)

    def _noted(self, entry: Entry, source: int) -> Line:
        """The line for an entry; those that a next file must begin with are kept."""
        line = line_of(entry, source)
        if isinstance(entry, Opened):
            self._standing.pop(entry.stage, None)
            while len(self._standing) >= MAX_STAGES:
                del self._standing[next(iter(self._standing))]
        kind: type = type(entry.message) if isinstance(entry, Took) else type(entry)
        if kind in _STANDING:
            self._standing.setdefault(entry.stage, {})[kind] = line
        return line


def _again(line: Line, now_s: float) -> Line:
    match line:
        case StageLine():
            return msgspec.structs.replace(line, continued_s=now_s)
        case CharacterLine() | EmotionsLine() | MessageLine():
            return msgspec.structs.replace(line, again=True)
        case LostLine():
            raise AssertionError("what is lost does not stand")
