"""A MediaBridge that takes frames, and misbehaves to order."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from adapters import frame_codec


class FakeMediaBridge:
    """Listens on one port from `async with` to its end, with breaks in between if told so.

    Args:
        tls: serve `wss` with this certificate.
        host: address to listen on.
        port: 0 takes a free one.

    Attributes:
        received: every frame that arrived, over all connections.
        authorizations: the header of each request, or None.
        connections: those that are open.
        refuse_status: answer requests with this status instead of accepting them.
        mute: accept TCP connections and never say a word.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._tls = tls
        self._host = host
        self.received: list[tuple[frame_codec.FrameHeader, bytes]] = []
        self.authorizations: list[str | None] = []
        self.connections: list[ServerConnection] = []
        self.refuse_status: int | None = None
        self.accepted = 0
        self.closed_with: list[int | None] = []
        self._server: Server | None = None
        self._listener: socket.socket | None = None
        self._port = port

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}/ingest"

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
            self._host,
            self._port,
            process_request=self._greet,
            max_size=None,
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

    def listen_in_silence(self) -> None:
        """Let the kernel accept connections that nobody ever answers; after `go_away`."""
        self._listener = socket.create_server((self._host, self._port))

    def drop(self) -> None:
        """Cut all connections without a goodbye."""
        for connection in self.connections:
            connection.transport.abort()

    def stall(self) -> None:
        """Keep the connections and stop reading from them."""
        for connection in self.connections:
            connection.transport.pause_reading()

    async def close(self, code: int) -> None:
        """Close all connections in order."""
        await asyncio.gather(*(connection.close(code) for connection in self.connections))

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.authorizations.append(request.headers.get("Authorization"))
        if self.refuse_status is None:
            return None
        return connection.respond(self.refuse_status, "not now")  # type: ignore[arg-type]

    async def _take(self, connection: ServerConnection) -> None:
        self.accepted += 1
        self.connections.append(connection)
        try:
            with suppress(ConnectionClosed):
                async for message in connection:
                    assert isinstance(message, bytes)
                    self.received.append(frame_codec.decode(message))
        finally:
            self.connections.remove(connection)
            self.closed_with.append(connection.close_code)
