"""The HTTP side on a real socket, around fakes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect

from adapters.access import AccessPolicy, HttpLimits
from adapters.events_ws import EventsEndpoint
from adapters.http_api import build_application
from adapters.listening import serve
from adapters.metrics import PrometheusMetrics
from adapters.studio_page import STUDIO_DIR
from tests.fakes.stage import FakeDaemon

# Loading the system's certificates anew for each client takes longer than most tests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Served:
    """A daemon's HTTP side that is being served, and ways to reach it."""

    daemon: FakeDaemon
    metrics: PrometheusMetrics
    events: EventsEndpoint
    port: int
    http: httpx.AsyncClient
    _sockets: list[ClientConnection] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connect(self, query: str = "", **options: Any) -> connect:
        """A producer's connection, to be used with `async with`."""
        options.setdefault("compression", None)
        return connect(f"ws://{self.address}/v1/events{query}", **options)

    async def producer(self, query: str = "", **options: Any) -> ClientConnection:
        """A connected producer that has read its greeting; closed with the server."""
        producer = await self.connect(query, **options)
        self._sockets.append(producer)
        assert (await receive(producer))["type"] == "hello"
        return producer

    async def close_producers(self) -> None:
        for each in self._sockets:
            each.transport.abort()
            await each.wait_closed()


@contextlib.asynccontextmanager
async def served(
    daemon: FakeDaemon | None = None,
    *,
    access: AccessPolicy | None = None,
    limits: HttpLimits | None = None,
    extra_routes: Iterable[web.AbstractRouteDef] = (),
    studio_dir: Path = STUDIO_DIR,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Served]:
    """Serve on a free port of the loopback until the block ends."""
    daemon = daemon or FakeDaemon()
    metrics = PrometheusMetrics()
    limits = limits or HttpLimits(goodbye_s=1.0)
    events = EventsEndpoint(daemon, metrics, limits)
    application = build_application(
        daemon,
        metrics=metrics,
        access=access or AccessPolicy(),
        limits=limits,
        extra_routes=[*events.routes(), *extra_routes],
        studio_dir=studio_dir,
    )
    server = await serve(application, "127.0.0.1", 0, shutdown_s=0.5, tls=tls)
    try:
        address = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=address, verify=NO_TLS, trust_env=False) as http:
            running = Served(daemon, metrics, events, server.port, http)
            try:
                yield running
            finally:
                await running.close_producers()
    finally:
        await events.close()
        await server.close()


async def receive(producer: ClientConnection) -> dict[str, Any]:
    """The next message, decoded."""
    async with asyncio.timeout(5.0):
        message = await producer.recv()
    assert isinstance(message, str), "answers are text frames"
    decoded = msgspec.json.decode(message)
    assert isinstance(decoded, dict)
    return decoded


async def ask(producer: ClientConnection, message: object) -> dict[str, Any]:
    """Send one message (bytes and text as they are, else as JSON) and take the next answer."""
    if not isinstance(message, str | bytes):
        message = msgspec.json.encode(message).decode()
    await producer.send(message)
    return await receive(producer)
