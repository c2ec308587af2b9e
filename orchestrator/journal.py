"""What a stage tells of itself, so that the same faces can be had again.

A face depends on what a stage was set up with, on what acted on it and when, and on nothing
else. Times are monotonic seconds of the stage's clock. `after_s` is the newest moment for which
a face had been sampled: a stage samples a little ahead, and what comes then acts later than its
own time says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.acting import Acted
from orchestrator.characters import Character
from orchestrator.expression.emotions import EmotionTable
from orchestrator.settings import IdleSettings, StageSettings
from pipeline.ports import Reply


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A stage has been made; its media clock begins.

    Attributes:
        server: name and version of the daemon.
    """

    stage: str
    t_s: float
    server: str
    settings: StageSettings
    idle: IdleSettings
    emotions: EmotionTable


@dataclass(frozen=True, slots=True, eq=False)
class CastChanged:
    """A character has come on.

    Attributes:
        idle_seed: of its idle life on this stage.
        portrait: content hash of its portrait.
    """

    stage: str
    t_s: float
    after_s: float | None
    character: Character
    idle_seed: int
    portrait: str


@dataclass(frozen=True, slots=True, eq=False)
class TableChanged:
    """Other emotions count from now on."""

    stage: str
    t_s: float
    after_s: float | None
    emotions: EmotionTable


@dataclass(frozen=True, slots=True, eq=False)
class Took:
    """A message was accepted and acts on the face.

    Attributes:
        source: who sent it; None for what an earlier run has left.
    """

    stage: str
    t_s: float
    after_s: float | None
    message: Acted
    source: Reply | None


Entry = Opened | CastChanged | TableChanged | Took

Journal = Callable[[Entry], None]
"""Takes an entry. Never blocks, never raises."""


def unrecorded(entry: Entry) -> None:
    """The journal of a stage that nobody keeps one of."""
