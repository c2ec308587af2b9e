"""Reads event logs: one run of one stage out of the files that a daemon has left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adapters.event_codec import decode
from orchestrator.acting import Acted
from orchestrator.event_log import (
    CharacterLine,
    EmotionsLine,
    Line,
    LostLine,
    MessageLine,
    StageLine,
    decode_line,
)
from pipeline.errors import ConfigError, InvalidEventError
from pipeline.types import DirectControls, EmotionEvent, Interrupt, Mood, StateChange

MAX_LINE_BYTES: Final = 32 * 2**20  # more than the longest message that may be allowed
MAX_STEPS: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """A producer's message, decoded.

    Attributes:
        source: the producer, by number; 0 is an earlier run of the daemon.
        again: repeated from an older file.
    """

    t_s: float
    after_s: float | None
    source: int
    message: Acted
    again: bool


Step = CharacterLine | EmotionsLine | Message


@dataclass(slots=True)
class Run:
    """One stage from its beginning, or as far back as the files reach.

    Attributes:
        opened: how it began.
        steps: what happened to it, in order.
        lost: how many lines are missing.
    """

    opened: StageLine
    steps: list[Step] = field(default_factory=list)
    lost: int = 0

    @property
    def begin_s(self) -> float:
        """Since when it is told of, monotonic seconds."""
        continued_s = self.opened.continued_s
        return self.opened.t_s if continued_s is None else continued_s


def read_runs(files: Sequence[Path], stage: str) -> list[Run]:
    """The runs of a stage, oldest first.

    Args:
        files: oldest first; `FILE.2 FILE.1 FILE` where the log went on in another file.

    Raises:
        ConfigError: a file is no event log, names file and line; or the stage is not in it.
    """
    runs: list[Run] = []
    others: dict[str, None] = {}
    repeats = False
    for where, line in _lines(files):
        if isinstance(line, LostLine):
            for run in runs[-1:]:
                run.lost += line.lines
            continue
        others[line.stage] = None
        if line.stage != stage:
            continue
        if isinstance(line, StageLine):
            repeats = line.continued_s is not None and bool(runs) and _same(runs[-1].opened, line)
            if not repeats:
                runs.append(Run(line))
            continue
        if not runs:
            raise ConfigError(where, f"there is no `stage` line for {stage!r} before this one")
        if repeats and line.again:
            continue
        if len(runs[-1].steps) >= MAX_STEPS:
            raise ConfigError(where, f"more than {MAX_STEPS} lines; take fewer files at a time")
        runs[-1].steps.append(_step(where, line))
    if not runs:
        there = f"; there is {', '.join(others)}" if others else "; it is empty"
        names = ", ".join(str(file) for file in files)
        raise ConfigError(names, f"there is no stage {stage!r} in it{there}")
    return runs


def _same(older: StageLine, newer: StageLine) -> bool:
    return (older.t_s, older.server) == (newer.t_s, newer.server)


def _lines(files: Iterable[Path]) -> Iterator[tuple[str, Line]]:
    """Each line, and where it is. Half a line at the end is what a killed daemon leaves."""
    for file in files:
        try:
            with file.open("rb") as text:
                number = 0
                while raw := text.readline(MAX_LINE_BYTES):
                    number += 1
                    where = f"{file}:{number}"
                    whole = raw.endswith(b"\n")
                    if not raw.strip():
                        continue
                    try:
                        yield where, decode_line(raw)
                    except ValueError as error:
                        if not whole and not text.read(1) and number > 1:
                            return
                        raise ConfigError(where, f"no line of an event log: {error}") from error
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
            raise ConfigError(str(file), problem) from error


def _step(where: str, line: CharacterLine | EmotionsLine | MessageLine) -> Step:
    if isinstance(line, CharacterLine):
        try:
            _ = line.resting
        except (KeyError, ValueError) as error:
            raise ConfigError(where, f"rest: expected ARKit names with 0..1: {error}") from error
    if not isinstance(line, MessageLine):
        return line
    try:
        message = decode(bytes(line.message)).message
    except InvalidEventError as error:
        raise ConfigError(where, f"message: {error}") from error
    if not isinstance(message, EmotionEvent | Interrupt | Mood | StateChange | DirectControls):
        raise ConfigError(
            where, "message: expected emotion, interrupt, mood, state or controls; others do not "
            "act on the face by themselves"
        )  # fmt: skip
    return Message(line.t_s, line.after_s, line.source, message, line.again)
