"""`/asyncapi.json`: valid, complete, and true to the structs of the WebSockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator

from adapters import asyncapi, event_codec, frame_codec, producer_answers
from adapters.producer_messages import MESSAGES
from tests.fakes.descriptions import Contract
from tests.fakes.http_server import served

GOLDEN = Path(__file__).parents[1] / "golden"
ONLY_BY_POST = {"interrupt.accepted", "character.accepted", "controls.accepted"}


def examples(name: str) -> list[Any]:
    """The examples of the protocol in that file, one a line."""
    lines = (GOLDEN / "protocol" / name).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """As JSON that is read back."""
    found: dict[str, Any] = json.loads(json.dumps(asyncapi.document()))
    return found


def test_it_is_valid_asyncapi(document: dict[str, Any]) -> None:
    """AsyncAPI's own schema of version 3.0.0 has nothing to complain about."""
    schema = json.loads((GOLDEN / "asyncapi" / "3.0.0.json").read_text("utf-8"))
    problems = [error.message for error in Draft7Validator(schema).iter_errors(document)]
    assert problems == []
    assert document["asyncapi"] == "3.0.0"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` points to what is not in the document, which the schema alone does not see."""

    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [each for part in value for each in references(part)]
        if not isinstance(value, dict):
            return []
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + references(list(value.values()))

    for reference in set(references(document)):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in found, reference
            found = found[part]


def test_every_message_of_producers_has_its_replies(document: dict[str, Any]) -> None:
    """Each struct that is decoded is received; each answer can be sent over the WebSocket."""
    assert set(asyncapi.REPLIES) == set(MESSAGES)
    received = {
        message["$ref"].rpartition("/")[2]
        for operation in document["operations"].values()
        for message in operation["messages"]
        if operation["action"] == "receive"
    }
    assert received == set(event_codec.SERVED_TYPES)
    answers = {
        str(struct.__struct_config__.tag)
        for name, struct in vars(producer_answers).items()
        if isinstance(struct, type)
        and not name.startswith("_")
        and issubclass(struct, msgspec.Struct)
        and struct.__struct_config__.tag not in (None, name)  # no base of others
        and struct not in MESSAGES
    }
    listed = set(document["channels"]["events"]["messages"])
    assert answers - ONLY_BY_POST == listed - received - {"hello", "state_snapshot"}


@pytest.mark.parametrize("message", examples("client.jsonl"), ids=json.dumps)
def test_messages_of_the_protocol_fit(document: dict[str, Any], message: dict[str, Any]) -> None:
    """What the protocol page sends is what the schema of its type takes."""
    assert Contract(document).message_problems(message) == []


@pytest.mark.parametrize("message", examples("server.jsonl"), ids=json.dumps)
def test_answers_of_the_protocol_fit(document: dict[str, Any], message: dict[str, Any]) -> None:
    """What the protocol page answers is what the schema of its type says, and nothing more."""
    assert Contract(document, strict=True).message_problems(message) == []


@pytest.mark.parametrize("header", examples("frames.jsonl"), ids=json.dumps)
def test_frame_headers_of_the_protocol_fit(document: dict[str, Any], header: Any) -> None:
    """The `avf1` header is described by the struct that encodes it."""
    msgspec.convert(header, frame_codec.FrameHeader)
    contract = Contract(document, strict=True)
    described = document["components"]["messages"]["avf1"]["headers"]
    assert contract.problems(header, described) == []
    assert contract.problems({**header, "format": "gif"}, described) != []


def test_the_examples_are_messages(document: dict[str, Any]) -> None:
    """Every message of producers has an example that its own schema takes."""
    contract = Contract(document, strict=True)
    for kind in event_codec.SERVED_TYPES:
        (example,) = document["components"]["messages"][kind]["examples"]
        assert example["payload"]["type"] == kind
        assert contract.message_problems(example["payload"]) == []


def test_queries_are_those_that_are_checked(document: dict[str, Any]) -> None:
    """What may stand behind the `?` of both addresses."""
    queries = {
        name: set(channel["bindings"]["ws"]["query"]["properties"])
        for name, channel in document["channels"].items()
        if "bindings" in channel
    }
    assert queries == {
        "events": {"stage", "token"},
        "frames": {"stage", "format", "framing", "max_fps", "token"},
    }


async def test_it_is_served(document: dict[str, Any]) -> None:
    """`/asyncapi.json` is this document."""
    async with served() as running:
        response = await running.http.get("/asyncapi.json")
    assert response.headers["content-type"].startswith("application/json")
    assert response.json() == document
