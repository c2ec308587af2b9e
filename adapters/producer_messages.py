"""What producers send: the structs are the contract (protocol section 1).

What they say about types and ranges checks every message, and the descriptions of the protocol
are generated from them, so everything about one field is said in one place: in its type what it
takes, which errors quote, and in its struct's `Attributes:` what it means.
"""

from __future__ import annotations

import difflib
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import (
    ARKIT_BLENDSHAPES,
    HEAD_LIMIT_DEG,
    Activity,
    CharacterSwitch,
    ControlsMode,
    DirectControls,
    EmotionEvent,
    GetState,
    Interrupt,
    Mood,
    Policy,
    StateChange,
    TextDelta,
)

# In the pattern, `(?![\s\S])` is the end of the text for Python and for JSON Schema alike,
# where Python's `$` would let a final newline pass.
ID_PATTERN: Final = r"^[ -~]{1,64}(?![\s\S])"
MAX_MIX: Final = 64  # more than there are labels and aliases for one face

_CONTROLS: Final = {name.lower(): name for name in ARKIT_BLENDSHAPES}
_SUGGESTED_CONTROLS: Final = 3
_SHOWN_CHARACTERS: Final = 40  # of a wrong value, in an error's sentence


@dataclass(frozen=True, slots=True)
class Ping:
    """A producer asks for a sign of life.

    Attributes:
        t: whatever it sent along, as JSON text.
    """

    t: bytes = b"null"


EventId = Annotated[
    str, Meta(pattern=ID_PATTERN, description="a string of 1 to 64 printable ASCII characters")
]
StageName = Annotated[str, Meta(max_length=64, description="the name of a stage, a string")]
Label = Annotated[str, Meta(max_length=128, description="the name of an emotion, a string")]
Strength = Annotated[float, Meta(description="a number (outside 0 to 1 it is clamped)")]
Mix = Annotated[
    dict[Label, Strength],
    Meta(max_length=MAX_MIX, description=f"an object of at most {MAX_MIX} labels with numbers"),
]
ShortTime = Annotated[
    float, Meta(ge=0.0, le=60_000.0, description="a number from 0 to 60000 (milliseconds)")
]
HoldTime = Annotated[
    Annotated[float, Meta(ge=0.0, le=3_600_000.0)] | None,
    Meta(description="a number from 0 to 3600000 (milliseconds), or null to hold on"),
]
TimeToLive = Annotated[
    Annotated[float, Meta(ge=1.0, le=3_600_000.0)] | None,
    Meta(description="a number from 1 to 3600000 (milliseconds), or null for ever"),
]
MoodTime = Annotated[
    float, Meta(ge=0.0, le=3_600_000.0, description="a number from 0 to 3600000 (milliseconds)")
]
PolicyName = Annotated[Policy, Meta(description=f"one of {', '.join(Policy)}")]
Priority = Annotated[int, Meta(ge=0, le=9, description="a whole number from 0 to 9")]
MoodValue = Annotated[float, Meta(ge=-1.0, le=1.0, description="a number from -1 to 1")]
CharacterName = Annotated[
    str, Meta(min_length=1, max_length=64, description="the name of a character, a string")
]
StateName = Annotated[Activity, Meta(description=f"one of {', '.join(Activity)}")]
ModeName = Annotated[ControlsMode, Meta(description=f"one of {', '.join(ControlsMode)}")]
Share = Annotated[float, Meta(ge=0.0, le=1.0, description="a number from 0 to 1")]
ControlWeights = Annotated[
    dict[str, Share],
    Meta(description="an object of ARKit blendshape names with numbers from 0 to 1"),
]
Angle = Annotated[
    float,
    Meta(
        ge=-HEAD_LIMIT_DEG,
        le=HEAD_LIMIT_DEG,
        description=f"a number from {-HEAD_LIMIT_DEG:g} to {HEAD_LIMIT_DEG:g} (degrees)",
    ),
]


class HeadAngles(Struct, frozen=True, kw_only=True):
    """How the head is turned; an angle that is left out is as the emotions have it."""

    pitch: Angle | UnsetType = UNSET
    yaw: Angle | UnsetType = UNSET
    roll: Angle | UnsetType = UNSET


Head = Annotated[HeadAngles, Meta(description="an object with pitch, yaw and roll in degrees")]
Flag = Annotated[bool, Meta(description="true or false")]
TextPiece = Annotated[str, Meta(description="a string")]
AnyJson = Annotated[Raw, Meta(description="any JSON value")]


class Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    stage: StageName | UnsetType = UNSET


