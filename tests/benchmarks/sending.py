"""What sending frames costs, against a loop that writes the same bytes to plain transports."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, cast

import structlog
import uvloop
from aiohttp import web

from adapters import frame_codec
from adapters.access import AccessPolicy
from adapters.frames_ws import FramesEndpoint
from adapters.http_api import build_application
from adapters.metrics import PrometheusMetrics
from adapters.viewer import Audience
from orchestrator.frame_hub import FrameHub
from pipeline.types import FrameInfo, ImageFormat
from tests.benchmarks.figures import percentile
from tests.benchmarks.machine import Cores, in_process_on
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Viewers
from tests.fakes.frames import FakeDaemon, FakeStage

VIEWERS = 200
FPS = 30.0
IMAGE = bytes(range(256)) * 200  # 50 KiB
ROUNDS = 20
SETTLE_S = 0.2


def run(options: Options) -> Iterator[Table]:
    """The daemon's way of sending and the plain one in turn, in one process on one core."""
    cores = Cores.split()
    frames_per_cpu_s = in_process_on(cores.measured, partial(_measure, cores.others), options)
    table = Table(
        f"Frames of {len(IMAGE) // 1024} KiB to {VIEWERS} viewers, {FPS:.0f} fps, one core",
        ("Way", "Frames per second of processor time", "of the plain loop (%)", "p10", "p90"),
    )
    plain = frames_per_cpu_s["plain"]
    for way, figures in frames_per_cpu_s.items():
        shares = [100.0 * its / other for its, other in zip(figures, plain, strict=True)]
        spread = (percentile(shares, percent) for percent in (50, 10, 90))
        table.add(way, percentile(figures, 50), *spread)
    table.notes.append(
        f"Medians of {ROUNDS} rounds in turn, shares round by round. Plain: prebuilt bytes to "
        "every transport of an asyncio server (uvloop) that has taken what came before; nothing "
        "else."
    )
    table.notes.append(f"Cores: {cores}.")
    yield table


def _measure(others: tuple[int, ...], options: Options) -> dict[str, list[float]]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return uvloop.run(_rounds(options.either(0.2, 1.5), others))


async def _rounds(seconds: float, others: tuple[int, ...]) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {"plain": [], "daemon": []}
    async with _plain(others) as plain, _ours(others) as ours:
        for _ in range(ROUNDS):
            for name, way in (("plain", plain), ("daemon", ours)):
                figures[name].append(await _round(way, seconds))
    return figures


@dataclass(frozen=True, slots=True)
class _Way:
    """Gives the next frame to all viewers, and tells how many it has written in all."""

    publish: Callable[[], Awaitable[None]]
    written: Callable[[], int]


async def _round(way: _Way, seconds: float) -> float:
    await asyncio.sleep(SETTLE_S)
    begun_cpu_s, begun_s = time.process_time(), time.monotonic()
    number = 0
    written = way.written()
    while time.monotonic() - begun_s < seconds:
        number += 1
        await way.publish()
        await asyncio.sleep(max(0.0, begun_s + number / FPS - time.monotonic()))
    return (way.written() - written) / (time.process_time() - begun_cpu_s)


class _Plain(asyncio.Protocol):
    """Shakes hands as a WebSocket server and joins the transports."""

    def __init__(self, transports: list[asyncio.Transport]) -> None:
        self._transports = transports
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and data.startswith(b"GET "):
            self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            self._transports.append(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport in self._transports:
            self._transports.remove(self._transport)


@asynccontextmanager
async def _plain(others: tuple[int, ...]) -> Any:
    transports: list[asyncio.Transport] = []
    server = await asyncio.get_running_loop().create_server(
        lambda: _Plain(transports), "127.0.0.1", 0
    )

    written = 0
    numbers = count(1)

    async def publish() -> None:
        nonlocal written
        frame = frame_codec.encode_websocket(_info(next(numbers)), IMAGE, ImageFormat.JPEG, 0)
        for transport in transports:
            if transport.get_write_buffer_size() == 0 and not transport.is_closing():
                transport.write(frame)
                written += 1

    async with _watched(server.sockets[0].getsockname()[1], others):
        yield _Way(publish, lambda: written)
    server.close()


class _HubStage(FakeStage):
    """Frames go the way of the daemon's."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = FrameHub()
        self.joined: list[Any] = []

    def attach(self, sink: Any) -> None:
        self.joined.append(sink)
        self.hub.attach(sink)

    def detach(self, sink: Any) -> None:
        self.hub.detach(sink)


class _Encoded:
    jpeg = IMAGE

    async def encoded(self, image_format: ImageFormat) -> bytes:
        raise NotImplementedError(image_format)


@asynccontextmanager
async def _ours(others: tuple[int, ...]) -> Any:
    stage, metrics = _HubStage(), PrometheusMetrics()
    daemon = FakeDaemon(stage)
    audience = Audience(metrics)
    endpoint = FramesEndpoint(daemon, audience)
    app = build_application(
        daemon, metrics=metrics, access=AccessPolicy(), extra_routes=endpoint.routes()
    )
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()

    numbers = count(1)

    async def publish() -> None:
        await stage.hub.publish(_info(next(numbers)), _Encoded())

    async with _watched(listener.getsockname()[1], others):
        yield _Way(publish, lambda: sum(sink.sent for sink in stage.joined))
    await endpoint.close()
    await runner.cleanup()


@asynccontextmanager
async def _watched(port: int, others: tuple[int, ...]) -> Any:
    """Viewers in another process, on the other cores."""
    made = Viewers(port, VIEWERS, watched=0, cores=others)
    viewers = await asyncio.to_thread(made.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(viewers.__exit__)


def _info(number: int) -> FrameInfo:
    return FrameInfo(
        seq=number, pts_s=number / FPS, ts_ms=time.time() * 1000.0, width=512, height=512,
        emotion={"neutral": 1.0}, event=None, cached=False, degraded=None,
    )  # fmt: skip
