"""Messages of producers as text."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pytest

from adapters import event_codec
from adapters.event_codec import SERVED_TYPES, decode, encode, peek_id, type_name
from adapters.producer_messages import AnyMessage, Ping
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import (
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
    StageReply,
    StateChange,
    StateOk,
    StateSnapshot,
    TextClean,
    TextCue,
    TextDelta,
)


def text(**fields: Any) -> str:
    return msgspec.json.encode(fields).decode()


def emotion(**fields: Any) -> str:
    return text(**({"type": "emotion", "id": "e", "emotion": "happy"} | fields))


def decoded_emotion(**fields: Any) -> EmotionEvent:
    message = decode(emotion(**fields)).message
    assert isinstance(message, EmotionEvent)
    return message


def error(data: bytes | str) -> InvalidEventError:
    with pytest.raises(InvalidEventError) as caught:
        decode(data)
    return caught.value


# --- what comes in ------------------------------------------------------------------------


def test_every_field_of_an_emotion_arrives_with_times_in_seconds() -> None:
    """The protocol's example becomes the event that it describes."""
    incoming = decode(
        b'{"type":"emotion","id":"evt-17","emotion":"happy","intensity":0.7,'
        b'"mix":{"surprised":0.2},"attack_ms":250,"hold_ms":2000,"decay_ms":600,"at_ms":50,'
        b'"policy":"override","priority":7,"ttl_ms":3000,"stage":"second"}'
    )
    assert incoming.stage == "second"
    assert incoming.message == EmotionEvent(
        id="evt-17",
        emotion="happy",
        intensity=0.7,
        mix={"surprised": 0.2},
        attack_s=0.25,
        hold_s=2.0,
        decay_s=0.6,
        at_s=0.05,
        policy=Policy.OVERRIDE,
        priority=7,
        ttl_s=3.0,
    )


def test_fields_left_out_take_the_protocols_defaults() -> None:
    """An emotion alone is a whole event."""
    assert decoded_emotion() == EmotionEvent(id="e", emotion="happy")
    assert decode(emotion()).stage is None


def test_an_id_is_made_where_none_was_sent() -> None:
    """Every cue has an id of its own, in the protocol's form."""
    messages = [decode('{"type":"emotion","emotion":"sad"}').message for _ in range(2)]
    ids = [message.id for message in messages if isinstance(message, EmotionEvent)]
    assert len(set(ids)) == 2
    assert all(one.startswith("evt-") and len(one) <= 64 for one in ids)


@pytest.mark.parametrize(
    ("field", "sent", "attribute", "value"),
    [
        ("hold_ms", None, "hold_s", math.inf),
        ("hold_ms", 0, "hold_s", 0.0),
        ("hold_ms", 3_600_000, "hold_s", 3600.0),
        ("attack_ms", 0, "attack_s", 0.0),
        ("attack_ms", 60_000, "attack_s", 60.0),
        ("decay_ms", 0.5, "decay_s", 0.0005),
        ("at_ms", 60_000, "at_s", 60.0),
        ("ttl_ms", None, "ttl_s", None),
        ("ttl_ms", 1, "ttl_s", 0.001),
        ("ttl_ms", 3_600_000, "ttl_s", 3600.0),
        ("priority", 0, "priority", 0),
        ("priority", 9, "priority", 9),
        ("intensity", -3, "intensity", -3.0),
        ("intensity", 1e300, "intensity", 1e300),
        ("id", " ~", "id", " ~"),
        ("id", "x" * 64, "id", "x" * 64),
        ("mix", {}, "mix", {}),
        ("mix", {"sad": -1, "joy": 7}, "mix", {"sad": -1.0, "joy": 7.0}),
    ],
)
def test_values_at_the_edge_of_their_range_are_taken(
    field: str, sent: Any, attribute: str, value: Any
) -> None:
    """Ranges include their ends; strengths are passed on for the core to clamp."""
    assert getattr(decoded_emotion(**{field: sent}), attribute) == value


def test_a_mix_needs_no_main_emotion() -> None:
    """`emotion` may be left out where `mix` is given."""
    message = decode('{"type":"emotion","id":"m","mix":{"sad":0.5}}').message
    assert message == EmotionEvent(id="m", emotion=None, mix={"sad": 0.5})


