"""What holds for every message, whatever a producer sends."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.event_codec import (
    SERVED_TYPES,
    Incoming,
    decode,
    encode_pong,
    failure,
    peek_id,
)
from adapters.event_codec import encode as encode_reply
from adapters.producer_messages import Ping
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import EmotionEvent, Policy

ids = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)
strengths = st.floats(allow_nan=False, allow_infinity=False)
labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | numbers | labels,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(labels, inner),
    max_leaves=10,
)
FIELDS = (
    "id", "emotion", "intensity", "mix", "attack_ms", "hold_ms", "decay_ms", "at_ms", "policy",
    "priority", "ttl_ms", "stage", "fade_ms", "valence", "character", "t", "delta", "final",
    "state", "mode", "weights", "head", "weight", "other",
)  # fmt: skip
field_names = st.sampled_from(FIELDS)


def as_text(value: Any) -> str:
    return json.dumps(value)


def outcome(data: bytes | str) -> Incoming | InvalidEventError:
    """The message, or the error, which must be fit to be sent back."""
    try:
        return decode(data)
    except InvalidEventError as raised:
        error = raised
    assert error.code in {
        ErrorCode.INVALID_JSON,
        ErrorCode.INVALID_MESSAGE,
        ErrorCode.UNKNOWN_TYPE,
    }
    assert 0 < len(str(error)) < 400
    wire = msgspec.json.decode(encode_reply(failure(error)))
    assert wire["error"]["code"] == error.code
    return error


@given(st.binary(max_size=200) | st.text(max_size=100))
@example(b"[" * 60_000)
@example(b'{"type":"ping","t":"\\ud83d"}')
@example('{"type":"emotion","emotion":"\udfff"}')
def test_anything_is_read_or_refused(data: bytes | str) -> None:
    """Any bytes and any text decode or raise InvalidEventError."""
    outcome(data)
    peek_id(data)


@given(
    st.sampled_from([*SERVED_TYPES, "dance"]), st.dictionaries(field_names, anything, max_size=6)
)
def test_any_object_is_read_or_refused_by_a_field_of_its_own(
    kind: str, fields: dict[str, Any]
) -> None:
    """An object with a known type and wrong values is refused with the name of one of them."""
    found = outcome(as_text({"type": kind, **fields}))
    if isinstance(found, InvalidEventError) and found.code is ErrorCode.INVALID_MESSAGE:
        assert found.field is not None
        assert found.field.split(".")[0] in {*fields, "emotion", "character", "id", "state"}
        given_id = fields.get("id")
        if found.field != "id" and isinstance(given_id, str) and given_id.isascii():
            assert found.event_id in {given_id, None}


@given(st.data())
def test_what_a_producer_writes_is_what_the_core_gets(data: st.DataObject) -> None:
    """Values within their ranges arrive as they were written, times in seconds."""

    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return data.draw(st.none() | strategy)

    short_ms = st.floats(0, 60_000)
    fields: dict[str, Any] = {
        "id": data.draw(ids),
        "emotion": data.draw(labels),
        "intensity": maybe(strengths),
        "mix": maybe(st.dictionaries(labels, strengths, max_size=5)),
        "attack_ms": maybe(short_ms),
        "hold_ms": maybe(st.floats(0, 3_600_000)),
        "at_ms": maybe(short_ms),
        "policy": maybe(st.sampled_from(list(Policy))),
        "priority": maybe(st.integers(0, 9)),
        "ttl_ms": maybe(st.floats(1, 3_600_000)),
    }
    sent = {name: value for name, value in fields.items() if value is not None}
    message = decode(as_text({"type": "emotion"} | sent)).message
    assert isinstance(message, EmotionEvent)
    default = EmotionEvent(id="default")
    assert message == EmotionEvent(
        id=fields["id"],
        emotion=fields["emotion"],
        intensity=sent.get("intensity", default.intensity),
        mix=sent.get("mix", default.mix),
        attack_s=sent["attack_ms"] / 1000.0 if "attack_ms" in sent else None,
        hold_s=sent["hold_ms"] / 1000.0 if "hold_ms" in sent else None,
        at_s=sent.get("at_ms", 0.0) / 1000.0,
        policy=sent.get("policy", default.policy),
        priority=sent.get("priority", default.priority),
        ttl_s=sent["ttl_ms"] / 1000.0 if "ttl_ms" in sent else None,
    )
    assert math.isfinite(message.intensity)


@given(anything)
def test_a_ping_comes_back_as_it_was(t: Any) -> None:
    """`t` survives the way in and out, whatever JSON it is."""
    found = outcome(as_text({"type": "ping", "t": t}))
    assert isinstance(found, Incoming)
    assert isinstance(found.message, Ping)
    assert json.loads(encode_pong(found.message)) == {"type": "pong", "t": t}


@given(
    st.lists(
        st.tuples(st.sampled_from(["type", "id", "emotion", "mix", "x"]), st.booleans()),
        max_size=6,
    )
)
def test_equal_keys_are_never_guessed_at(members: list[tuple[str, bool]]) -> None:
    """An object with a key twice is refused; one without is not refused for that."""
    values = {
        "type": ['"emotion"', '"emotion" '],
        "id": ['"a"', '"a:b"'],
        "emotion": ['"happy"', '"a:b:c"'],
        "mix": ['{"sad":1}', '{"sad":1,"x:y":0.5}'],
        "x": ["1", '{"y":{"y":":"}}'],
    }
    body = ",".join(f'"{key}":{values[key][other]}' for key, other in members)
    found = outcome(f"{{{body}}}")
    keys = [key for key, _ in members]
    twice = isinstance(found, InvalidEventError) and "twice" in str(found)
    assert twice == (len(set(keys)) < len(keys))
