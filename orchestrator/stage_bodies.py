"""What a stage says of itself: the `hello` message and the body of GET /v1/state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.sequencer import CueView
from orchestrator.settings import StageSettings
from pipeline.bodies import (
    PROTOCOL_VERSION,
    CueBody,
    EmotionBody,
    HelloBody,
    RendererBody,
    StateBody,
)
from pipeline.frame_cache import CacheStats
from pipeline.types import (
    ARKIT_BLENDSHAPES,
    Activity,
    FaceControls,
    FrameInfo,
    ImageFormat,
    Policy,
)

_WAITING = frozenset({"scheduled", "queued"})


def hello_body(
    *,
    server: str,
    stage: str,
    character: str,
    emotions: EmotionTable,
    settings: StageSettings,
    renderer: RendererBody,
) -> HelloBody:
    """The `hello` message."""
    return {
        "type": "hello",
        "protocol": PROTOCOL_VERSION,
        "server": server,
        "stage": stage,
        "character": character,
        "emotions": {label: _emotion_body(emotions, label) for label in emotions.labels},
        "policies": [policy.value for policy in Policy],
        "states": [state.value for state in Activity],
        "controls": list(ARKIT_BLENDSHAPES),
        "fps": _number(settings.fps),
        "width": settings.width,
        "height": settings.height,
        "formats": [image_format.value for image_format in ImageFormat],
        "renderer": renderer,
    }


def state_body(
    *,
    stage: str,
    seq: int,
    frame: FrameInfo | None,
    character: str,
    activity: Activity,
    controls: FaceControls,
    mood: tuple[float, float],
    cues: Sequence[CueView],
    viewers: dict[str, int],
    renderer: RendererBody,
    cache: CacheStats,
    fps: float,
) -> StateBody:
    """The body of GET /v1/state.

    Args:
        seq: of the newest frame; -1 before the first.
        frame: the newest.
        controls: what that shows.
        mood: valence and arousal.
    """
    valence, arousal = mood
    weights = frame.emotion if frame is not None else {"neutral": 1.0}
    return {
        "stage": stage,
        "seq": seq,
        "pts_ms": _ms(frame.pts_s) if frame is not None else 0.0,
        "character": character,
        "state": activity.value,
        "weights": {label: round(weight, 4) for label, weight in weights.items()},
        "controls": {name: round(value, 4) for name, value in controls.as_mapping().items()},
        "mood": {"valence": round(valence, 4), "arousal": round(arousal, 4)},
        "cues": [_cue_body(cue) for cue in cues if cue.phase not in _WAITING],
        "queue": [_cue_body(cue) for cue in cues if cue.phase in _WAITING],
        "viewers": viewers,
        "renderer": renderer,
        "cache": {
            "hits": cache.hits,
            "misses": cache.misses,
            "bytes": cache.bytes,
            "entries": cache.entries,
        },
        "fps": round(fps, 2),
    }


def _emotion_body(emotions: EmotionTable, label: str) -> EmotionBody:
    emotion = emotions[label]
    return {
        "aliases": list(emotion.aliases),
        "max": emotion.maximum,
        "attack_ms": _ms(emotion.attack_s),
        "hold_ms": _ms(emotion.hold_s),
        "decay_ms": _ms(emotion.decay_s),
    }


def _cue_body(cue: CueView) -> CueBody:
    remaining = None if cue.remaining_s is None else _ms(cue.remaining_s)
    return {
        "id": cue.id,
        "emotion": cue.emotion,
        "phase": cue.phase,
        "since_ms": _ms(cue.since_s),
        "remaining_ms": remaining,
    }


def _ms(seconds: float) -> float | None:
    """Milliseconds for the wire; an endless time is null."""
    return _number(round(seconds * 1000.0, 3)) if seconds != math.inf else None


def _number(value: float) -> float:
    """Whole numbers go over the wire without a fraction."""
    return int(value) if value == int(value) else value
