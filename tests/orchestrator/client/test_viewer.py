"""The client's viewer against a daemon that misbehaves to order, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters import frame_codec
from orchestrator.client import ClosedError, ConnectError, Frame, Reconnect, Viewer
from pipeline.types import FrameInfo, ImageFormat
from tests.fakes.events_server import FakeDaemon

SOON = Reconnect(first_s=0.01, limit_s=0.02)


@pytest.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with FakeDaemon() as running:
        yield running


def message(seq: int, dropped: int = 0) -> bytes:
    weights = {"neutral": 0.3, "happy": 0.7}
    info = FrameInfo(seq, seq / 30, 1e12 + seq, 64, 48, weights, "e1", True, "mesh failed")
    return frame_codec.encode(info, b"image %d" % seq, ImageFormat.JPEG, dropped)


async def opened(daemon: FakeDaemon, seq: int = 1, **options: Any) -> Viewer:
    """A viewer whose first frame is there, and not taken yet."""
    viewer = Viewer(daemon.url, **{"reconnect": SOON} | options)
    opening = asyncio.create_task(viewer.__aenter__())
    await daemon.until(lambda: bool(daemon.connections))
    await daemon.say(message(seq))
    return await opening


async def arrived(viewer: Viewer, seq: int) -> Frame:
    """Take frames until that one."""
    async with asyncio.timeout(10):
        while (frame := await viewer.frame()).seq < seq:
            pass
    return frame


async def test_frames_are_what_the_daemon_says(daemon: FakeDaemon) -> None:
    """Every field of the header and the image, as sent; the query is what was asked for."""
    viewer = await opened(daemon, stage="main", format="webp", max_fps=12.5, token="t")
    frame = await anext(viewer)
    await viewer.close()
    assert (frame.seq, frame.width, frame.height, frame.format) == (1, 64, 48, "jpeg")
    assert frame.pts_ms == pytest.approx(33.333, abs=0.01)
    assert frame.emotion == {"neutral": 0.3, "happy": 0.7}
    assert (frame.event, frame.cached, frame.degraded) == ("e1", True, "mesh failed")
    assert (frame.image, frame.dropped) == (b"image 1", 0)
    path = "/v1/frames?stage=main&format=webp&framing=avf1&max_fps=12.5"
    assert daemon.requests == [(path, "Bearer t")]


async def test_who_is_slow_gets_the_newest(daemon: FakeDaemon) -> None:
    """What went by meanwhile is counted, with what the daemon has dropped itself."""
    viewer = await opened(daemon)
    await viewer.frame()
    await daemon.say(*(message(seq, dropped=10) for seq in range(2, 8)))
    async with asyncio.timeout(10):
        while viewer._newest is None or viewer._newest.seq < 7:  # noqa: ASYNC110 - says nothing
            await asyncio.sleep(0.001)
    frame = await viewer.frame()
    assert (frame.seq, frame.dropped) == (7, 10 + 5)
    await viewer.close()


async def test_it_reconnects_and_counts_on(daemon: FakeDaemon) -> None:
    """The iteration goes on over a cut; the daemon's new count is added to the old one."""
    viewer = await opened(daemon)
    await daemon.say(message(2, dropped=3))
    assert (await arrived(viewer, 2)).dropped >= 3
    missed = viewer._missed_here
    daemon.drop()
    await daemon.until(lambda: daemon.accepted == 2)
    await daemon.say(message(9, dropped=1))
    assert (await viewer.frame()).dropped == 3 + 1 + missed
    await viewer.close()


async def test_leaving_ends_the_iteration(daemon: FakeDaemon) -> None:
    """Whoever iterates elsewhere is let go."""
    viewer = await opened(daemon)

    async def watch() -> int:
        return len([frame async for frame in viewer])

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    await viewer.close()
    assert await watching == 1
    with pytest.raises(ClosedError):
        await viewer.frame()


async def test_what_is_no_frame_is_passed_over(daemon: FakeDaemon) -> None:
    """A few are borne; a peer that sends nothing else is hung up on."""
    viewer = await opened(daemon)
    await daemon.say({"type": "news"}, b"", b"AVF2....", b"AVF1\xff\xff\xff\xff", message(2))
    assert (await arrived(viewer, 2)).image == b"image 2"
    await daemon.say(*[b"rubbish"] * 31)
    await daemon.until(lambda: daemon.accepted == 2)
    await viewer.close()


async def test_a_daemon_that_refuses(daemon: FakeDaemon) -> None:
    """At once where it refuses, and when time is up where no frame comes."""
    with pytest.raises(ConnectError):
        async with Viewer(daemon.url, open_timeout_s=0.1):
            pass
    viewer = await opened(daemon)
    daemon.refuse = 401, ""
    daemon.drop()
    with pytest.raises(ConnectError, match="401"):
        await arrived(viewer, 99)
    await viewer.close()
    daemon.refuse = 404, '{"error":{"code":"unknown_stage","message":"there is no stage"}}'
    with pytest.raises(ConnectError, match="there is no stage"):
        async with Viewer(daemon.url, stage="x"):
            pass