def test_fields_that_are_not_named_in_the_protocol_are_ignored() -> None:
    """Whatever they hold: nested objects, equal keys deep inside, numbers beyond a float."""
    extra = '{"type":"ping","t":1,"x":{"y":{"y":1,"y":2}},"z":1e999,"s":"a:b:c"}'
    assert decode(extra).message == Ping(b"1")


def test_the_other_messages_arrive() -> None:
    """Each type of the protocol that is served becomes its value."""
    assert decode('{"type":"interrupt","id":"i"}').message == Interrupt("i", 0.12)
    assert decode('{"type":"interrupt","id":"i","fade_ms":0}').message == Interrupt("i", 0.0)
    assert decode('{"type":"get_state"}').message == GetState(None)
    assert decode('{"type":"get_state","id":"g"}').message == GetState("g")
    mood = '{"type":"mood","valence":-1,"arousal":1,"decay_ms":500}'
    assert decode(mood).message == Mood(None, -1.0, 1.0, 0.5)
    switch = '{"type":"character","id":"c","character":"astronaut"}'
    assert decode(switch).message == CharacterSwitch("c", "astronaut")
    assert decode('{"type":"ping"}').message == Ping(b"null")
    assert decode('{"type":"controls"}').message == DirectControls()
    controls = (
        '{"type":"controls","id":"c","mode":"add","weights":{"jawOpen":0.8,"EyeBlinkLeft":1},'
        '"head":{"yaw":-12.5},"weight":0.5}'
    )
    assert decode(controls).message == DirectControls(
        "c", ControlsMode.ADD, {"jawOpen": 0.8, "eyeBlinkLeft": 1.0}, {"yaw": -12.5}, 0.5
    )
    state = '{"type":"state","id":"s","state":"listening"}'
    assert decode(state).message == StateChange("s", Activity.LISTENING)
    assert decode('{"type":"state","state":"idle"}').message == StateChange(None, Activity.IDLE)
    delta = '{"type":"text","id":"t","delta":"a: [hap","final":false}'
    assert decode(delta).message == TextDelta("t", "a: [hap", False)
    assert decode('{"type":"text","id":"t","final":true}').message == TextDelta("t", "", True)


@pytest.mark.parametrize("t", ["0", "1.50", "1e999", '"x"', "null", '{"a":[1,2.50,{}]}', "9" * 500])
def test_a_pong_holds_the_pings_t_to_the_last_digit(t: str) -> None:
    """`t` may be any JSON and comes back as it was written."""
    message = decode(f'{{"type":"ping","t":{t}}}').message
    assert isinstance(message, Ping)
    assert event_codec.encode_pong(message) == f'{{"type":"pong","t":{t}}}'.encode()


def test_text_and_bytes_are_read_alike() -> None:
    """A message may come as UTF-8 or as text."""
    sent = emotion(emotion="fröhlich")
    assert decode(sent) == decode(sent.encode())


REQUIRED: dict[str, dict[str, Any]] = {
    "emotion": {"emotion": "x"},
    "character": {"character": "x"},
    "text": {"id": "t"},
    "state": {"state": "idle"},
}


def test_type_names_are_those_of_the_wire() -> None:
    """Every message knows its `type`."""
    for name in SERVED_TYPES:
        fields = REQUIRED.get(name, {})
        assert type_name(decode(text(type=name, **fields)).message) == name


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"x",
        b"nul",
        b'{"type":"ping"} x',
        b'{"type":"ping",}',
        b"{'type':'ping'}",
        b'{"type":"ping","t":NaN}',
        b'{"type":"emotion","emotion":"x","intensity":Infinity}',
        b'{"type":"emotion","emotion":"x","intensity":-Infinity}',
        b'{"type":"emotion","emotion":"x","intensity":01}',
        b'{"type":"ping","t":"\xff"}',
        b"\xff\xfe\x00",
        b'\xef\xbb\xbf{"type":"ping"}',
        b'{"type":"emotion","emotion":"\\ud800"}',
        b'{"type":"ping","t":"\xed\xa0\x80"}',
        '{"type":"emotion","emotion":"\ud800"}',
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"type":"ping","t":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
)
def test_what_is_no_json_is_invalid_json(data: bytes | str) -> None:
    """Text that is no JSON (RFC 8259) or no Unicode is refused, and said to be."""
    found = error(data)
    assert found.code is ErrorCode.INVALID_JSON
    assert found.event_id is None
    assert str(found).startswith("the message is not")
    str(found).encode()


