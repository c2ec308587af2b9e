"""A daemon's two WebSockets without a face, which misbehave to order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.fakes.breakable_server import BreakableServer

Message = dict[str, Any]

MAX_SIZE = 65_536

HELLO: Message = {
    "type": "hello",
    "protocol": "1.0",
    "server": "fake/0",
    "stage": "main",
    "character": "nobody",
    "emotions": {"happy": {"aliases": ["joy"], "max": 0.8, "hold_ms": None}},
    "controls": ["jawOpen"],
    "news": "a field that clients do not know",
}


class FakeDaemon(BreakableServer):
    """Greets and answers as a daemon does, unless told otherwise.

    Attributes:
        received: every message of producers, over all connections, in order.
        requests: path with query and Authorization header of each handshake.
        answer: what a message is answered at once; a test may set it.
        hello: the greeting; None says nothing.
        refuse: status and body instead of a handshake.
        files: path to content type and body, for plain requests.
    """

    def __init__(self) -> None:
        super().__init__(max_size=MAX_SIZE)
        self.received: list[Message] = []
        self.requests: list[tuple[str, str | None]] = []
        self.answer: Callable[[Message], list[Message]] = self.usual_answer
        self.hello: Message | None = HELLO
        self.refuse: tuple[int, str] | None = None
        self.files: dict[str, tuple[str, str]] = {}
        self._known: set[str] = set()
        self._news = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def say(self, *messages: Message | bytes) -> None:
        """Tell the newest connection something."""
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps(message)
            await self.connections[-1].send(data)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds, which is tried whenever something has arrived."""
        async with asyncio.timeout(10.0):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_received(self, kind: str, times: int = 1) -> list[Message]:
        """Messages of that type, once there are so many."""
        await self.until(lambda: len(self.of(kind)) >= times)
        return self.of(kind)

    def of(self, kind: str) -> list[Message]:
        """Messages of that type so far."""
        return [message for message in self.received if message["type"] == kind]

    def usual_answer(self, message: Message) -> list[Message]:
        """What the daemon says at once."""
        event_id = message.get("id")
        match message["type"]:
            case "emotion":
                known = event_id in self._known
                self._known.add(str(event_id))
                return [
                    {
                        "type": "emotion.accepted",
                        "id": event_id,
                        "used": message["emotion"],
                        "intensity": message["intensity"],
                        "mix": {},
                        "mapped_from": None,
                        "clamped": False,
                        "duplicate": known,
                    }
                ]
            case "ping":
                return [{"type": "pong", "t": message["t"]}]
            case "state" | "mood":
                return [{"type": f"{message['type']}.ok", "id": event_id}]
            case "get_state":
                return [{"type": "state_snapshot", "id": event_id, "cues": [], "queue": []}]
            case "text":
                return [text_clean(message)]
            case _:
                return []

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path in self.files:
            content_type, body = self.files[request.path]
            response = connection.respond(HTTPStatus.OK, body)
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = content_type
            return response
        self.requests.append((request.path, request.headers.get("Authorization")))
        self._news.set()
        if self.refuse is None:
            return None
        status, body = self.refuse
        return connection.respond(HTTPStatus(status), body)

    async def _take(self, connection: ServerConnection) -> None:
        self._news.set()
        assert connection.request is not None
        if self.hello is not None and "/v1/events" in connection.request.path:
            await connection.send(json.dumps(self.hello))
        async for data in connection:
            message = json.loads(data)
            self.received.append(message)
            self._news.set()
            for answer in self.answer(message):
                await connection.send(json.dumps(answer))

    def _left(self, connection: ServerConnection) -> None:
        self._news.set()


def text_clean(message: Message, delta: str | None = None, *cues: Message) -> Message:
    """The answer to a delta; without tags unless told so."""
    clean = message["delta"] if delta is None else delta
    return {"type": "text.clean", "id": message["id"], "delta": clean, "cues": list(cues)}


def shown(kind: str, cue_id: str, seq: int) -> Message:
    """`emotion.started` or `emotion.peaked`."""
    return {"type": f"emotion.{kind}", "id": cue_id, "seq": seq, "pts_ms": 33.3, "latency_ms": 20.0}


def ended(kind: str, cue_id: str, **fields: Any) -> Message:
    """One of the three endings."""
    at = {} if kind == "expired" else {"seq": 99, "pts_ms": 99.0}
    return {"type": f"emotion.{kind}", "id": cue_id, **at, **fields}
