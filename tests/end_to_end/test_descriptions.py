"""What the running daemon says is what its descriptions say, to the last field."""

import asyncio
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.fakes.daemon import DaemonProcess
from tests.fakes.descriptions import Contract
from tests.fakes.waiting import until

ASTRONAUT = Path(__file__).parents[2] / "config" / "characters" / "astronaut"
PROTOCOL = Path(__file__).parents[1] / "golden" / "protocol"
THUMBNAIL = "GET /v1/characters/{name}/thumbnail.jpg"
LEAVE_OUT = {"/openapi.json", "/asyncapi.json"}  # tested by themselves

# Everything that a producer can hear, in one conversation.
CONVERSATION: tuple[dict[str, Any], ...] = (
    {"type": "emotion", "id": "a", "emotion": "joy", "intensity": 0.5, "hold_ms": 50},
    {"type": "emotion", "id": "a", "emotion": "joy", "intensity": 0.5, "hold_ms": 50},
    {"type": "emotion", "id": "late", "emotion": "sad", "policy": "queue", "ttl_ms": 1},
    {"type": "emotion", "id": "worse", "emotion": "hapy"},
    {"type": "emotion", "id": "bad", "emotion": "happy", "intensity": "much"},
    {"type": "state", "state": "speaking"},
    {"type": "mood", "id": "m", "valence": 0.2, "arousal": 0.1},
    {"type": "text", "id": "t", "delta": "[sad:0.4] oh", "final": True},
    {"type": "controls", "weights": {"jawOpen": 0.2}},
    {"type": "controls", "id": "c", "weights": {"jawOpn": 0.2}},
    {"type": "get_state", "id": "g"},
    {"type": "ping", "t": [1, 2]},
    {"type": "character", "id": "s", "character": "astronaut"},
)
LAST: tuple[dict[str, Any], ...] = (
    {"type": "emotion", "id": "b", "emotion": "surprised", "hold_ms": None, "attack_ms": 0},
    {"type": "emotion", "id": "n", "emotion": "neutral", "policy": "blend", "hold_ms": 50},
    {"type": "interrupt", "id": "i"},
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path_factory.mktemp("state")) as process:
        yield process


@pytest.fixture(scope="module")
def openapi(daemon: DaemonProcess) -> Contract:
    return Contract(httpx.get(f"{daemon.http}/openapi.json").json(), strict=True)


@pytest.fixture(scope="module")
def asyncapi(daemon: DaemonProcess) -> Contract:
    return Contract(httpx.get(f"{daemon.http}/asyncapi.json").json(), strict=True)


async def test_every_route_of_the_daemon_is_described(
    daemon: DaemonProcess, openapi: Contract
) -> None:
    """Whoever adds a route finds here what to write, and where."""
    async with connect(f"{daemon.ws}/v1/events"):  # what was logged before has come by then, too
        await until(lambda: bool(daemon.logged("producer_connected")))
    missing = [line["what"] for line in daemon.logged("route_not_described")]
    assert not missing, "\n".join(missing)
    assert "/v1/frames" in openapi.document["paths"]


async def test_every_message_is_as_described(daemon: DaemonProcess, asyncapi: Contract) -> None:
    """All kinds of messages are heard, and none has a field that is not described."""
    described = set(asyncapi.document["channels"]["events"]["messages"])
    received = {
        message["$ref"].rpartition("/")[2]
        for operation in asyncapi.document["operations"].values()
        for message in operation["messages"]
        if operation["action"] == "receive"
    }
    heard: dict[str, dict[str, Any]] = {}
    async with connect(f"{daemon.ws}/v1/events") as producer, asyncio.timeout(30):

        async def listen_until(kind: str) -> None:
            while True:
                message = json.loads(await producer.recv())
                assert asyncapi.message_problems(message) == [], message
                heard[message["type"]] = message
                if message["type"] == kind:
                    return

        for message in CONVERSATION:
            await producer.send(json.dumps(message))
        await listen_until("character.switched")
        await listen_until("emotion.finished")
        for message in LAST:
            await producer.send(json.dumps(message))
        await listen_until("interrupt.done")
    assert set(heard) == described - received


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "png"])
async def test_frame_headers_are_as_described(
    daemon: DaemonProcess, asyncapi: Contract, image_format: str
) -> None:
    """The header of a frame has the fields of the description, and no others."""
    described = asyncapi.document["components"]["messages"]["avf1"]["headers"]
    async with connect(f"{daemon.ws}/v1/frames?format={image_format}", max_size=None) as viewer:
        message = await asyncio.wait_for(viewer.recv(), 10)
    assert isinstance(message, bytes)
    (length,) = struct.unpack_from("<I", message, 4)
    header = json.loads(message[8 : 8 + length])
    assert asyncapi.problems(header, described) == []


def test_every_question_is_answered_as_described(daemon: DaemonProcess, openapi: Contract) -> None:
    """Whatever can be asked with a plain GET: status, content type and every field."""
    asked = 0
    for path, methods in openapi.document["paths"].items():
        operation = methods.get("get")
        if operation is None or "{" in path or "101" in operation["responses"]:
            continue
        with httpx.stream("GET", daemon.http + path) as response:
            contents = operation["responses"][str(response.status_code)].get("content", {})
            kind = response.headers["content-type"].partition(";")[0]
            assert kind in contents, path
            if kind == "application/json" and path not in LEAVE_OUT:
                problems = openapi.answer_problems(
                    f"GET {path}", response.status_code, json.loads(response.read())
                )
                assert problems == [], path
            asked += 1
    assert asked >= 8