@pytest.mark.parametrize("delta", [r"a\ud83d", r"\ude00b", r"\uDE00 \uD83D"])
def test_a_delta_may_be_cut_within_a_surrogate_pair(delta: str) -> None:
    """As JavaScript cuts a string; whoever reads the text joins the halves."""
    data = f'{{"type":"text","id":"t1","delta":"{delta}","final":true,"extra":[1]}}'
    for each in (data, data.encode()):
        assert decode(each).message == TextDelta("t1", json.loads(f'"{delta}"'), final=True)


@pytest.mark.parametrize(
    "data",
    [
        r'{"type":"text","id":"\ud83d","delta":"a"}',
        r'{"type":"text","id":"t","delta":"\ud83d","stage":"\ud83d"}',
        r'{"type":"text","id":"t","delta":"\ud83d","delta":"a"}',
        r'{"type":"text","id":"t","delta":"\ud83d"',
        r'{"type":"ping","t":1,"delta":"\ud83d"}',
        '{"type":"text","id":"t","delta":"\ud83d"}',
    ],
)
def test_half_a_pair_anywhere_else_is_no_json(data: str) -> None:
    """Only a delta continues elsewhere."""
    assert error(data).code is ErrorCode.INVALID_JSON


@pytest.mark.parametrize("data", ["[]", "1", '"emotion"', "null", "true", '[{"type":"ping"}]'])
def test_a_message_is_an_object(data: str) -> None:
    """Other JSON is an invalid message."""
    found = error(data)
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, None)
    assert "object" in str(found)


WRONG_VALUES: dict[str, list[Any]] = {
    "id": ["", "x" * 65, "é", "a\nb", "a\n", "\x7f", 7, None, []],
    "emotion": [None, 7, True, [], {}, "x" * 129],
    "intensity": ["0.5", None, True, False, [], {}],
    "mix": [None, [], "happy", 1, {str(n): 1 for n in range(65)}],
    "attack_ms": [-1, 60_000.001, "250", None, True],
    "decay_ms": [-0.001, 60_001, "250", None, False],
    "hold_ms": [-1, 3_600_001, "null", True],
    "at_ms": [-1, 60_001, None, "0"],
    "policy": ["REPLACE", "", None, 0, ["replace"]],
    "priority": [-1, 10, 5.5, "5", None, True],
    "ttl_ms": [0, 0.5, 3_600_001, "1", True],
    "stage": [None, 1, "x" * 65],
}


@pytest.mark.parametrize(
    ("field", "sent"), [(field, sent) for field, values in WRONG_VALUES.items() for sent in values]
)
def test_a_wrong_field_is_named(field: str, sent: Any) -> None:
    """The error names the field, says what would be right, and carries the id."""
    found = error(emotion(**{field: sent}))
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, field)
    assert f"`{field}`" in str(found)
    assert len(str(found)) < 250
    assert found.event_id == (None if field == "id" else "e")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "9" * 10_000, "1" + "0" * 309])
@pytest.mark.parametrize("field", ["intensity", "attack_ms", "priority"])
def test_numbers_beyond_a_float_are_refused(field: str, number: str) -> None:
    """A number that no float can hold is a wrong value of its field."""
    found = error(f'{{"type":"emotion","id":"e","emotion":"x","{field}":{number}}}')
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, field)
    assert found.event_id == "e"


@pytest.mark.parametrize("strength", ['"x"', "null", "true", "[]", "1e999"])
def test_a_wrong_strength_in_a_mix_is_named_in_full(strength: str) -> None:
    """The field is `mix.` and the label to blame."""
    found = error(f'{{"type":"emotion","id":"e","mix":{{"sad":1,"happy":{strength}}}}}')
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, "mix.happy")


