"""Messages of producers: JSON text in, values out, and answers back; no I/O (protocol section 1).

The structs below are the contract. What they say about types and ranges checks every message,
and the descriptions of the protocol are generated from them, so everything about one field is
said in one place.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, get_args, get_type_hints

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from pipeline.bodies import StateBody
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import (
    ARKIT_BLENDSHAPES,
    HEAD_LIMIT_DEG,
    Activity,
    CharacterSwitch,
    CharacterSwitched,
    ControlsMode,
    CueAccepted,
    CueExpired,
    CueFinished,
    CuePeaked,
    CueRejected,
    CueStarted,
    CueSuperseded,
    DirectControls,
    EmotionEvent,
    ErrorInfo,
    Failure,
    GetState,
    Interrupt,
    InterruptDone,
    Mood,
    MoodOk,
    Policy,
    StageMessage,
    StageReply,
    StateChange,
    StateOk,
    StateSnapshot,
    TextClean,
    TextDelta,
)

# In the pattern, `(?![\s\S])` is the end of the text for Python and for JSON Schema alike,
# where Python's `$` would let a final newline pass.
_ID_PATTERN: Final = r"^[ -~]{1,64}(?![\s\S])"
_ID = re.compile(_ID_PATTERN)

INTERNAL: Final = "internal"  # the code of an error that is ours

_MAX_MIX: Final = 64  # more than there are labels and aliases for one face
_CONTROLS: Final = {name.lower(): name for name in ARKIT_BLENDSHAPES}
_OBJECT_FIELDS: Final = ("mix", "weights", "head")  # in which a key may be there twice
_SUGGESTED_CONTROLS: Final = 3
_MAX_DIGITS: Final = 309  # sys.float_info.max has 309 digits
_TIME_DIGITS: Final = 3  # microseconds
_SHOWN_CHARACTERS: Final = 40  # of a wrong value, in an error's sentence


@dataclass(frozen=True, slots=True)
class Ping:
    """A producer asks for a sign of life.

    Attributes:
        t: whatever it sent along, as JSON text.
    """

    t: bytes = b"null"


ClientMessage = StageMessage | Ping


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message of a producer.

    Attributes:
        message: what it asks for.
        stage: the stage that it names; None for the connection's own.
    """

    message: ClientMessage
    stage: str | None = None


# --- what producers send ------------------------------------------------------------------