class EmotionMessage(Message, frozen=True, kw_only=True, tag="emotion"):
    """Show an emotion.

    Attributes:
        id: echoed in every consequence; the daemon makes one up. The same one again within ten
            minutes, with the same body, happens once.
        emotion: label or alias, in any case; required unless `mix` names one.
        intensity: wanted strength, before the emotion's calibrated maximum.
        mix: further emotions at the same time, label or alias to strength; the sum on the face
            never exceeds 1.
        attack_ms: time to 95 % of the way in; each emotion has its own default.
        hold_ms: time at full strength; each emotion has its own default.
        decay_ms: time to 95 % of the way out; each emotion has its own default.
        at_ms: start this long after receipt.
        policy: `replace` fades out what is on, `queue` waits for its end, `blend` adds to it,
            `override` resumes it afterwards.
        priority: a cue cannot replace or override one of higher priority.
        ttl_ms: expire if not started within this time.
    """

    # What `value` checks, for the descriptions; generators of code pass over `if`.
    schema_rules: ClassVar[Mapping[str, Any]] = {
        "if": {"properties": {"mix": {"maxProperties": 0}}},
        "then": {"required": ["emotion"]},
    }

    id: EventId | UnsetType = UNSET
    emotion: Label | UnsetType = UNSET
    intensity: Strength = 1.0
    mix: Mix = {}
    attack_ms: ShortTime | UnsetType = UNSET
    hold_ms: HoldTime | UnsetType = UNSET
    decay_ms: ShortTime | UnsetType = UNSET
    at_ms: ShortTime = 0.0
    policy: PolicyName = Policy.REPLACE
    priority: Priority = 5
    ttl_ms: TimeToLive = None

    def value(self) -> EmotionEvent:
        """The event, with times in seconds.

        Raises:
            InvalidEventError: it asks for no emotion at all.
        """
        if self.emotion is UNSET and not self.mix:
            raise InvalidEventError(
                ErrorCode.INVALID_MESSAGE,
                "`emotion` is required unless `mix` names one",
                field="emotion",
                event_id=or_none(self.id),
            )
        hold_s = math.inf if self.hold_ms is None else _seconds(self.hold_ms)
        return EmotionEvent(
            id=_id_or_new(self.id),
            emotion=or_none(self.emotion),
            intensity=self.intensity,
            mix=self.mix,
            attack_s=_seconds(self.attack_ms),
            hold_s=hold_s,
            decay_s=_seconds(self.decay_ms),
            at_s=self.at_ms / 1000.0,
            policy=self.policy,
            priority=self.priority,
            ttl_s=None if self.ttl_ms is None else self.ttl_ms / 1000.0,
        )


class InterruptMessage(Message, frozen=True, kw_only=True, tag="interrupt"):
    """Fade out every cue and empty the queue.

    Attributes:
        id: echoed in the answer; the daemon makes one up.
        fade_ms: time to 95 % of the way out.
    """

    id: EventId | UnsetType = UNSET
    fade_ms: ShortTime = 120.0

    def value(self) -> Interrupt:
        return Interrupt(_id_or_new(self.id), self.fade_ms / 1000.0)


class MoodMessage(Message, frozen=True, kw_only=True, tag="mood"):
    """Set the slow layer under the cues.

    Attributes:
        id: echoed in the answer.
        valence: from displeased to pleased.
        arousal: from calm to excited.
        decay_ms: time until little of it is left.
    """

    id: EventId | UnsetType = UNSET
    valence: MoodValue = 0.0
    arousal: MoodValue = 0.0
    decay_ms: MoodTime = 60_000.0

    def value(self) -> Mood:
        return Mood(or_none(self.id), self.valence, self.arousal, self.decay_ms / 1000.0)


class CharacterMessage(Message, frozen=True, kw_only=True, tag="character"):
    """Switch the character; the old face stays until the new one can be shown.

    Attributes:
        id: echoed in the answer; the daemon makes one up.
        character: who is to come on; `GET /v1/characters` lists them.
    """

    id: EventId | UnsetType = UNSET
    character: CharacterName

    def value(self) -> CharacterSwitch:
        return CharacterSwitch(_id_or_new(self.id), self.character)


class TextMessage(Message, frozen=True, kw_only=True, tag="text"):
    """Take the next piece of a text, with emotion tags in it.

    Tags are `[happy]`, `[happy:0.7]`, `<emotion name="happy" intensity="0.7"/>` and
    `<|ACT {"emotion":{"name":"happy","intensity":0.7}}|>`; they may be cut anywhere.

    Attributes:
        id: of the text, the same in all its pieces; its cues are `id.1`, `id.2` and so on.
        delta: what comes next of the text.
        final: nothing comes after it, so nothing is held back any more.
    """

    id: EventId
    delta: TextPiece = ""
    final: Flag = False

    def value(self) -> TextDelta:
        return TextDelta(self.id, self.delta, self.final)


class StateMessage(Message, frozen=True, kw_only=True, tag="state"):
    """Say what the character is doing.

    Attributes:
        id: echoed in the answer.
        state: chooses the idle life; while speaking, emotions keep a third of the mouth.
    """

    id: EventId | UnsetType = UNSET
    state: StateName

    def value(self) -> StateChange:
        return StateChange(or_none(self.id), self.state)


