"""The MediaBridge refuses, resets, stalls half-open, crawls, comes back elsewhere."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from tests.chaos.fault import Fault, Seen
from tests.chaos.namespaces import SINK
from tests.chaos.scene import PATIENCE_S, POLL_S, Scene
from tests.fakes.media_bridge import FakeMediaBridge

FRAMES = 5


async def _refuses(scene: Scene) -> Seen:
    """It answers 503, then takes what comes."""
    bridge = _bridge(scene)
    bridge.refuse_status = 503
    async with bridge:
        reason = await scene.reason("503")
        bridge.refuse_status = None
        return Seen(f"/health: {reason}", await _frames_again(bridge))


async def _absent(scene: Scene) -> Seen:
    """Nobody listens, then somebody does."""
    reason = await scene.reason("media bridge")
    async with _bridge(scene) as bridge:
        return Seen(f"/health: {reason}", await _frames_again(bridge))


async def _resets(scene: Scene) -> Seen:
    """It cuts the connection in the middle of the frames."""
    async with _connected(scene) as bridge:
        before = bridge.accepted
        bridge.drop()
        reason = await scene.reason("media bridge")
        recovery_s = await _frames_again(bridge)
        assert bridge.accepted > before
        return Seen(f"/health: {reason}", recovery_s)


async def _half_open(scene: Scene) -> Seen:
    """It keeps the connection and takes nothing; the kernel's buffers fill."""
    async with _connected(scene) as bridge:
        bridge.stall()
        reason = await scene.reason("took nothing")
        return Seen(f"/health: {reason}", await _frames_again(bridge))


async def _silent(scene: Scene) -> Seen:
    """The kernel accepts connections that nobody ever answers."""
    bridge = _bridge(scene)
    bridge.listen_in_silence()
    try:
        reason = await scene.reason("timed out", "TimeoutError")
        await bridge.go_away()
        await bridge.come_back()
        return Seen(f"/health: {reason}", await _frames_again(bridge))
    finally:
        await bridge.go_away()


async def _elsewhere(scene: Scene) -> Seen:
    """It leaves 127.0.0.1 and comes back at 127.0.0.2; the name stays."""
    async with _connected(scene):
        pass
    reason = await scene.reason("media bridge")
    scene.stage.hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {SINK}\n", "ascii")
    async with _bridge(scene, host="127.0.0.2") as bridge:
        return Seen(f"/health: {reason}", await _frames_again(bridge))


async def _crawls(scene: Scene) -> Seen:
    """It takes one byte a second, in a small window, for a while; then it is itself again."""
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", scene.stage.bridge_port))
        listener.listen()
        listener.setblocking(False)
        crawling = asyncio.create_task(_crawl(listener))
        try:
            reason = await scene.reason("took nothing", "timed out", "TimeoutError")
        finally:
            crawling.cancel()
            await asyncio.gather(crawling, return_exceptions=True)
    async with _bridge(scene) as bridge:
        return Seen(f"/health: {reason}", await _frames_again(bridge))


async def _crawl(listener: socket.socket) -> None:
    """Shake hands as quickly as anybody, then read a byte a second."""
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        with closing(connection):
            protocol = ServerProtocol()
            while not (events := protocol.events_received()):
                protocol.receive_data(await loop.sock_recv(connection, 4096))
            assert isinstance(events[0], Request)
            protocol.send_response(protocol.accept(events[0]))
            for data in protocol.data_to_send():
                await loop.sock_sendall(connection, data)
            try:
                while await loop.sock_recv(connection, 1):  # noqa: ASYNC110 - slow on purpose
                    await asyncio.sleep(1.0)
            except ConnectionError:
                pass


def _bridge(scene: Scene, host: str = "127.0.0.1") -> FakeMediaBridge:
    return FakeMediaBridge(host=host, port=scene.stage.bridge_port)


@asynccontextmanager
async def _connected(scene: Scene) -> AsyncIterator[FakeMediaBridge]:
    """A MediaBridge that has begun to take frames."""
    async with _bridge(scene) as bridge:
        await _frames_again(bridge)
        yield bridge


async def _frames_again(bridge: FakeMediaBridge) -> float:
    """Seconds until it has taken some more frames."""
    begun_s, wanted = time.monotonic(), len(bridge.received) + FRAMES
    async with asyncio.timeout(PATIENCE_S):
        while len(bridge.received) < wanted:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(POLL_S)
    return time.monotonic() - begun_s


FAULTS = (
    Fault("MediaBridge is not there", _absent),
    Fault("MediaBridge answers 503", _refuses),
    Fault("MediaBridge resets the connection", _resets),
    Fault("MediaBridge comes back at another address", _elsewhere, own_hosts=True),
    Fault("MediaBridge stalls half-open", _half_open),
    Fault("MediaBridge accepts and never answers", _silent),
    Fault("MediaBridge takes a byte a second", _crawls),
)