EventId = Annotated[
    str, Meta(pattern=_ID_PATTERN, description="a string of 1 to 64 printable ASCII characters")
]
StageName = Annotated[str, Meta(max_length=64, description="the name of a stage, a string")]
Label = Annotated[str, Meta(max_length=128, description="the name of an emotion, a string")]
Strength = Annotated[float, Meta(description="a number (outside 0 to 1 it is clamped)")]
Mix = Annotated[
    dict[Label, Strength],
    Meta(max_length=_MAX_MIX, description=f"an object of at most {_MAX_MIX} labels with numbers"),
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


class _Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    stage: StageName | UnsetType = UNSET


class EmotionMessage(_Message, frozen=True, kw_only=True, tag="emotion"):
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
                event_id=_given(self.id),
            )
        hold_s = math.inf if self.hold_ms is None else _seconds(self.hold_ms)
        return EmotionEvent(
            id=_id_or_new(self.id),
            emotion=_given(self.emotion),
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


class InterruptMessage(_Message, frozen=True, kw_only=True, tag="interrupt"):
    """Fade out every cue and empty the queue.

    Attributes:
        id: echoed in the answer; the daemon makes one up.
        fade_ms: time to 95 % of the way out.
    """

    id: EventId | UnsetType = UNSET
    fade_ms: ShortTime = 120.0

    def value(self) -> Interrupt:
        return Interrupt(_id_or_new(self.id), self.fade_ms / 1000.0)


class MoodMessage(_Message, frozen=True, kw_only=True, tag="mood"):
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
        return Mood(_given(self.id), self.valence, self.arousal, self.decay_ms / 1000.0)


class CharacterMessage(_Message, frozen=True, kw_only=True, tag="character"):
    """Switch the character; the old face stays until the new one can be shown.

    Attributes:
        id: echoed in the answer; the daemon makes one up.
        character: who is to come on; `GET /v1/characters` lists them.
    """

    id: EventId | UnsetType = UNSET
    character: CharacterName

    def value(self) -> CharacterSwitch:
        return CharacterSwitch(_id_or_new(self.id), self.character)


class TextMessage(_Message, frozen=True, kw_only=True, tag="text"):
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


class StateMessage(_Message, frozen=True, kw_only=True, tag="state"):
    """Say what the character is doing.

    Attributes:
        id: echoed in the answer.
        state: chooses the idle life; while speaking, emotions keep a third of the mouth.
    """

    id: EventId | UnsetType = UNSET
    state: StateName

    def value(self) -> StateChange:
        return StateChange(_given(self.id), self.state)


class ControlsMessage(_Message, frozen=True, kw_only=True, tag="controls"):
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
        event_id = _given(self.id)
        weights: dict[str, float] = {}
        for given, value in self.weights.items():
            name = _CONTROLS.get(given.lower())
            if name is None:
                raise _unknown_control(given, event_id)
            if name in weights:
                field = f"weights.{_shortened(given)}"
                raise _invalid(f"`{field}` is there twice; send it once", field, event_id)
            weights[name] = value
        return DirectControls(event_id, self.mode, weights, _angles(self.head), self.weight)


class GetStateMessage(_Message, frozen=True, kw_only=True, tag="get_state"):
    """Ask for the stage's snapshot.

    Attributes:
        id: echoed in the answer.
    """

    id: EventId | UnsetType = UNSET

    def value(self) -> GetState:
        return GetState(_given(self.id))


class PingMessage(_Message, frozen=True, kw_only=True, tag="ping"):
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

_STRUCTS: Final[Mapping[str, type[_Message]]] = {
    str(struct.__struct_config__.tag): struct
    for struct in (
        EmotionMessage,
        InterruptMessage,
        MoodMessage,
        CharacterMessage,
        TextMessage,
        StateMessage,
        ControlsMessage,
        GetStateMessage,
        PingMessage,
    )
}
SERVED_TYPES: Final = tuple(_STRUCTS)

_TYPE_NAMES: Final[Mapping[type, str]] = {
    EmotionEvent: "emotion",
    Interrupt: "interrupt",
    Mood: "mood",
    CharacterSwitch: "character",
    TextDelta: "text",
    StateChange: "state",
    DirectControls: "controls",
    GetState: "get_state",
    Ping: "ping",
}


def type_name(message: ClientMessage) -> str:
    """The message's `type` on the wire."""
    return _TYPE_NAMES[type(message)]


# --- decoding -----------------------------------------------------------------------------


class _OnlyId(Struct):
    id: EventId | UnsetType = UNSET


_decode_message = msgspec.json.Decoder(AnyMessage).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_id = msgspec.json.Decoder(_OnlyId).decode


def decode(data: bytes | str) -> Incoming:
    """Read one message.

    Args:
        data: JSON text, as UTF-8 where it is bytes.

    Raises:
        InvalidEventError: code `invalid_json`, `invalid_message` or `unknown_type`; its
            sentence says what would be right, `field` is the offending field in full
            (`intensity`, `mix.happy`) and `event_id` the message's id if it is usable.
    """
    text = _text(data)
    try:
        message = _decode_message(text)
        _refuse_double_keys(text, message)
    except msgspec.ValidationError as error:
        raise _diagnosis(text, error) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _not_json(text) from None
    return Incoming(message.value(), _given(message.stage))


def peek_id(data: bytes | str) -> str | None:
    """The usable `id` of a message, which may otherwise be anything; None if it has none."""
    try:
        return _given(_decode_id(data).id)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _text(data: bytes | str) -> str:
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"the message is not UTF-8 text: byte {error.start} is wrong"
        raise InvalidEventError(ErrorCode.INVALID_JSON, problem) from None


def _refuse_double_keys(text: str, message: AnyMessage) -> None:
    """JSON leaves open which of two equal keys counts (RFC 8259, section 4), so neither does.

    A member takes one colon at least. With no more colons than there are different keys, no
    key can be there twice, and the thorough look is not needed.
    """
    inside = 0
    match message:
        case EmotionMessage():
            inside = len(message.mix)
        case ControlsMessage():
            inside = len(message.weights) + len(_angles(message.head))
    if text.count(":") > len(_decode_members(text)) + inside:
        _parse(text)


class _Object(dict[str, Any]):
    """A JSON object that remembers a key that it was given twice."""

    double: str | None = None

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> _Object:
        made = cls(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            made.double = next(key for key in keys if keys.count(key) > 1)
        return made


def _parse(text: str) -> Any:
    """The message as plain values; the slow way, for messages that need a closer look.

    Numbers too large for a float become infinite.

    Raises:
        InvalidEventError: it is no JSON, or a key is there twice.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_Object.of, parse_int=_integer, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise _not_json(text) from None
    if isinstance(value, _Object):
        parts = [("", value), *((f"{name}.", value.get(name)) for name in _OBJECT_FIELDS)]
        for prefix, part in parts:
            if isinstance(part, _Object) and part.double is not None:
                field = f"{prefix}{_shortened(part.double)}"
                raise _invalid(f"`{field}` is there twice; send it once", field, _id_of(value))
    return value


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _not_json(text: str) -> InvalidEventError:
    return InvalidEventError(
        ErrorCode.INVALID_JSON, f"the message is not valid JSON: {_why_not_json(text)}"
    )


def _why_not_json(text: str) -> str:
    try:
        json.loads(text, parse_int=_integer, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return f"{error.msg} at character {error.pos}"
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return str(error)
    return "a string in it is not valid Unicode, or it is nested too deeply"


# --- what is wrong with a message ----------------------------------------------------------


def _diagnosis(text: str, error: msgspec.ValidationError) -> InvalidEventError:
    """Name the first wrong field of a message that does not fit, and what would be right."""
    try:
        value = _parse(text)
    except InvalidEventError as found:
        return found
    if not isinstance(value, _Object):
        return _invalid(f"a message is a JSON object, not {_shown(value)}", None, None)
    event_id = _id_of(value)
    kind = value.get("type")
    if not isinstance(kind, str):
        right = f"`type` must be one of {', '.join(SERVED_TYPES)}"
        return _invalid(right, "type", event_id)
    if kind not in _STRUCTS:
        return InvalidEventError(
            ErrorCode.UNKNOWN_TYPE,
            f"there is no message type {_shown(kind)} here; served are {', '.join(SERVED_TYPES)}",
            field="type",
            event_id=event_id,
        )
    return _wrong_field(value, _STRUCTS[kind], event_id) or _invalid(str(error), None, event_id)


def _wrong_field(
    value: _Object, struct: type[_Message], event_id: str | None
) -> InvalidEventError | None:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        expected = hints[field.name]
        if field.name not in value:
            if field.required:
                problem = f"`{field.name}` is required: {_description(expected)}"
                return _invalid(problem, field.name, event_id)
        elif not _fits(value[field.name], expected):
            return _mismatch(value[field.name], expected, field.name, event_id)
    return None


def _mismatch(
    given: Any, expected: Any, name: str, event_id: str | None
) -> InvalidEventError | None:
    """The sentence for a field that does not fit; for an object, about the entry to blame."""
    if expected is Mix and isinstance(given, dict) and len(given) <= _MAX_MIX:
        for label, strength in given.items():
            field = f"{name}.{_shortened(label)}"
            if not _fits(label, Label):
                return _invalid(f"`{field}` is too long for a label", field, event_id)
            if not _fits(strength, Strength):
                return _mismatch(strength, Strength, field, event_id)
    entries: dict[str, Any] = {}
    if expected is ControlWeights and isinstance(given, dict):
        entries = dict.fromkeys(given, Share)
    elif expected is Head and isinstance(given, dict):
        entries = dict.fromkeys(HeadAngles.__struct_fields__, Angle)
    for key, part in entries.items():
        if key in given and not _fits(given[key], part):
            return _mismatch(given[key], part, f"{name}.{_shortened(key)}", event_id)
    problem = f"`{name}` must be {_description(expected)}, not {_shown(given)}"
    return _invalid(problem, name, event_id)


def _fits(value: Any, expected: Any) -> bool:
    if expected is AnyJson:
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, dict):
        for part in value.values():
            if isinstance(part, float) and not math.isfinite(part):
                return False
    try:
        msgspec.convert(value, expected)
    except (msgspec.ValidationError, UnicodeError):
        return False
    return True


def _description(expected: Any) -> str:
    """What a field takes, in words: from its own annotation."""
    for part in (expected, *getattr(expected, "__args__", ())):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.description:
                return meta.description
    raise AssertionError(f"a field without a description: {expected}")


def _invalid(problem: str, field: str | None, event_id: str | None) -> InvalidEventError:
    return InvalidEventError(ErrorCode.INVALID_MESSAGE, problem, field=field, event_id=event_id)


def _id_of(value: Mapping[str, Any]) -> str | None:
    given = value.get("id")
    return given if isinstance(given, str) and _ID.search(given) else None


def _shown(value: Any) -> str:
    """A wrong value as short JSON."""
    if isinstance(value, float) and math.isinf(value):
        return "a number too large"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return _shortened(json.dumps(value))


def _shortened(text: str) -> str:
    """Text that is safe to send back: short, and without half surrogate pairs."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return safe if len(safe) <= _SHOWN_CHARACTERS else f"{safe[:_SHOWN_CHARACTERS]}…"


def _unknown_control(given: str, event_id: str | None) -> InvalidEventError:
    shown = _shortened(given)
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


def _angles(head: HeadAngles) -> dict[str, float]:
    """Those that were given."""
    angles = {"pitch": head.pitch, "yaw": head.yaw, "roll": head.roll}
    return {name: angle for name, angle in angles.items() if angle is not UNSET}


def _given(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value


def _id_or_new(value: str | UnsetType) -> str:
    return f"evt-{uuid.uuid4().hex}" if value is UNSET else value


def _seconds(value_ms: float | UnsetType) -> float | None:
    return None if value_ms is UNSET else value_ms / 1000.0


# --- what producers are answered ------------------------------------------------------------


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


class _Answer(Struct, frozen=True, kw_only=True, tag_field="type"):
    id: AnswerId


class EmotionAccepted(_Answer, frozen=True, kw_only=True, tag="emotion.accepted"):
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


class _AtFrame(_Answer, frozen=True, kw_only=True):
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


class EmotionExpired(_Answer, frozen=True, kw_only=True, tag="emotion.expired"):
    """The cue's time to live ran out before it could start."""


class EmotionRejected(_Answer, frozen=True, kw_only=True, tag="emotion.rejected"):
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


class MoodOkAnswer(_Answer, frozen=True, kw_only=True, tag="mood.ok"):
    """The mood was taken."""


class StateOkAnswer(_Answer, frozen=True, kw_only=True, tag="state.ok"):
    """The state was taken."""


class CharacterSwitchedAnswer(_Answer, frozen=True, kw_only=True, tag="character.switched"):
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


class TextCleanAnswer(_Answer, frozen=True, kw_only=True, tag="text.clean"):
    """What of a text is clear by now, without its tags.

    Attributes:
        delta: the text; what may still become a tag is held back.
        cues: the tags that were taken out, in order.
    """

    delta: str
    cues: list[CueOfText]


class ErrorAnswer(_Answer, frozen=True, kw_only=True, tag="error"):
    """A message that belongs to no cue could not be taken.

    Attributes:
        error: why.
    """

    error: ErrorBody


class InterruptAccepted(_Answer, frozen=True, kw_only=True, tag="interrupt.accepted"):
    """By POST only: the cues are fading, and it takes longer than the request may."""


class CharacterAccepted(_Answer, frozen=True, kw_only=True, tag="character.accepted"):
    """By POST only: the character is coming, and it takes longer than the request may."""


class ControlsAccepted(_Answer, frozen=True, kw_only=True, tag="controls.accepted"):
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


MESSAGES: Final = get_args(AnyMessage)
"""The structs of all that producers send."""

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


def _as_plain(value: Any) -> Any:
    """What the core computes with, as what JSON knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encode = msgspec.json.Encoder(enc_hook=_as_plain).encode


def encode(reply: StageReply) -> bytes:
    """One answer of a stage as JSON text."""
    match reply:
        case StateSnapshot():
            head = {"type": "state_snapshot", "id": reply.id}
            return _encode(head | dict(reply.body) | head)
        case _:
            return _encode(_answer(reply))


def encode_taken(message: Interrupt | CharacterSwitch | DirectControls) -> bytes:
    """The answer by POST to what is taken and not yet done, as JSON text."""
    match message:
        case Interrupt():
            return _encode(InterruptAccepted(id=message.id))
        case CharacterSwitch():
            return _encode(CharacterAccepted(id=message.id))
        case DirectControls():
            return _encode(ControlsAccepted(id=message.id))


def encode_hello(hello: Mapping[str, Any]) -> bytes:
    """The greeting as JSON text."""
    return _encode({"type": "hello"} | dict(hello))


def encode_pong(ping: Ping) -> bytes:
    """The answer to `ping` as JSON text, with the same `t` to the last digit."""
    return _encode(Pong(Raw(ping.t)))


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Any other answer as JSON text."""
    return _encode(body)


def encode_error(error: ErrorInfo) -> bytes:
    """The body of an HTTP error as JSON text."""
    return _encode(HttpError(_body(error)))


def failure(error: InvalidEventError) -> Failure:
    """The answer to a message that could not be taken."""
    return Failure(error.event_id, error_info(error))


def error_info(error: InvalidEventError) -> ErrorInfo:
    """The error as the value that answers carry."""
    return ErrorInfo(error.code.value, error.message, error.field, error.suggestions)


def _answer(reply: StageReply) -> _Answer:
    match reply:
        case CueAccepted():
            return EmotionAccepted(
                id=reply.id,
                used=reply.used,
                intensity=reply.intensity,
                mix=reply.mix,
                mapped_from=reply.mapped_from,
                clamped=reply.clamped,
                duplicate=reply.duplicate,
            )
        case CueStarted() | CuePeaked():
            answer = EmotionStarted if isinstance(reply, CueStarted) else EmotionPeaked
            return answer(
                id=reply.id,
                seq=reply.seq,
                pts_ms=_milliseconds(reply.pts_s),
                latency_ms=_milliseconds(reply.latency_s),
                no_change=True if reply.no_change else UNSET,
            )
        case CueFinished():
            return EmotionFinished(id=reply.id, seq=reply.seq, pts_ms=_milliseconds(reply.pts_s))
        case CueSuperseded():
            pts_ms = _milliseconds(reply.pts_s)
            return EmotionSuperseded(id=reply.id, by=reply.by, seq=reply.seq, pts_ms=pts_ms)
        case CueExpired():
            return EmotionExpired(id=reply.id)
        case CueRejected():
            return EmotionRejected(id=reply.id, error=_body(reply.error))
        case InterruptDone():
            return InterruptDoneAnswer(
                id=reply.id,
                superseded=reply.superseded,
                seq=reply.seq,
                pts_ms=_milliseconds(reply.pts_s),
                latency_ms=_milliseconds(reply.latency_s),
            )
        case MoodOk():
            return MoodOkAnswer(id=reply.id)
        case StateOk():
            return StateOkAnswer(id=reply.id)
        case CharacterSwitched():
            return CharacterSwitchedAnswer(id=reply.id, character=reply.character, seq=reply.seq)
        case TextClean():
            cues = [
                CueOfText(id=cue.id, emotion=cue.emotion, intensity=cue.intensity, at=cue.at)
                for cue in reply.cues
            ]
            return TextCleanAnswer(id=reply.id, delta=reply.delta, cues=cues)
        case Failure():
            return ErrorAnswer(id=reply.id, error=_body(reply.error))
        case StateSnapshot():
            raise AssertionError("a snapshot has no struct of its own")


def _body(error: ErrorInfo) -> ErrorBody:
    return ErrorBody(
        code=error.code,
        message=error.message,
        field=error.field,
        suggestions=list(error.suggestions),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000.0, _TIME_DIGITS)
