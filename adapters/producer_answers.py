"""What producers are answered: the structs of every answer, and of errors (protocol section 1).

Answers are encoded from them, and the descriptions of the protocol are generated from them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from pipeline.bodies import StateBody
from pipeline.errors import ErrorCode

INTERNAL: Final = "internal"  # the code of an error that is ours


ErrorName = Annotated[
    str,
    Meta(
        description="what is wrong, for programs",
        extra_json_schema={"enum": [*ErrorCode, INTERNAL]},
    ),
]


class ErrorBody(Struct, frozen=True, kw_only=True):
    """What is wrong, for programs (`code`, `field`, `suggestions`) and for people (`message`).

    Attributes:
        message: one sentence that says what would be right.
        field: the field that is to blame, in full (`mix.happy`); null if there is none.
        suggestions: near names, where one is not known.
    """

    code: ErrorName
    message: str
    field: str | None = None
    suggestions: list[str] = []


AnswerId = Annotated[
    str | None,
    Meta(description="of the message that it answers, or of the cue; null if it had none"),
]
FrameSeq = Annotated[int, Meta(ge=0, description="`seq` of the frame that shows it")]
MediaTime = Annotated[float, Meta(description="media time of that frame, milliseconds")]
Latency = Annotated[
    float,
    Meta(description="from receipt, or the planned start if later, to publishing; milliseconds"),
]
NoChange = Annotated[bool, Meta(description="true where nothing changes that would show")]


class Answered(Struct, frozen=True, kw_only=True, tag_field="type"):
    id: AnswerId


class EmotionAccepted(Answered, frozen=True, kw_only=True, tag="emotion.accepted"):
    """The event is on the timeline.

    Attributes:
        used: canonical label of the main emotion.
        intensity: as used, from 0 to 1.
        mix: canonical label to strength, without the main emotion.
        mapped_from: what was sent, where an alias was mapped; else null.
        clamped: some number was outside its range.
        duplicate: the same event came before, and nothing else has happened.
    """

    used: str
    intensity: float
    mix: Mapping[str, float]
    mapped_from: str | None
    clamped: bool
    duplicate: bool


class _AtFrame(Answered, frozen=True, kw_only=True):
    seq: FrameSeq
    pts_ms: MediaTime


class EmotionStarted(_AtFrame, frozen=True, kw_only=True, tag="emotion.started"):
    """First published frame with at least 10 % of the change."""

    latency_ms: Latency
    no_change: NoChange | UnsetType = UNSET


class EmotionPeaked(_AtFrame, frozen=True, kw_only=True, tag="emotion.peaked"):
    """First published frame with at least 90 % of the change."""

    latency_ms: Latency
    no_change: NoChange | UnsetType = UNSET


class EmotionFinished(_AtFrame, frozen=True, kw_only=True, tag="emotion.finished"):
    """The cue has decayed."""


class EmotionSuperseded(_AtFrame, frozen=True, kw_only=True, tag="emotion.superseded"):
    """The cue was replaced or interrupted.

    Attributes:
        by: id of what did it.
    """

    by: str


class EmotionExpired(Answered, frozen=True, kw_only=True, tag="emotion.expired"):
    """The cue's time to live ran out before it could start."""


class EmotionRejected(Answered, frozen=True, kw_only=True, tag="emotion.rejected"):
    """The event was not accepted; what is on the face stays.

    Attributes:
        error: why.
    """

    error: ErrorBody


class InterruptDoneAnswer(_AtFrame, frozen=True, kw_only=True, tag="interrupt.done"):
    """The last interrupted cue has left the face.

    Attributes:
        superseded: ids of the cues that it ended.
    """

    superseded: tuple[str, ...]
    latency_ms: Latency


class MoodOkAnswer(Answered, frozen=True, kw_only=True, tag="mood.ok"):
    """The mood was taken."""


class StateOkAnswer(Answered, frozen=True, kw_only=True, tag="state.ok"):
    """The state was taken."""


class CharacterSwitchedAnswer(Answered, frozen=True, kw_only=True, tag="character.switched"):
    """The new character is on.

    Attributes:
        character: who it is.
    """

    character: str
    seq: FrameSeq


class CueOfText(Struct, frozen=True, kw_only=True):
    """A tag of a text, and its cue.

    Attributes:
        id: of the cue, in the receipts that follow.
        emotion: canonical label.
        intensity: wanted strength, from 0 to 1.
        at: how many characters (code points) of the clean delta come before it.
    """

    id: str
    emotion: str
    intensity: float
    at: int


class TextCleanAnswer(Answered, frozen=True, kw_only=True, tag="text.clean"):
    """What of a text is clear by now, without its tags.

    Attributes:
        delta: the text; what may still become a tag is held back.
        cues: the tags that were taken out, in order.
    """

    delta: str
    cues: list[CueOfText]


class ErrorAnswer(Answered, frozen=True, kw_only=True, tag="error"):
    """A message that belongs to no cue could not be taken.

    Attributes:
        error: why.
    """

    error: ErrorBody


class InterruptAccepted(Answered, frozen=True, kw_only=True, tag="interrupt.accepted"):
    """By POST only: the cues are fading, and it takes longer than the request may."""


class CharacterAccepted(Answered, frozen=True, kw_only=True, tag="character.accepted"):
    """By POST only: the character is coming, and it takes longer than the request may."""


class ControlsAccepted(Answered, frozen=True, kw_only=True, tag="controls.accepted"):
    """By POST only: the controls are on the face for a second."""


class StateSnapshotAnswer(StateBody):
    """A stage as it is now: the body of `GET /v1/state`.

    Attributes:
        type: tells the messages apart.
        id: of the message that it answers; null if it had none.
    """

    type: Literal["state_snapshot"]
    id: str | None


# A TypedDict does not know its base, and the fields' meanings stand in that one's docstring.
StateSnapshotAnswer.__doc__ = (
    f"{inspect.getdoc(StateSnapshotAnswer)}\n\n{inspect.getdoc(StateBody)}"
)


class Pong(Struct, frozen=True, tag_field="type", tag="pong"):
    """The sign of life.

    Attributes:
        t: as it was sent.
    """

    t: Raw


class HttpError(Struct, frozen=True):
    """The body of every HTTP error.

    Attributes:
        error: what is wrong.
    """

    error: ErrorBody


TAKEN_BY_POST: Final = (
    EmotionAccepted,
    TextCleanAnswer,
    StateOkAnswer,
    MoodOkAnswer,
    InterruptDoneAnswer,
    InterruptAccepted,
    CharacterSwitchedAnswer,
    CharacterAccepted,
    ControlsAccepted,
)
ANSWERED_BY_POST: Final = (StateSnapshotAnswer, Pong)
REFUSED_BY_POST: Final = (EmotionRejected, ErrorAnswer)
