"""A WebSocket is read no faster than it may be, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import pytest
from aiohttp import WSMsgType, web
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from adapters.listening import serve
from adapters.ws_throttle import FRAMES_IN_A_ROW, FrameEdges, FrameThrottle

PER_S = 100.0


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True) -> bytes:
    mask = 0x80 if masked else 0
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        head = struct.pack("!BB", first, mask | len(payload))
    elif len(payload) < 65_536:
        head = struct.pack("!BBH", first, mask | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, mask | 127, len(payload))
    return head + (bytes(4) if masked else b"") + payload


FRAMES = st.builds(
    frame,
    st.sampled_from([0, 1, 2, 9, 10]),
    st.sampled_from([0, 1, 5, 125, 126, 300, 65_535, 65_536]).map(bytes),
    fin=st.booleans(),
    masked=st.booleans(),
)


@given(st.lists(FRAMES, max_size=6), st.data())
def test_edges_are_found_however_the_bytes_arrive(frames: list[bytes], data: st.DataObject) -> None:
    """Each frame ends where it ends, also where its header is cut in the middle."""
    stream = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    edges, found, begun = FrameEdges(), [], 0
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        at, piece = 0, stream[start:end]
        while at < len(piece):
            begun += edges.between_frames
            at = edges.follow(piece, at)
            if edges.between_frames:
                found.append(start + at)
    wanted = [sum(map(len, frames[: n + 1])) for n in range(len(frames))]
    assert found == wanted
    assert begun == len(frames)


class Collector:
    """A parser that takes everything, and says when that is enough."""

    def __init__(self, enough: int = 10**9) -> None:
        self.fed: list[bytes] = []
        self.enough = enough

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.fed.append(data)
        return len(b"".join(self.fed)) >= self.enough, b""

    def feed_eof(self) -> None:
        self.fed.append(b"EOF")


async def test_all_of_it_arrives_in_order_a_few_frames_at_a_time() -> None:
    """What comes too fast waits; the loop has a turn between, and reading goes on afterwards."""
    parser, resumed = Collector(), asyncio.Event()
    throttle = FrameThrottle(parser, 1000.0, ended=pytest.fail, resume=resumed.set)
    frames = [frame(9, bytes([n])) for n in range(200)]
    throttle.feed_data(b"".join(frames[:150]))
    assert throttle.holding
    assert len(parser.fed) == 1
    assert len(parser.fed[0]) == FRAMES_IN_A_ROW * len(frames[0])
    throttle.feed_data(b"".join(frames[150:]))
    async with asyncio.timeout(5.0):
        await resumed.wait()
    assert b"".join(parser.fed) == b"".join(frames)
    assert not throttle.holding


async def test_a_connection_that_has_ended_is_let_go_of() -> None:
    """Nothing that waited is passed on behind the end."""
    for end in (FrameThrottle.feed_eof, FrameThrottle.stop):
        parser = Collector()
        throttle = FrameThrottle(parser, 1000.0, ended=pytest.fail, resume=pytest.fail)
        throttle.feed_data(frame(9) * 200)
        end(throttle)
        fed = len(parser.fed)
        await asyncio.sleep(0.05)
        assert len(parser.fed) == fed
        assert not throttle.holding


async def test_a_parser_that_takes_no_more_ends_the_connection() -> None:
    """Also where it says so long after the bytes came."""
    ended = asyncio.Event()
    parser = Collector(enough=FRAMES_IN_A_ROW * len(frame(9)) + 1)
    throttle = FrameThrottle(parser, 1000.0, ended=ended.set, resume=pytest.fail)
    assert throttle.feed_data(frame(9) * 200) == (False, b"")
    async with asyncio.timeout(5.0):
        await ended.wait()
    assert not throttle.holding


async def test_a_flood_of_pings_and_empty_messages_is_read_slowly() -> None:
    """Over a real socket, beside others whose messages are taken at once."""
    taken = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal taken
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        async for message in socket:
            taken += "flood" in request.query
            if message.type is WSMsgType.TEXT and "flood" not in request.query:
                await socket.send_str(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/", handle)
    server = await serve(application, "127.0.0.1", 0, frames_per_s=PER_S, shutdown_s=0.1)
    url = f"ws://127.0.0.1:{server.port}/"
    try:
        async with connect(url) as friend, connect(f"{url}?flood", close_timeout=0.1) as flooder:
            began_s = asyncio.get_running_loop().time()
            flooder.transport.write((frame(9) + frame(1) + frame(10, b"x")) * 20_000)
            await asyncio.sleep(0.3)
            for each in ("one", "two"):
                await friend.send(each)
                assert await asyncio.wait_for(friend.recv(), 5.0) == each
            seconds = asyncio.get_running_loop().time() - began_s
            assert PER_S / 2 <= taken <= PER_S * (seconds + 1.5)
            with contextlib.suppress(OSError):
                flooder.transport.abort()
    finally:
        await server.close()
