"""Viewers stop reading, vanish, come in a storm."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from tests.benchmarks.viewers import opened
from tests.chaos.fault import Fault, Seen
from tests.chaos.other_machine import REQUESTS, other_machine
from tests.chaos.scene import PATIENCE_S, STALL_S, Scene

STALLED = 20
RESET = 50
STORM = 500
USER_TIMEOUT_S = 2.5  # longer than a viewer may stall
NOTICED_S = 4.0 * USER_TIMEOUT_S
EACH = 5
ANYWHERE = {
    "AVATAR_SERVER__HOST": "0.0.0.0",
    "AVATAR_AUTH__MODE": "none",
    "AVATAR_CHARACTERS__FETCH": "off",
    "AVATAR_SERVER__TCP_USER_TIMEOUT_S": str(USER_TIMEOUT_S),
}


async def _stop_reading(scene: Scene) -> Seen:
    """Twenty take nothing any more; they are let go after `stage.viewer_stall_s`."""
    evicted = await scene.metric("viewers_evicted_total")
    with ExitStack() as open_until:
        begun_s = time.monotonic()
        for _ in range(STALLED):
            connection, _ = await asyncio.to_thread(opened, scene.daemon.port, 4096)
            open_until.callback(connection.close)

        async def gone() -> bool:
            return await scene.metric("viewers_evicted_total") >= evicted + STALLED

        await scene.until(gone)
        taken_s = time.monotonic() - begun_s
    left = await scene.until(lambda: _viewers_are(scene, 3))
    return Seen("viewers_evicted_total, log: parting=stalled", max(0.0, taken_s - STALL_S) + left)


async def _reset(scene: Scene) -> Seen:
    """Fifty send a reset in the middle of a frame."""
    connections = [(await asyncio.to_thread(opened, scene.daemon.port))[0] for _ in range(RESET)]
    await scene.until(lambda: _viewers_are(scene, 3 + RESET))
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    return Seen("log: parting=left", await scene.until(lambda: _viewers_are(scene, 3)))


async def _storm(scene: Scene) -> Seen:
    """Five hundred come at once, are cut off at once, and come again."""
    for _ in range(2):
        writers = await asyncio.gather(*(_arrive(scene.daemon.port) for _ in range(STORM)))
        for writer in writers:
            writer.transport.abort()
    return Seen("connections", await scene.until(lambda: _viewers_are(scene, 3)))


async def _lose_power(scene: Scene) -> Seen:
    """A machine with all kinds of clients on it goes, those included that are sent nothing."""
    before = await _present(scene)
    with ExitStack() as open_until:
        clients = other_machine(scene.daemon.port, [*REQUESTS] * EACH)
        machine = await asyncio.to_thread(open_until.enter_context, clients)
        there = await _present(scene)
        assert there.files >= before.files + EACH * len(REQUESTS), (before, there)
        begun_s, noted = time.monotonic(), len(scene.daemon.log)
        machine.power_off()

        async def gone() -> bool:
            return await _present(scene) == before

        await scene.until(gone)
        seconds = time.monotonic() - begun_s
        assert seconds < NOTICED_S, seconds
    partings = Counter(
        str(line.get("parting") or line.get("reason"))
        for line in scene.daemon.log[noted:]
        if line.get("event") in ("viewer_closed", "producer_disconnected")
    )
    assert set(partings) <= {"vanished", "stalled"}, partings
    return Seen(f"log: parting=vanished ({partings['vanished']}), stalled", seconds)


@dataclass(frozen=True, slots=True)
class _Present:
    """Who is connected, as the metrics say, and the daemon's open files."""

    viewers: float
    streams: float
    producers: float
    files: int


async def _present(scene: Scene) -> _Present:
    kinds = ("websocket", "mjpeg", "producer")
    numbers = [await scene.metric(f'connections{{kind="{kind}"}}') for kind in kinds]
    return _Present(*numbers, files=psutil.Process(scene.daemon.process.pid).num_fds())


async def _arrive(port: int) -> asyncio.StreamWriter:
    """Come, and wait for the first bytes of a frame."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**17)
        writer.write(
            f"GET /v1/frames HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await reader.readexactly(1000)
    return writer


async def _viewers_are(scene: Scene, number: int) -> bool:
    viewers: dict[str, int] = (await scene.state())["viewers"]
    return viewers.get("websocket", 0) == number


FAULTS = (
    Fault("20 viewers stop reading", _stop_reading),
    Fault("50 viewers reset in the middle of a frame", _reset),
    Fault("a machine with viewers and producers loses power", _lose_power, ANYWHERE),
    Fault("500 viewers come, are cut, and come again", _storm),
)
