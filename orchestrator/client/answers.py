"""What the daemon answers, as frozen values. Unknown fields are ignored: newer daemons add some.

Names and units are those of the wire: `_ms` are milliseconds, `seq` counts published frames.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from orchestrator.client.errors import EmotionRejected, RequestError


class EmotionInfo(Struct, frozen=True, kw_only=True):
    """One emotion that can be shown; times are its defaults.

    Attributes:
        aliases: other names for it.
        max: the weight that an intensity of 1 leads to.
        hold_ms: None holds until something replaces it.
    """

    aliases: tuple[str, ...] = ()
    max: float = 1.0
    attack_ms: float | None = None
    hold_ms: float | None = None
    decay_ms: float | None = None


class Hello(Struct, frozen=True, kw_only=True):
    """What the daemon says first."""

    protocol: str
    server: str
    stage: str
    character: str | None = None
    emotions: dict[str, EmotionInfo] = {}
    policies: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    fps: float = 0.0
    width: int = 0
    height: int = 0
    formats: tuple[str, ...] = ()
    renderer: dict[str, Any] = {}


class Accepted(Struct, frozen=True, kw_only=True):
    """An emotion is on the timeline.

    Attributes:
        used: canonical label.
        intensity: after clamping to [0, 1].
        mix: further labels to their strengths.
        mapped_from: the alias that was sent, if one was.
        clamped: some number was outside its range.
        duplicate: it was there already.
    """

    used: str
    intensity: float
    mix: dict[str, float] = {}
    mapped_from: str | None = None
    clamped: bool = False
    duplicate: bool = False


class Shown(Struct, frozen=True, kw_only=True):
    """A published frame that shows 10 % (started) or 90 % (peaked) of a cue's change.

    Attributes:
        seq, pts_ms: the frame's own.
        latency_ms: from receipt, or the planned start where later, to publishing.
        no_change: the cue changes nothing that shows.
    """

    seq: int
    pts_ms: float
    latency_ms: float
    no_change: bool = False


class Ended(Struct, frozen=True, kw_only=True):
    """How a cue ended.

    Attributes:
        kind: exactly one of these.
        by: id of what superseded it.
        seq, pts_ms: the first frame without it; None for one that expired.
    """

    kind: Literal["finished", "superseded", "expired"]
    by: str | None = None
    seq: int | None = None
    pts_ms: float | None = None


class Interrupted(Struct, frozen=True, kw_only=True):
    """The last interrupted cue has left the face.

    Attributes:
        superseded: ids of the cues that were ended, oldest first.
        seq, pts_ms: the first frame without them.
        latency_ms: from receipt to publishing that.
    """

    superseded: tuple[str, ...]
    seq: int
    pts_ms: float
    latency_ms: float


class Switched(Struct, frozen=True, kw_only=True):
    """Another character is on the stage since frame `seq`."""

    character: str
    seq: int


class TextCue(Struct, frozen=True, kw_only=True):
    """A tag in a text, `at` characters into the clean piece."""

    id: str
    emotion: str
    intensity: float
    at: int


class TextPiece(Struct, frozen=True, kw_only=True):
    """What of a text is clear by now."""

    delta: str
    cues: tuple[TextCue, ...] = ()


class _Error(Struct, frozen=True, kw_only=True):
    code: str = "unknown"
    message: str = ""
    field: str | None = None
    suggestions: tuple[str, ...] = ()


_Answer = TypeVar("_Answer")

Message = dict[str, Any]
decode_message = msgspec.json.Decoder(Message).decode
encode_message = msgspec.json.Encoder().encode


def read(message: Message, kind: type[_Answer]) -> _Answer:
    """One answer as its value.

    Raises:
        msgspec.ValidationError: it is none.
    """
    return msgspec.convert(message, kind)


def read_ended(message: Message) -> Ended:
    """One of the three endings; see `read`."""
    return read(message | {"kind": message["type"].partition(".")[2]}, Ended)


def read_refusal(message: Message) -> RequestError:
    """The error that an `emotion.rejected` or `error` says; see `read`."""
    error = read(message.get("error", {}), _Error)
    kind = EmotionRejected if message["type"] == "emotion.rejected" else RequestError
    return kind(error.code, error.message, error.field, error.suggestions)