def test_a_label_too_long_in_a_mix_is_named_in_short() -> None:
    """An error never sends back all that it complains about."""
    found = error(emotion(mix={"x" * 5000: 1}))
    assert found.field is not None
    assert found.field.startswith("mix.xxx")
    assert len(found.field) < 60


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ('{"type":"emotion","id":"e","emotion":"a","emotion":"b"}', "emotion"),
        ('{"type":"emotion","id":"e","emotion":"a","emotion":"a"}', "emotion"),
        ('{"type":"emotion","id":"e","mix":{"a":1,"a":1}}', "mix.a"),
        ('{"type":"emotion","id":"e","type":"ping"}', "type"),
        ('{"type":"ping","id":"e","t":1,"t":2}', "t"),
        ('{"type":"emotion","id":"e","emotion":"a:b","x":1,"x":{"a":":"}}', "x"),
        ('{"type":"emotion","id":"e","emotion":"a","\\u0065motion":"b"}', "emotion"),
    ],
)
def test_a_field_that_is_there_twice_is_refused(data: str, field: str) -> None:
    """Which of the two was meant cannot be known."""
    found = error(data)
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, field)
    assert "twice" in str(found)


@pytest.mark.parametrize("fields", [{}, {"mix": {}}])
def test_an_emotion_must_name_one(fields: dict[str, Any]) -> None:
    """Neither `emotion` nor `mix` is an invalid message about `emotion`."""
    found = error(text(type="emotion", id="e", **fields))
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, "emotion")
    assert found.event_id == "e"


def test_a_required_field_that_is_missing_is_named() -> None:
    """`character` without a character is refused by that name."""
    found = error('{"type":"character","id":"c"}')
    assert (found.code, found.field, found.event_id) == (
        ErrorCode.INVALID_MESSAGE,
        "character",
        "c",
    )


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "id"),
        ({"id": "é"}, "id"),
        ({"id": "t", "delta": 7}, "delta"),
        ({"id": "t", "delta": None}, "delta"),
        ({"id": "t", "final": "yes"}, "final"),
    ],
)
def test_a_wrong_field_of_a_text_is_named(fields: dict[str, Any], wrong: str) -> None:
    """A text needs an id; its piece is a string, `final` a boolean."""
    found = error(text(type="text", **fields))
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, wrong)


@pytest.mark.parametrize("state", ["sleeping", "", "Idle", None, 1, ["idle"]])
def test_an_unknown_state_is_told_the_four(state: Any) -> None:
    """The sentence names what there is."""
    found = error(text(type="state", id="s", state=state))
    assert (found.code, found.field, found.event_id) == (ErrorCode.INVALID_MESSAGE, "state", "s")
    assert all(name in str(found) for name in ("idle", "listening", "thinking", "speaking"))
    assert error(text(type="state")).field == "state"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"mode": "mix"}, "mode"),
        ({"weight": 1.1}, "weight"),
        ({"weight": -0.1}, "weight"),
        ({"weight": None}, "weight"),
        ({"weights": [0.1]}, "weights"),
        ({"weights": {"jawOpen": 1.01}}, "weights.jawOpen"),
        ({"weights": {"jawOpen": -0.01}}, "weights.jawOpen"),
        ({"weights": {"jawLeft": 0.1, "jawOpen": "0.5"}}, "weights.jawOpen"),
        ({"weights": {"jawOpn": 0.5}}, "weights.jawOpn"),
        ({"weights": {"x" * 100: 0.5}}, f"weights.{'x' * 40}…"),
        ({"weights": {"jawOpen": 0.5, "JawOpen": 0.5}}, "weights.JawOpen"),
        ({"head": 3}, "head"),
        ({"head": {"pitch": 45.1}}, "head.pitch"),
        ({"head": {"yaw": 0, "roll": None}}, "head.roll"),
        ({"id": "", "weights": {}}, "id"),
    ],
)
def test_a_wrong_field_of_controls_is_named_in_full(fields: dict[str, Any], wrong: str) -> None:
    """Names and ranges are checked one by one."""
    found = error(text(**({"type": "controls", "id": "c"} | fields)))
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, wrong)
    assert found.event_id == (None if wrong == "id" else "c")
    assert len(str(found)) < 200


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400])
@pytest.mark.parametrize(("name", "key"), [("weights", "jawOpen"), ("head", "yaw")])
def test_controls_beyond_a_float_are_refused(name: str, key: str, number: str) -> None:
    """By the name of the entry."""
    found = error(f'{{"type":"controls","{name}":{{"{key}":{number}}}}}')
    assert found.field == f"{name}.{key}"


