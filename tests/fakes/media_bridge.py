"""A MediaBridge that takes frames, and misbehaves to order."""

from __future__ import annotations

import ssl

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from adapters import frame_codec
from tests.fakes.breakable_server import BreakableServer


class FakeMediaBridge(BreakableServer):
    """Keeps what it is sent.

    Args:
        tls: serve `wss` with this certificate.
        host: address to listen on.
        port: 0 takes a free one.

    Attributes:
        received: every frame that arrived, over all connections.
        authorizations: the header of each request, or None.
        refuse_status: answer requests with this status instead of accepting them.
        closed_with: the close code of each connection that has ended.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(tls=tls, host=host, port=port, max_size=None)
        self.received: list[tuple[frame_codec.FrameHeader, bytes]] = []
        self.authorizations: list[str | None] = []
        self.refuse_status: int | None = None
        self.closed_with: list[int | None] = []

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}/ingest"

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.authorizations.append(request.headers.get("Authorization"))
        if self.refuse_status is None:
            return None
        return connection.respond(self.refuse_status, "not now")  # type: ignore[arg-type]

    async def _take(self, connection: ServerConnection) -> None:
        async for message in connection:
            assert isinstance(message, bytes)
            self.received.append(frame_codec.decode(message))

    def _left(self, connection: ServerConnection) -> None:
        self.closed_with.append(connection.close_code)
