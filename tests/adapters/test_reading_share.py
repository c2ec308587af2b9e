"""Reading one connection's requests takes a share of the event loop's time, and loses nothing."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from aiohttp import web

from adapters.listening import serve
from adapters.reading_share import PIECE_BYTES, SHARE, ReadingShare

DATA = bytes(itertools.islice(itertools.cycle(range(256)), 4 * PIECE_BYTES))


class Reader:
    """Takes bytes, and as much time for each piece as it is told to."""

    def __init__(self, seconds: float) -> None:
        self.read: list[bytes] = []
        self.seconds = seconds
        self.now_s = 0.0

    def __call__(self, data: bytes) -> None:
        self.read.append(data)
        self.now_s += self.seconds

    def clock(self) -> float:
        return self.now_s


async def test_what_costs_little_is_read_at_once() -> None:
    """However much it is."""
    reader = Reader(0.0)
    share = ReadingShare(reader, resume=pytest.fail, clock=reader.clock)
    share.take(DATA)
    assert b"".join(reader.read) == DATA
    assert not share.holding


async def test_what_costs_much_is_read_later_in_order() -> None:
    """The loop is free for the rest of the time; then more may be read from the connection."""
    reader, resumed = Reader(0.01), asyncio.Event()
    share = ReadingShare(reader, resume=resumed.set, clock=reader.clock)
    began_s = asyncio.get_running_loop().time()
    share.take(DATA[:-5])
    assert share.holding
    share.take(DATA[-5:])
    assert len(reader.read) == 1
    async with asyncio.timeout(10.0):
        await resumed.wait()
    assert b"".join(reader.read) == DATA
    assert not share.holding
    assert asyncio.get_running_loop().time() - began_s > 0.5 * reader.now_s / SHARE


async def test_what_was_put_off_counts_too() -> None:
    """Reading that happens when its consumer has room is paid for by the same connection."""
    reader = Reader(0.01)
    share = ReadingShare(reader, resume=pytest.fail, clock=reader.clock)
    share.spend(lambda: reader(b"x"))
    assert share.holding
    share.stop()
    assert not share.holding


async def test_a_body_of_tiny_chunks_arrives_whole_and_others_are_served_meanwhile() -> None:
    """Thirty thousand chunks of a byte each, over a real socket, then the next request."""

    async def length(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    application = web.Application()
    application.router.add_post("/", length)
    server = await serve(application, "127.0.0.1", 0, shutdown_s=0.1)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def post(chunks: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        request = head + b"1\r\n \r\n" * chunks + b"0\r\n\r\n"
        writer.write(request + head + b"0\r\n\r\n")
        answers = [
            (await reader.readuntil(b"\r\n\r\n"), await reader.readexactly(len(expected)))[1]
            for expected in (str(chunks), "0")
        ]
        writer.close()
        return b" ".join(answers).decode()

    try:
        async with asyncio.timeout(20.0):
            answers = await asyncio.gather(post(30_000), post(1), post(2))
        assert answers == ["30000 0", "1 0", "2 0"]
    finally:
        await server.close()
