"""A character-manager that publishes events, and misbehaves to order."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


class FakePublisher:
    """Listens on one port from `async with` to its end, with breaks in between if told so.

    Args:
        tls: serve `wss` with this certificate.

    Attributes:
        received: every message that arrived, decoded, over all connections.
        paths: path and query of each request.
        authorizations: the header of each request, or None.
        connections: those that are open.
        greeting: sent first on each connection.
        leaves: close each connection after that.
        refuse_status: answer requests with this status instead of accepting them.
        echoes: send everything that arrives back to where it came from.
        closed_with: code and reason of each close frame that came.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.received: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.connections: list[ServerConnection] = []
        self.greeting: list[str] = []
        self.leaves = False
        self.refuse_status: int | None = None
        self.echoes = False
        self.closed_with: list[tuple[int, str] | None] = []
        self._server: Server | None = None
        self._listener: socket.socket | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}/emotions"

    async def __aenter__(self) -> Self:
        await self.come_back()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.go_away()

    async def come_back(self) -> None:
        """Listen, on the same port as before."""
        self._server = await serve(
            self._take,
            "127.0.0.1",
            self._port,
            process_request=self._greet,
            compression=None,
            ping_interval=None,
            ssl=self._tls,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def go_away(self) -> None:
        """Stop listening, and cut what is connected without a goodbye."""
        self.drop()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def drop(self) -> None:
        """Cut all connections without a goodbye."""
        for connection in self.connections:
            connection.transport.abort()

    def stall(self) -> None:
        """Keep the connections and stop reading from them."""
        for connection in self.connections:
            connection.transport.pause_reading()

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

    async def close(self, code: int) -> None:
        """Close all connections in order."""
        await asyncio.gather(*(connection.close(code) for connection in self.connections))

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.authorizations.append(request.headers.get("Authorization"))
        if self.refuse_status is None:
            return None
        return connection.respond(self.refuse_status, "not now")  # type: ignore[arg-type]

    async def _take(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        try:
            with suppress(ConnectionClosed):
                for message in self.greeting:
                    await connection.send(message)
                if self.leaves:
                    return
                async for message in connection:
                    assert isinstance(message, str)
                    self.received.append(json.loads(message))
                    if self.echoes:
                        await connection.send(message)
        finally:
            self.connections.remove(connection)
            close = connection.protocol.close_rcvd
            self.closed_with.append(None if close is None else (close.code, close.reason))