def test_posts_are_answered_as_described(daemon: DaemonProcess, openapi: Contract) -> None:
    """Every example of the protocol by POST, the wrong ones as well."""
    examples = [
        *(json.loads(line) for line in lines("client.jsonl")),
        *(json.loads(line)["message"] for line in lines("client_refused.jsonl")),
        {"type": "emotion", "id": "evt-17", "emotion": "sad"},
        {"type": "emotion", "emotion": "happy", "stage": "nowhere"},
        {"type": "character", "character": "nobody"},
    ]
    statuses = set()
    with httpx.Client(base_url=daemon.http) as client:
        for example in examples:
            response = client.post("/v1/events", json=example)
            statuses.add(response.status_code)
            problems = openapi.answer_problems(
                "POST /v1/events", response.status_code, response.json()
            )
            assert problems == [], (example, response.text)
    assert statuses == {200, 202, 400, 404, 409}


def test_a_character_may_come_as_a_form_or_as_json(openapi: Contract) -> None:
    """Each with the type that checks it: a file in the one, an address in the other."""
    content = openapi.document["paths"]["/v1/characters"]["post"]["requestBody"]["content"]
    named = {kind: media["schema"]["$ref"].rpartition("/")[2] for kind, media in content.items()}
    assert named == {
        "multipart/form-data": "CharacterForm",
        "application/json": "CharacterRequest",
    }


def test_what_comes_and_goes_is_answered_as_described(
    daemon: DaemonProcess, openapi: Contract
) -> None:
    """Stages, characters and single pictures: statuses, content types and fields."""
    portrait = ("me.jpg", (ASTRONAUT / "portrait.jpg").read_bytes(), "image/jpeg")
    calls: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
        ("POST /v1/stages", "/v1/stages", 201, {"json": {"name": "lobby", "fps": 15}}),
        ("POST /v1/stages", "/v1/stages", 409, {"json": {"name": "lobby"}}),
        ("POST /v1/stages", "/v1/stages", 400, {"json": {"name": "No Name"}}),
        ("GET /v1/stages", "/v1/stages", 200, {}),
        ("GET /v1/state", "/v1/state?stage=lobby", 200, {}),
        ("DELETE /v1/stages/{name}", "/v1/stages/lobby", 204, {}),
        ("DELETE /v1/stages/{name}", "/v1/stages/lobby", 404, {}),
        ("DELETE /v1/stages/{name}", "/v1/stages/main", 409, {}),
        ("POST /v1/characters", "/v1/characters", 201, form(name="me", portrait=portrait)),
        ("POST /v1/characters", "/v1/characters", 409, form(name="me", portrait=portrait)),
        ("POST /v1/characters", "/v1/characters", 400, form(name="you")),
        ("POST /v1/characters", "/v1/characters", 400, {"json": {"name": "you"}}),
        ("GET /v1/characters", "/v1/characters", 200, {}),
        (THUMBNAIL, "/v1/characters/me/thumbnail.jpg", 200, {}),
        ("DELETE /v1/characters/{name}", "/v1/characters/me", 204, {}),
        ("DELETE /v1/characters/{name}", "/v1/characters/me", 404, {}),
        ("DELETE /v1/characters/{name}", "/v1/characters/astronaut", 409, {}),
        ("POST /api/render", "/api/render", 200, form(expression="happy")),
        ("POST /api/render", "/api/render", 400, form(expression="hapy")),
        ("POST /api/render/batch", "/api/render/batch", 200, form(expressions="happy")),
    )
    with httpx.Client(base_url=daemon.http, timeout=30) as client:
        for operation, path, status, what in calls:
            response = client.request(operation.partition(" ")[0], path, **what)
            about = (operation, path, response.text[:300])
            assert response.status_code == status, about
            method, _, template = operation.partition(" ")
            described = openapi.document["paths"][template][method.lower()]["responses"]
            contents = described[str(status)].get("content", {})
            kind = response.headers.get("content-type", "").partition(";")[0]
            assert (kind in contents) if contents else not response.content, about
            if kind == "application/json":
                assert openapi.answer_problems(operation, status, response.json()) == [], about


def test_errors_are_as_described(daemon: DaemonProcess, openapi: Contract) -> None:
    """The body of an error has the code of the list, wherever it comes from."""
    with httpx.Client(base_url=daemon.http) as client:
        for path in ("/v1/state?stage=nowhere", "/v1/frames?format=gif", "/v1/events"):
            response = client.get(path)
            problems = openapi.answer_problems(
                f"GET {path.partition('?')[0]}", response.status_code, response.json()
            )
            assert problems == [], (path, response.text)


def form(**fields: str | tuple[str, bytes, str]) -> dict[str, Any]:
    """As a page sends a form: texts, and files with their names and types."""
    parts = {
        name: (None, value) if isinstance(value, str) else value for name, value in fields.items()
    }
    return {"files": parts}


def lines(name: str) -> list[str]:
    return (PROTOCOL / name).read_text("utf-8").splitlines()
