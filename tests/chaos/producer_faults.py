"""Producers die in the middle of a message, of a cue, and flood."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from contextlib import suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import Scene
from tests.chaos.watch import ENDINGS

DYING = 20
LIMIT_PER_S = 200
FLOOD_S = 2.0


async def _in_a_message(scene: Scene) -> Seen:
    """Twenty send the first half of a message, over both ways in, and reset."""
    for number in range(DYING):
        half = b'\x81\xc0\0\0\0\0{"type":"emotion"' if number % 2 else _HALF_A_BODY
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.daemon.port)
        if number % 2:
            writer.write(_handshake(scene.daemon.port))
            await reader.readuntil(b"\r\n\r\n")
        writer.write(half)
        await writer.drain()
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def gone() -> bool:
        return await scene.metric('connections{kind="producer"}') == 1

    return Seen("log: producer_disconnected", await scene.until(gone))


async def _in_a_cue(scene: Scene) -> Seen:
    """One dies with three cues on; whoever sends them again hears how each ended."""
    ids = [f"orphan-{time.monotonic_ns()}-{number}" for number in range(3)]
    cues = [
        json.dumps({"type": "emotion", "id": each, "emotion": "happy", "policy": "queue",
                    "attack_ms": 50, "hold_ms": 100, "decay_ms": 50})
        for each in ids
    ]  # fmt: skip
    dying = await connect(f"{scene.daemon.ws}/v1/events")
    for cue in cues:
        await dying.send(cue)
    await dying.recv()
    dying.transport.abort()
    begun_s = time.monotonic()
    async with connect(f"{scene.daemon.ws}/v1/events") as heir:
        for cue in cues:
            await heir.send(cue)
        ended: list[str] = []
        async with asyncio.timeout(20):
            while len(ended) < len(ids):
                message = json.loads(await heir.recv())
                if message["type"] in ENDINGS:
                    ended.append(message["id"])
        with suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(0.3):
                message = json.loads(await heir.recv())
                assert message["type"] not in ENDINGS, message
    assert sorted(ended) == ids
    await dying.wait_closed()
    return Seen("receipts to whoever sends the ids again", time.monotonic() - begun_s)


async def _flood(scene: Scene) -> Seen:
    """One sends ten times its limit until it is hung up on, and comes back, again and again."""
    text = '{"type":"mood","valence":0.1,"arousal":0.0}'
    until_s = time.monotonic() + FLOOD_S
    codes: list[int | None] = []
    while time.monotonic() < until_s:
        async with connect(f"{scene.daemon.ws}/v1/events") as flooding:
            reading = asyncio.create_task(_read(flooding))
            with suppress(ConnectionClosed):
                while time.monotonic() < until_s:
                    for _ in range(LIMIT_PER_S // 10):
                        await flooding.send(text)
                    await asyncio.sleep(0.01)
            reading.cancel()
            await asyncio.wait([reading])
            codes.append(flooding.close_code)
    assert 1008 in codes, codes
    return Seen("close code 1008, bad_messages_total, log: reason=flooding", 0.0)


async def _read(connection: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        async for _ in connection:
            pass


_HALF_A_BODY = (
    b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 60\r\n\r\n{"type":"emotion",'
)


def _handshake(port: int) -> bytes:
    return (
        f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


FAULTS = (
    Fault("20 producers die in the middle of a message", _in_a_message),
    Fault("a producer dies in the middle of three cues", _in_a_cue),
    Fault("a producer sends ten times its limit", _flood),
)
