"""Messages of producers: JSON text in, values out, and answers back; no I/O (protocol 1)."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from adapters.producer_answers import (
    Answered,
    CharacterAccepted,
    CharacterSwitchedAnswer,
    ControlsAccepted,
    CueOfText,
    EmotionAccepted,
    EmotionExpired,
    EmotionFinished,
    EmotionPeaked,
    EmotionRejected,
    EmotionStarted,
    EmotionSuperseded,
    ErrorAnswer,
    ErrorBody,
    HttpError,
    InterruptAccepted,
    InterruptDoneAnswer,
    MoodOkAnswer,
    Pong,
    StateOkAnswer,
    TextCleanAnswer,
)
from adapters.producer_messages import (
    ID_PATTERN,
    MAX_MIX,
    MESSAGES,
    Angle,
    AnyJson,
    AnyMessage,
    ControlsMessage,
    ControlWeights,
    EmotionMessage,
    EventId,
    Head,
    HeadAngles,
    Label,
    Message,
    Mix,
    Ping,
    Share,
    Strength,
    TextMessage,
    angles_of,
    invalid,
    or_none,
    shortened,
)
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import (
    CharacterSwitch,
    CharacterSwitched,
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
    StageMessage,
    StageReply,
    StateChange,
    StateOk,
    StateSnapshot,
    TextClean,
    TextDelta,
)

_ID = re.compile(ID_PATTERN)
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_OBJECT_FIELDS: Final = ("mix", "weights", "head")  # in which a key may be there twice
_MAX_DIGITS: Final = 309  # sys.float_info.max has 309 digits
_TIME_DIGITS: Final = 3  # microseconds
_STRENGTH_DIGITS: Final = 6  # sums of a mix are not 0.6000000000000001

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


_STRUCTS: Final[Mapping[str, type[Message]]] = {
    str(struct.__struct_config__.tag): struct for struct in MESSAGES
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
        halved = _halved_text(text)
        if halved is None:
            raise _not_json(text) from None
        message = halved
    return Incoming(message.value(), or_none(message.stage))


def peek_id(data: bytes | str) -> str | None:
    """The usable `id` of a message, which may otherwise be anything; None if it has none."""
    try:
        return or_none(_decode_id(data).id)
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


def _halved_text(text: str) -> TextMessage | None:
    """A `text` message whose delta was cut within a surrogate pair, as JavaScript's `slice` does.

    `JSON.stringify` escapes the halves, msgspec refuses them, and the reader of tags joins them.
    None for any other message.
    """
    if not _HALF.search(text):
        return None
    try:
        value = _parse(text)
        if not isinstance(value, _Object) or not isinstance(value.get("delta"), str):
            return None
        message = _decode_message(json.dumps(value | {"delta": ""}))
    except (InvalidEventError, msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(message, TextMessage):
        return None
    return msgspec.structs.replace(message, delta=value["delta"])


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
            inside = len(message.weights) + len(angles_of(message.head))
    if text.count(":") > len(_decode_members(text)) + inside:
        _parse(text)


class _Object(dict[str, Any]):
    """A JSON object that remembers a key that it was given twice."""

    double: str | None = None

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> _Object:
        made = cls(pairs)
        if len(made) < len(pairs):
            # In one pass: there may be thousands of keys, and this holds up the event loop.
            counted = Counter(key for key, _ in pairs)
            made.double = next(key for key, times in counted.items() if times > 1)
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
                field = f"{prefix}{shortened(part.double)}"
                raise invalid(f"`{field}` is there twice; send it once", field, _id_of(value))
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
        return invalid(f"a message is a JSON object, not {_shown(value)}", None, None)
    event_id = _id_of(value)
    kind = value.get("type")
    if not isinstance(kind, str):
        right = f"`type` must be one of {', '.join(SERVED_TYPES)}"
        return invalid(right, "type", event_id)
    if kind not in _STRUCTS:
        return InvalidEventError(
            ErrorCode.UNKNOWN_TYPE,
            f"there is no message type {_shown(kind)} here; served are {', '.join(SERVED_TYPES)}",
            field="type",
            event_id=event_id,
        )
    return _wrong_field(value, _STRUCTS[kind], event_id) or invalid(str(error), None, event_id)


def _wrong_field(
    value: _Object, struct: type[Message], event_id: str | None
) -> InvalidEventError | None:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        expected = hints[field.name]
        if field.name not in value:
            if field.required:
                problem = f"`{field.name}` is required: {_description(expected)}"
                return invalid(problem, field.name, event_id)
        elif not _fits(value[field.name], expected):
            return _mismatch(value[field.name], expected, field.name, event_id)
    return None


def _mismatch(
    given: Any, expected: Any, name: str, event_id: str | None
) -> InvalidEventError | None:
    """The sentence for a field that does not fit; for an object, about the entry to blame."""
    if expected is Mix and isinstance(given, dict) and len(given) <= MAX_MIX:
        for label, strength in given.items():
            field = f"{name}.{shortened(label)}"
            if not _fits(label, Label):
                return invalid(f"`{field}` is too long for a label", field, event_id)
            if not _fits(strength, Strength):
                return _mismatch(strength, Strength, field, event_id)
    entries: dict[str, Any] = {}
    if expected is ControlWeights and isinstance(given, dict):
        entries = dict.fromkeys(given, Share)
    elif expected is Head and isinstance(given, dict):
        entries = dict.fromkeys(HeadAngles.__struct_fields__, Angle)
    for key, part in entries.items():
        if key in given and not _fits(given[key], part):
            return _mismatch(given[key], part, f"{name}.{shortened(key)}", event_id)
    problem = f"`{name}` must be {_description(expected)}, not {_shown(given)}"
    return invalid(problem, name, event_id)


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


def _id_of(value: Mapping[str, Any]) -> str | None:
    given = value.get("id")
    return given if isinstance(given, str) and _ID.search(given) else None


def _shown(value: Any) -> str:
    """A wrong value as short JSON."""
    if isinstance(value, float) and math.isinf(value):
        return "a number too large"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return shortened(json.dumps(value))


# --- answering ------------------------------------------------------------------------------


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


def _answer(reply: StageReply) -> Answered:
    match reply:
        case CueAccepted():
            return EmotionAccepted(
                id=reply.id,
                used=reply.used,
                intensity=_strength(reply.intensity),
                mix={label: _strength(each) for label, each in reply.mix.items()},
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


def _strength(value: float) -> float:
    return round(value, _STRENGTH_DIGITS)
