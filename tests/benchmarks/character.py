"""The bundled character, and faces that it makes over time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from orchestrator.characters import Character, CharacterBook
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.idle import IdleLife
from orchestrator.expression.performance import Performance
from orchestrator.expression.sequencer import Sequencer
from orchestrator.settings import default_config_dir
from pipeline.types import ARKIT_BLENDSHAPES, EmotionEvent, FaceControls

SEED = 7
FPS = 30.0


@cache
def emotions() -> EmotionTable:
    """The bundled table."""
    return EmotionTable.load(default_config_dir() / "emotions.toml")


@cache
def character() -> Character:
    """The bundled character."""
    book = CharacterBook.load(default_config_dir() / "characters", emotions().labels)
    return book.get("astronaut")


class Actor:
    """The daemon's way from events to faces, on a clock of its own.

    Args:
        idle: whether it blinks and breathes.
    """

    def __init__(self, *, idle: bool) -> None:
        life = IdleLife(SEED, enabled=idle)
        chosen = character()
        self.sequencer = Sequencer(emotions())
        self.performance = Performance(emotions(), life, chosen.gains, chosen.rest)

    def show(self, label: str, now_s: float, *, hold_s: float | None = None) -> None:
        """Ask for an emotion at full intensity."""
        event = EmotionEvent(id=f"{label}-{now_s}", emotion=label, hold_s=hold_s)
        self.sequencer.push(event, now_s)

    def face(self, now_s: float) -> FaceControls:
        """What is on the face at that time, which never decreases."""
        return self.performance.controls(self.sequencer.sample(now_s).weights, now_s)


def still(frames: int) -> Iterator[FaceControls]:
    """A neutral face with idle life."""
    actor = Actor(idle=True)
    for frame in range(frames):
        yield actor.face(frame / FPS)


def transitions(frames: int) -> Iterator[FaceControls]:
    """From emotion to emotion, a new one as soon as the last is there."""
    actor = Actor(idle=True)
    labels = [label for label in emotions().labels if label != "neutral"]
    every = round(0.4 * FPS)
    for frame in range(frames):
        if frame % every == 0:
            actor.show(labels[frame // every % len(labels)], frame / FPS)
        yield actor.face(frame / FPS)


def worst(frames: int) -> Iterator[FaceControls]:
    """Every control moves at once, mouth open, eyes half closed, head turned."""
    chance = random.Random(SEED)
    for _ in range(frames):
        weights = [chance.uniform(0.3, 1.0) for _ in ARKIT_BLENDSHAPES]
        angles = (chance.uniform(-20.0, 20.0) for _ in range(3))
        yield FaceControls.clamped(weights, *angles)