@pytest.mark.parametrize("name", ["weights", "head"])
def test_a_control_that_is_there_twice_is_refused(name: str) -> None:
    """Neither of the two counts."""
    key = {"weights": "jawOpen", "head": "yaw"}[name]
    found = error(f'{{"type":"controls","{name}":{{"{key}":0.1,"{key}":0.2}}}}')
    assert found.field == f"{name}.{key}"
    assert "twice" in str(found)


def test_near_names_are_suggested_for_an_unknown_control() -> None:
    """As ARKit spells them."""
    found = error(text(type="controls", weights={"mouthsmile_left": 0.5}))
    assert found.suggestions[0] == "mouthSmileLeft"
    assert "mouthSmileLeft" in str(found)
    assert error(text(type="controls", weights={"_": 0.5})).suggestions == ()


@pytest.mark.parametrize("message", [{"emotion": "happy"}, {"type": None}, {"type": 7}])
def test_a_message_without_a_type_is_told_the_types(message: dict[str, Any]) -> None:
    """The sentence lists what there is."""
    found = error(text(**message))
    assert (found.code, found.field) == (ErrorCode.INVALID_MESSAGE, "type")
    assert all(name in str(found) for name in SERVED_TYPES)


@pytest.mark.parametrize("name", ["control", "Text", "Emotion", "", "x" * 1000])
def test_an_unknown_type_is_told_the_types(name: str) -> None:
    """Types that this version does not serve are unknown, not silently dropped."""
    found = error(text(type=name, id="e"))
    assert (found.code, found.field, found.event_id) == (ErrorCode.UNKNOWN_TYPE, "type", "e")
    assert all(served in str(found) for served in SERVED_TYPES)
    assert len(str(found)) < 200


