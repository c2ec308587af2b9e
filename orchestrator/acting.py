"""How messages and time become a face: what a live stage and a replay have in common."""

from __future__ import annotations

from collections.abc import Hashable

from orchestrator.expression.idle import IdleLife
from orchestrator.expression.performance import Performance
from orchestrator.expression.sequencer import FaceSample, Sequencer
from orchestrator.settings import IdleSettings
from pipeline.types import (
    DirectControls,
    EmotionEvent,
    FaceControls,
    Interrupt,
    Mood,
    StateChange,
)

Acted = EmotionEvent | Interrupt | Mood | StateChange | DirectControls
"""The messages that act on the face; a text acts through the cues of its tags."""


def idle_life(settings: IdleSettings, seed: int) -> IdleLife:
    """The idle life of a character with that seed."""
    return IdleLife(
        seed,
        blink=settings.blink,
        gaze=settings.gaze,
        breath=settings.breath,
        sway=settings.sway,
        enabled=settings.enabled,
    )


def face_at(
    sequencer: Sequencer, performance: Performance, due_s: float
) -> tuple[FaceSample, FaceControls]:
    """What the cues show at a moment, and the whole face.

    Args:
        due_s: not before an earlier one.
    """
    sample = sequencer.sample(due_s)
    return sample, performance.controls(sample.weights, due_s)


def act(
    sequencer: Sequencer,
    performance: Performance,
    message: Acted,
    source: Hashable,
    now_s: float,
) -> None:
    """Let a message that a stage has taken act as it did there.

    Args:
        source: whose direct controls they are.
        now_s: receipt.

    Raises:
        InvalidEventError: it cannot be taken now.
    """
    match message:
        case EmotionEvent():
            sequencer.push(message, now_s)
        case Interrupt():
            sequencer.interrupt(message.id, message.fade_s, now_s)
        case Mood():
            performance.set_mood(message, now_s)
        case StateChange():
            performance.set_state(message.state, now_s)
        case DirectControls():
            performance.inject(source, message, now_s)
