"""A WebSocket server that goes away, comes back and misbehaves to order."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


class BreakableServer:
    """Listens on one port from `async with` to its end, with breaks in between if told so.

    Args:
        tls: serve with this certificate.
        host: address to listen on.
        port: 0 takes a free one.
        options: for `websockets`.

    Attributes:
        connections: those that are open, the newest last.
        accepted: how many there have been.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        **options: Any,
    ) -> None:
        self.connections: list[ServerConnection] = []
        self.accepted = 0
        self._tls = tls
        self._host = host
        self._port = port
        self._options = options
        self._server: Server | None = None
        self._listener: socket.socket | None = None

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
            self._connected,
            self._host,
            self._port,
            process_request=self._greet,
            ssl=self._tls,
            **self._options,
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

    async def _connected(self, connection: ServerConnection) -> None:
        self.accepted += 1
        self.connections.append(connection)
        try:
            with suppress(ConnectionClosed):
                await self._take(connection)
        finally:
            self.connections.remove(connection)
            self._left(connection)

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        """Look at a request; an answer refuses it."""
        raise NotImplementedError

    async def _take(self, connection: ServerConnection) -> None:
        """Serve a connection until it ends."""
        raise NotImplementedError

    def _left(self, connection: ServerConnection) -> None:
        """A connection has ended."""
