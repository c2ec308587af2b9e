"""What is dialled, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from adapters.access import HttpLimits
from adapters.dialling import without_secrets
from adapters.events_client import Address, EventPublishers
from adapters.media_bridge import MediaBridgeSink
from tests.fakes.frames import FakeStage as StageWithFrames
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.stage import FakeDaemon
from tests.fakes.waiting import until


@asynccontextmanager
async def answering(answer: str) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says this to everybody: its port, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def bridge(url: str) -> Coroutine[Any, Any, None]:
    sink = MediaBridgeSink(
        url, "secret", stage=StageWithFrames(), metrics=RecordingMetrics(), max_delay_s=0.05
    )
    return sink.run()


def publisher(url: str) -> Coroutine[Any, Any, None]:
    publishers = EventPublishers(
        [Address(url, "secret", None)],
        daemon=FakeDaemon(),
        metrics=RecordingMetrics(),
        limits=HttpLimits(),
        max_delay_s=0.05,
    )
    return publishers.run()


@pytest.mark.parametrize("dial", [bridge, publisher])
async def test_nobody_is_sent_on_to_another_address(dial: Any) -> None:
    """A redirect is no way for who is dialled to reach what only the daemon can."""
    async with answering("HTTP/1.1 200 OK\r\n\r\n") as (inside, reached):
        location = f"ws://127.0.0.1:{inside}/stolen"
        redirect = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        async with answering(redirect) as (port, asked):
            with structlog.testing.capture_logs() as logs:
                running = asyncio.create_task(dial(f"ws://127.0.0.1:{port}/"))
                await until(lambda: len(asked) >= 2)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    assert reached == []
    assert any("HTTP 302" in line.get("reason", "") for line in logs)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("wss://me:secret@host:9/in?token=secret#secret", "wss://host:9/in"),
        ("ws://secret@[::1]:9", "ws://[::1]:9"),
        ("ws://[secret", "an address that cannot be read"),
    ],
)
def test_of_an_address_what_may_be_secret_is_not_told(url: str, told: str) -> None:
    """Neither user, password, query nor fragment; an address that is none is no trouble."""
    assert without_secrets(url) == told
