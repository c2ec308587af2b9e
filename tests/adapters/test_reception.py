"""Connections whose far end is gone, as their kernel tells."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from aiohttp import web

from adapters.listening import serve
from adapters.reception import vanished


@pytest.mark.parametrize(
    ("error", "so"),
    [
        (TimeoutError(errno.ETIMEDOUT, "no answer"), True),
        (OSError(errno.EHOSTUNREACH, "nobody there"), True),
        (ConnectionResetError(errno.ECONNRESET, "its program ended"), False),
        (None, False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_silence_is_vanishing(error: OSError | None, so: bool) -> None:
    """A connection that was closed or reset has left; one that nobody answers for has vanished."""
    entered, over = asyncio.Event(), asyncio.Event()
    requests: list[web.Request] = []

    async def wait(request: web.Request) -> web.Response:
        requests.append(request)
        entered.set()
        await over.wait()
        return web.Response()

    application = web.Application()
    application.add_routes([web.get("/", wait)])
    server = await serve(application, "127.0.0.1", 0, shutdown_s=0.1)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await entered.wait()
        assert not vanished(requests[0])
        transport = requests[0].transport
        assert transport is not None
        requests[0].protocol.connection_lost(error)
        assert vanished(requests[0]) is so
        transport.abort()
        over.set()
        await server.close()
