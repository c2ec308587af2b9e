"""A character-manager that publishes events, and misbehaves to order."""

from __future__ import annotations

import json
import ssl
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.fakes.breakable_server import BreakableServer


class FakePublisher(BreakableServer):
    """Keeps what it is sent, and says what it is told to.

    Args:
        tls: serve `wss` with this certificate.

    Attributes:
        received: every message that arrived, decoded, over all connections.
        paths: path and query of each request.
        authorizations: the header of each request, or None.
        greeting: sent first on each connection.
        leaves: close each connection after that.
        refuse_status: answer requests with this status instead of accepting them.
        echoes: send everything that arrives back to where it came from.
        closed_with: code and reason of each close frame that came.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls, compression=None, ping_interval=None)
        self.received: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.greeting: list[str] = []
        self.leaves = False
        self.refuse_status: int | None = None
        self.echoes = False
        self.closed_with: list[tuple[int, str] | None] = []

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}/emotions"

    async def publish(self, message: object) -> None:
        """Send a message (bytes and text as they are, else as JSON) to everybody."""
        if not isinstance(message, str | bytes):
            message = json.dumps(message)
        for connection in list(self.connections):
            with suppress(ConnectionClosed):
                await connection.send(message)

    def answers(self, kind: str) -> list[dict[str, Any]]:
        """What arrived of that type."""
        return [message for message in self.received if message["type"] == kind]

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.authorizations.append(request.headers.get("Authorization"))
        if self.refuse_status is None:
            return None
        return connection.respond(self.refuse_status, "not now")  # type: ignore[arg-type]

    async def _take(self, connection: ServerConnection) -> None:
        for greeting in self.greeting:
            await connection.send(greeting)
        if self.leaves:
            return
        async for message in connection:
            assert isinstance(message, str)
            self.received.append(json.loads(message))
            if self.echoes:
                await connection.send(message)

    def _left(self, connection: ServerConnection) -> None:
        close = connection.protocol.close_rcvd
        self.closed_with.append(None if close is None else (close.code, close.reason))