class ControlsMessage(Message, frozen=True, kw_only=True, tag="controls"):
    """Drive facial controls directly; it lapses one second after the last message.

    Attributes:
        id: echoed in an error; otherwise there is no answer.
        mode: cross-fade to these controls, or add them to what the emotions give.
        weights: those controls that it is about; 0 is the character's neutral face.
        head: those angles that it is about; positive pitch looks down, positive yaw turns to
            the left edge of the picture, positive roll tilts to its right edge.
        weight: strength of the whole.
    """

    id: EventId | UnsetType = UNSET
    mode: ModeName = ControlsMode.SET
    weights: ControlWeights = {}
    head: Head = HeadAngles()
    weight: Share = 1.0

    def value(self) -> DirectControls:
        """The controls by ARKit's own names.

        Raises:
            InvalidEventError: a name is not one of ARKit's, or is there twice.
        """
        event_id = or_none(self.id)
        weights: dict[str, float] = {}
        for given, value in self.weights.items():
            name = _CONTROLS.get(given.lower())
            if name is None:
                raise _unknown_control(given, event_id)
            if name in weights:
                field = f"weights.{shortened(given)}"
                raise invalid(f"`{field}` is there twice; send it once", field, event_id)
            weights[name] = value
        return DirectControls(event_id, self.mode, weights, angles_of(self.head), self.weight)


class GetStateMessage(Message, frozen=True, kw_only=True, tag="get_state"):
    """Ask for the stage's snapshot.

    Attributes:
        id: echoed in the answer.
    """

    id: EventId | UnsetType = UNSET

    def value(self) -> GetState:
        return GetState(or_none(self.id))


class PingMessage(Message, frozen=True, kw_only=True, tag="ping"):
    """Ask for a sign of life.

    Attributes:
        t: comes back as it was.
    """

    t: AnyJson = msgspec.field(default_factory=lambda: Raw(b"null"))

    def value(self) -> Ping:
        return Ping(bytes(self.t))


AnyMessage = (
    EmotionMessage
    | InterruptMessage
    | MoodMessage
    | CharacterMessage
    | TextMessage
    | StateMessage
    | ControlsMessage
    | GetStateMessage
    | PingMessage
)

MESSAGES: Final = get_args(AnyMessage)
"""The structs of all that producers send."""

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "emotion": {
        "type": "emotion",
        "id": "evt-17",
        "emotion": "happy",
        "intensity": 0.7,
        "mix": {"surprised": 0.2},
        "attack_ms": 250,
        "hold_ms": 2000,
        "decay_ms": 600,
        "policy": "replace",
        "priority": 5,
        "ttl_ms": 3000,
    },
    "text": {"type": "text", "id": "t1", "delta": "[happy:0.7] So good to see you!", "final": True},
    "state": {"type": "state", "state": "thinking"},
    "controls": {
        "type": "controls",
        "mode": "set",
        "weights": {"jawOpen": 0.8},
        "head": {"yaw": -8},
        "weight": 1.0,
    },
    "mood": {"type": "mood", "valence": 0.4, "arousal": -0.2, "decay_ms": 600_000},
    "interrupt": {"type": "interrupt", "id": "i1", "fade_ms": 120},
    "character": {"type": "character", "id": "c1", "character": "astronaut"},
    "get_state": {"type": "get_state"},
    "ping": {"type": "ping", "t": 1},
}
"""One message of every type, for the descriptions."""


# --- what several of them need --------------------------------------------------------------


def invalid(problem: str, field: str | None, event_id: str | None) -> InvalidEventError:
    """The error of a message whose `field` does not fit."""
    return InvalidEventError(ErrorCode.INVALID_MESSAGE, problem, field=field, event_id=event_id)


def shortened(text: str) -> str:
    """Text that is safe to send back: short, and without half surrogate pairs."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return safe if len(safe) <= _SHOWN_CHARACTERS else f"{safe[:_SHOWN_CHARACTERS]}…"


def _unknown_control(given: str, event_id: str | None) -> InvalidEventError:
    shown = shortened(given)
    wanted = given[:_SHOWN_CHARACTERS].lower()
    near = difflib.get_close_matches(wanted, _CONTROLS, n=_SUGGESTED_CONTROLS, cutoff=0.5)
    suggestions = [_CONTROLS[name] for name in near]
    hint = f"; near ones are {', '.join(suggestions)}" if suggestions else ""
    return InvalidEventError(
        ErrorCode.INVALID_MESSAGE,
        f"there is no control {shown!r}, `hello` lists ARKit's 52{hint}",
        field=f"weights.{shown}",
        suggestions=suggestions,
        event_id=event_id,
    )


def angles_of(head: HeadAngles) -> dict[str, float]:
    """Those that were given."""
    angles = {"pitch": head.pitch, "yaw": head.yaw, "roll": head.roll}
    return {name: angle for name, angle in angles.items() if angle is not UNSET}


def or_none(value: str | UnsetType) -> str | None:
    """None where the field was left out."""
    return None if value is UNSET else value


def _id_or_new(value: str | UnsetType) -> str:
    return f"evt-{uuid.uuid4().hex}" if value is UNSET else value


def _seconds(value_ms: float | UnsetType) -> float | None:
    return None if value_ms is UNSET else value_ms / 1000.0
