"""Text with tags, states and direct controls, as a producer of the running daemon uses them."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.fakes.daemon import DaemonProcess


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon with idle life, as a user has it."""
    with DaemonProcess(tmp_path_factory.mktemp("state")) as process:
        yield process


async def until(producer: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """Messages up to the first of that type."""
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not messages or messages[-1]["type"] != kind:
            messages.append(json.loads(await producer.recv()))
    return messages


async def test_an_llms_tagged_text_moves_the_face(daemon: DaemonProcess) -> None:
    """Deltas in, clean deltas out; the tag that was cut in two is a cue with its receipts."""
    async with connect(f"{daemon.ws}/v1/events") as producer:
        await until(producer, "hello")
        text = 'See [1]: <|ACT {"emotion":{"name":"joy","intensity":0.7}}|>how <b>nice</b>!'
        for piece in (text[:20], text[20:43], text[43:]):
            await producer.send(json.dumps({"type": "text", "id": "llm", "delta": piece}))
        await producer.send(json.dumps({"type": "text", "id": "llm", "final": True}))
        messages = await until(producer, "emotion.peaked")
    cleans = [message for message in messages if message["type"] == "text.clean"]
    assert "".join(clean["delta"] for clean in cleans) == "See [1]: how <b>nice</b>!"
    (cue,) = [cue for clean in cleans for cue in clean["cues"]]
    assert cue == {"id": "llm.1", "emotion": "happy", "intensity": 0.7, "at": 0}
    of_the_cue = [message["type"] for message in messages if message["id"] == "llm.1"]
    assert of_the_cue == ["emotion.accepted", "emotion.started", "emotion.peaked"]


def test_a_text_by_post(daemon: DaemonProcess) -> None:
    """Requests of one client are one text; the answer is the clean delta."""
    with httpx.Client(base_url=daemon.http) as client:
        answers = [
            client.post("/v1/events", json={"type": "text", "id": "p", "delta": d, "final": f})
            for d, f in (("Oh [sa", False), ("d:0.4] no", True))
        ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [answer.json()["delta"] for answer in answers] == ["Oh ", " no"]
    (cue,) = answers[1].json()["cues"]
    assert (cue["id"], cue["emotion"], cue["intensity"]) == ("p.1", "sad", 0.4)


async def test_a_state_is_seen_and_said(daemon: DaemonProcess) -> None:
    """Thinking moves the eyes and is in the snapshot; an unknown state is told the four."""
    async with connect(f"{daemon.ws}/v1/events") as producer:
        await until(producer, "hello")
        await producer.send('{"type":"state","id":"s","state":"thinking"}')
        assert (await until(producer, "state.ok"))[-1] == {"type": "state.ok", "id": "s"}
        async with httpx.AsyncClient(base_url=daemon.http) as client, asyncio.timeout(10):
            while True:
                await client.get("/v1/snapshot.jpg")
                state = (await client.get("/v1/state")).json()
                assert state["state"] == "thinking"
                if state["controls"].get("eyeLookUpLeft", 0.0) > 0.2:
                    break
                await asyncio.sleep(0.05)
        await producer.send('{"type":"state","state":"sleeping"}')
        error = (await until(producer, "error"))[-1]["error"]
        assert (error["code"], error["field"]) == ("invalid_message", "state")
        assert all(name in error["message"] for name in ("idle", "listening", "speaking"))
        await producer.send('{"type":"state","state":"idle"}')
        await until(producer, "state.ok")


async def test_controls_drive_the_face_directly(daemon: DaemonProcess) -> None:
    """A stream of controls is on the face while it lasts, and gone a second after it."""
    sent = {"type": "controls", "weights": {"jawOpen": 0.8}, "head": {"yaw": 8}}
    async with (
        connect(f"{daemon.ws}/v1/events") as producer,
        httpx.AsyncClient(base_url=daemon.http) as client,
    ):
        await until(producer, "hello")

        async def controls() -> dict[str, float]:
            state = (await client.get("/v1/state")).json()
            found: dict[str, float] = state["controls"]
            return found

        for _ in range(30):
            await producer.send(json.dumps(sent))
            await asyncio.sleep(1 / 60)
        on = await controls()
        assert on["jawOpen"] == pytest.approx(0.8, abs=0.02)
        assert on["yaw"] == pytest.approx(8.0, abs=0.2)
        await producer.send('{"type":"controls","id":"c","weights":{"jawOpn":0.8}}')
        message = (await until(producer, "error"))[-1]  # the first answer since `hello`
        assert (message["id"], message["error"]["field"]) == ("c", "weights.jawOpn")
        assert "jawOpen" in message["error"]["suggestions"]
        async with asyncio.timeout(10):
            while (await controls()).get("jawOpen", 0.0) > 0.01:
                await client.get("/v1/snapshot.jpg")
