"""The schemas of producers' messages take what the decoder takes, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from adapters import event_codec
from adapters.producer_messages import MESSAGES
from adapters.schemas import Schemas
from pipeline.errors import InvalidEventError

EXAMPLES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden" / "protocol" / "client.jsonl")
    .read_text("utf-8")
    .splitlines()
]
_SCHEMAS = Schemas()
_MESSAGE = _SCHEMAS.of(*MESSAGES)
VALIDATOR = Draft202012Validator({**_MESSAGE, "components": {"schemas": _SCHEMAS.components}})

# JSON Schema calls 5.0 an integer, the decoder does not; and it leaves names of controls open.
numbers = st.one_of(
    st.integers(-(2**53), 2**53),
    st.sampled_from([-45, -1, 0, 1, 9, 10, 45, 46, 64, 60_000, 60_001, 3_600_000, 3_600_001]),
    st.floats(-1e9, 1e9).filter(lambda value: not value.is_integer()),
)
texts = st.one_of(
    st.text(max_size=70),
    st.sampled_from(["", "happy", "idle", "speaking", "set", "add", "queue", "x" * 64, "x" * 129]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=2),
    st.dictionaries(texts, scalars, max_size=3),
    st.dictionaries(st.sampled_from(["jawOpen", "tongueOut"]), numbers, max_size=2),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("pitch", "yaw", "roll"), numbers)),
)


def taken(message: Any) -> bool:
    try:
        event_codec.decode(json.dumps(message))
    except InvalidEventError as error:
        return (error.field or "").startswith("weights.") and "no control" in error.message
    return True


@settings(max_examples=300)
@given(st.sampled_from(EXAMPLES), st.data())
def test_schema_and_decoder_agree(example: dict[str, Any], data: st.DataObject) -> None:
    """Whatever stands in a field, or does not: either both take the message, or neither."""
    fields = sorted(_SCHEMAS.components[_struct(example)]["properties"])
    field = data.draw(st.sampled_from(sorted(example)) | st.sampled_from(fields), label="field")
    if data.draw(st.booleans(), label="left out"):
        message = {key: value for key, value in example.items() if key != field}
    else:
        message = {**example, field: data.draw(values, label="value")}
    assert VALIDATOR.is_valid(message) is taken(message), message


@given(values)
def test_what_is_no_message_is_none_for_both(value: Any) -> None:
    """Any JSON at all."""
    assert not taken(value)
    assert not VALIDATOR.is_valid(value)


def _struct(example: dict[str, Any]) -> str:
    reference: str = _MESSAGE["discriminator"]["mapping"][example["type"]]
    return reference.rpartition("/")[2]
