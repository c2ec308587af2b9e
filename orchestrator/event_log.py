"""The event log as text: one JSON object per line, entries of a journal out, lines in; no I/O.

Every line has `type`, `stage` and `t_s`. `stage` begins a run of a stage and says how it was set
up, `character` and `emotions` say what has changed of that, and `message` holds a producer's
message as it is on the wire. A text is not in it: the cues are, that its tags became.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from orchestrator.acting import Acted
from orchestrator.expression.emotions import EmotionTable
from orchestrator.journal import CastChanged, Entry, Opened, TableChanged, Took
from orchestrator.settings import IdleSettings
from pipeline.types import DirectControls, EmotionEvent, FaceControls, Interrupt, Mood, StateChange

FORMAT: Final = 1


class StageLine(Struct, frozen=True, kw_only=True, tag="stage"):
    """A stage begins, or goes on from an older file.

    Attributes:
        t_s: when its media clock began.
        emotions: digest of the emotion table.
        continued_s: since when this file tells of it; null where from the beginning.
    """

    stage: str
    t_s: float
    format: int = FORMAT
    server: str = ""
    fps: float
    width: int
    height: int
    idle: IdleSettings
    emotions: str
    continued_s: float | None = None


class CharacterLine(Struct, frozen=True, kw_only=True, tag="character", omit_defaults=True):
    """A character comes on.

    Attributes:
        portrait: content hash of its portrait.
        again: repeated from an older file.
    """

    stage: str
    t_s: float
    after_s: float | None = None
    character: str
    portrait: str
    idle_seed: int
    gains: dict[str, float] = {}
    rest: dict[str, float] = {}
    again: bool = False

    @property
    def resting(self) -> FaceControls:
        """What makes the portrait's own face a neutral one.

        Raises:
            KeyError, ValueError: these are no controls.
        """
        return FaceControls.of(**self.rest)


class EmotionsLine(Struct, frozen=True, kw_only=True, tag="emotions", omit_defaults=True):
    """Another emotion table counts."""

    stage: str
    t_s: float
    after_s: float | None = None
    emotions: str
    again: bool = False


class MessageLine(Struct, frozen=True, kw_only=True, tag="message", omit_defaults=True):
    """A producer's message acts.

    Attributes:
        source: the producer, by number; 0 is an earlier run of the daemon.
        message: as on the wire.
    """

    stage: str
    t_s: float
    after_s: float | None = None
    source: int = 1
    message: Raw
    again: bool = False


class LostLine(Struct, frozen=True, kw_only=True, tag="lost"):
    """Lines are missing here: the log could not keep up, or not be written.

    Attributes:
        lines: how many.
    """

    lines: int


Line = StageLine | CharacterLine | EmotionsLine | MessageLine | LostLine

_encode = msgspec.json.Encoder().encode
_decoder: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


def encode_line(line: Line) -> bytes:
    """The line, its end included."""
    return _encode(line) + b"\n"


def decode_line(text: bytes) -> Line:
    """Read a line.

    Raises:
        ValueError: it is none, or of another format.
    """
    try:
        line = _decoder.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(line, StageLine) and line.format != FORMAT:
        raise ValueError(f"it is of format {line.format}; this version reads format {FORMAT}")
    return line


def line_of(entry: Entry, source: int) -> Line:
    """The line for an entry.

    Args:
        source: number of its producer, where it has one.
    """
    match entry:
        case Opened():
            width, height = entry.settings.size_px
            return StageLine(
                stage=entry.stage,
                t_s=entry.t_s,
                server=entry.server,
                fps=entry.settings.fps,
                width=width,
                height=height,
                idle=entry.idle,
                emotions=digest(entry.emotions),
            )
        case CastChanged():
            rest = entry.character.rest.as_mapping()
            return CharacterLine(
                stage=entry.stage,
                t_s=entry.t_s,
                after_s=entry.after_s,
                character=entry.character.name,
                portrait=entry.portrait,
                idle_seed=entry.idle_seed,
                gains=dict(entry.character.gains),
                rest={name: value for name, value in rest.items() if value},
            )
        case TableChanged():
            return EmotionsLine(
                stage=entry.stage,
                t_s=entry.t_s,
                after_s=entry.after_s,
                emotions=digest(entry.emotions),
            )
        case Took():
            return MessageLine(
                stage=entry.stage,
                t_s=entry.t_s,
                after_s=entry.after_s,
                source=source,
                message=Raw(_encode(wire_form(entry.message))),
            )


def digest(emotions: EmotionTable) -> str:
    """Equal for tables that show the same faces for the same messages."""
    hashed = hashlib.sha256()
    for label in emotions.labels:
        each = emotions[label]
        times = (each.maximum, each.attack_s, each.hold_s, each.decay_s)
        hashed.update(repr((label, sorted(each.aliases), times)).encode())
    hashed.update(emotions.shapes.tobytes())
    hashed.update(emotions.idle.tobytes())
    return hashed.hexdigest()


def wire_form(message: Acted) -> dict[str, Any]:
    """The message as a producer would send it; what it left out is left out."""
    match message:
        case EmotionEvent():
            return _given(
                type="emotion",
                id=message.id,
                emotion=message.emotion,
                intensity=float(message.intensity),
                mix=_floats(message.mix) or None,
                attack_ms=_ms(message.attack_s),
                decay_ms=_ms(message.decay_s),
                at_ms=_ms(message.at_s) or None,
                policy=message.policy.value,
                priority=message.priority,
                ttl_ms=_ms(message.ttl_s),
            ) | _hold(message.hold_s)
        case Interrupt():
            return {"type": "interrupt", "id": message.id, "fade_ms": _ms(message.fade_s)}
        case Mood():
            return _given(
                type="mood",
                id=message.id,
                valence=float(message.valence),
                arousal=float(message.arousal),
                decay_ms=_ms(message.decay_s),
            )
        case StateChange():
            return _given(type="state", id=message.id, state=message.state.value)
        case DirectControls():
            return _given(
                type="controls",
                id=message.id,
                mode=message.mode.value,
                weights=_floats(message.weights),
                head=_floats(message.head),
                weight=float(message.weight),
            )


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _floats(named: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in named.items()}


def _hold(hold_s: float | None) -> dict[str, float | None]:
    if hold_s is None:
        return {}
    return {"hold_ms": None if math.isinf(hold_s) else _ms(hold_s)}


def _ms(seconds: float | None) -> float | None:
    """The milliseconds that are read as exactly these seconds, if there are such."""
    if seconds is None:
        return None
    near = float(seconds) * 1000.0
    for candidate in (round(near, 6), near, math.nextafter(near, 0.0), math.nextafter(near, 1e9)):
        if candidate / 1000.0 == seconds:
            return candidate
    return near