@pytest.mark.parametrize(
    ("data", "event_id"),
    [
        (b'{"type":"whatever","id":"e"}', "e"),
        (b'{"id":"e","x":[1,2]}', "e"),
        (b'{"id":7}', None),
        (b'{"id":"\xc3\xa9"}', None),
        (b"{}", None),
        (b"[]", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_the_id_of_an_unread_message_can_be_had(data: bytes, event_id: str | None) -> None:
    """Refusals without decoding can still name the message."""
    assert peek_id(data) == event_id


# --- what goes out ------------------------------------------------------------------------

WRONG = ErrorInfo("unknown_emotion", "there is no hapy", "emotion", ("happy",))


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (
            CueAccepted("e", "happy", 1.0, {"sad": 0.4 + 0.2, "angry": 0.25}, "joy", True),
            {
                "type": "emotion.accepted",
                "id": "e",
                "used": "happy",
                "intensity": 1.0,
                "mix": {"sad": 0.6, "angry": 0.25},
                "mapped_from": "joy",
                "clamped": True,
                "duplicate": False,
            },
        ),
        (
            CueAccepted("e", "happy", 0.5, {}, None, False, duplicate=True),
            {
                "type": "emotion.accepted",
                "id": "e",
                "used": "happy",
                "intensity": 0.5,
                "mix": {},
                "mapped_from": None,
                "clamped": False,
                "duplicate": True,
            },
        ),
        (
            CueStarted("e", 12, 0.4000004, 0.0123456),
            {
                "type": "emotion.started",
                "id": "e",
                "seq": 12,
                "pts_ms": 400.0,
                "latency_ms": 12.346,
            },
        ),
        (
            CuePeaked("e", 13, 1.0, 0.25, no_change=True),
            {
                "type": "emotion.peaked",
                "id": "e",
                "seq": 13,
                "pts_ms": 1000.0,
                "latency_ms": 250.0,
                "no_change": True,
            },
        ),
        (
            CueFinished("e", 14, 2.0),
            {"type": "emotion.finished", "id": "e", "seq": 14, "pts_ms": 2000.0},
        ),
        (
            CueSuperseded("e", "f", 15, 2.5),
            {"type": "emotion.superseded", "id": "e", "by": "f", "seq": 15, "pts_ms": 2500.0},
        ),
        (CueExpired("e"), {"type": "emotion.expired", "id": "e"}),
        (
            CueRejected("e", WRONG),
            {
                "type": "emotion.rejected",
                "id": "e",
                "error": {
                    "code": "unknown_emotion",
                    "message": "there is no hapy",
                    "field": "emotion",
                    "suggestions": ["happy"],
                },
            },
        ),
        (
            InterruptDone("i", ("a", "b"), 9, 0.3, 0.1),
            {
                "type": "interrupt.done",
                "id": "i",
                "superseded": ["a", "b"],
                "seq": 9,
                "pts_ms": 300.0,
                "latency_ms": 100.0,
            },
        ),
        (
            StateSnapshot("g", {"seq": 3, "weights": {"neutral": 1.0}}),
            {"type": "state_snapshot", "id": "g", "seq": 3, "weights": {"neutral": 1.0}},
        ),
        (MoodOk(None), {"type": "mood.ok", "id": None}),
        (StateOk("s"), {"type": "state.ok", "id": "s"}),
        (
            CharacterSwitched("c", "astronaut", 30),
            {"type": "character.switched", "id": "c", "character": "astronaut", "seq": 30},
        ),
        (
            TextClean("t", "Hi ", (TextCue("t.1", "happy", 0.5, 3),)),
            {
                "type": "text.clean",
                "id": "t",
                "delta": "Hi ",
                "cues": [{"id": "t.1", "emotion": "happy", "intensity": 0.5, "at": 3}],
            },
        ),
        (
            Failure(None, ErrorInfo("invalid_json", "no JSON")),
            {
                "type": "error",
                "id": None,
                "error": {
                    "code": "invalid_json",
                    "message": "no JSON",
                    "field": None,
                    "suggestions": [],
                },
            },
        ),
    ],
)
def test_every_answer_has_the_protocols_words(reply: StageReply, wire: dict[str, Any]) -> None:
    """Names, nesting and units are those of the protocol page."""
    assert msgspec.json.decode(encode(reply)) == wire


def test_what_the_core_computes_with_is_plain_on_the_wire() -> None:
    """numpy's numbers and read-only mappings go out as JSON numbers and objects."""
    body = {"fps": np.float64(30.0), "weights": MappingProxyType({"happy": np.float32(0.5)})}
    encoded = msgspec.json.decode(encode(StateSnapshot(None, body | {"seq": np.int64(3)})))
    assert encoded == {
        "type": "state_snapshot",
        "id": None,
        "fps": 30.0,
        "weights": {"happy": 0.5},
        "seq": 3,
    }
    accepted = CueAccepted("e", "happy", 1.0, MappingProxyType({"sad": 0.5}), None, False)
    assert msgspec.json.decode(encode(accepted))["mix"] == {"sad": 0.5}
    with pytest.raises(TypeError, match="no JSON form"):
        event_codec.encode_body({"x": object()})


def test_a_snapshot_keeps_its_type_and_id() -> None:
    """Nothing in a stage's body can take the place of the message's own fields."""
    encoded = msgspec.json.decode(encode(StateSnapshot("g", {"type": "x", "id": "y", "seq": 1})))
    assert encoded == {"type": "state_snapshot", "id": "g", "seq": 1}


def test_the_greeting_says_what_it_is() -> None:
    """`hello` is the stage's own words with the type first."""
    assert event_codec.encode_hello({"protocol": "1.0"}) == b'{"type":"hello","protocol":"1.0"}'


def test_an_http_error_has_the_protocols_form() -> None:
    """The error object stands alone in its body."""
    body = msgspec.json.decode(event_codec.encode_error(WRONG))
    assert body["error"]["code"] == "unknown_emotion"
    assert body["error"]["field"] == "emotion"


def test_the_structs_describe_themselves() -> None:
    """A JSON schema with ranges and descriptions comes from the validating types."""
    (schemas, components) = msgspec.json.schema_components([AnyMessage], ref_template="#/{name}")
    assert len(schemas[0]["anyOf"]) == len(SERVED_TYPES)
    properties = components["EmotionMessage"]["properties"]
    assert properties["attack_ms"]["maximum"] == 60_000.0
    assert all("description" in properties[name] for name in properties if name != "type")
