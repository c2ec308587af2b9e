"""What a frame that needs no drawing costs the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import structlog
import uvloop

from adapters import frame_codec
from adapters.metrics import PrometheusMetrics
from adapters.viewer import Memo, Viewer
from orchestrator.frame_hub import FrameHub
from orchestrator.settings import Settings
from pipeline.fallback import FallbackLadder
from pipeline.frame_cache import FrameCache
from pipeline.mesh.renderer import MeshRenderer
from pipeline.picture import FormatEncoder, Picture
from pipeline.render_host import RendererSource, RenderHost
from pipeline.types import FrameInfo, ImageFormat
from tests.benchmarks.character import FPS, Actor, character
from tests.benchmarks.figures import percentile
from tests.benchmarks.machine import Cores, in_process_on
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table

VIEWERS = (0, 1, 100, 1000)
SETTINGS = Settings()
STOP_S = 5.0


def run(options: Options) -> Iterator[Table]:
    """One tick's work in the event loop, piece by piece."""
    yield from in_process_on(Cores.split().measured, _tables, options)


def _tables(options: Options) -> list[Table]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    table = Table(
        "A frame from the cache: µs in the event loop",
        ("Piece", "Times", "p50", "p99", "% of a 30 fps interval"),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(options.number(300, 5000), table))
    table.notes.append("Viewers are real; their connections take every byte at no cost.")
    return [table]


async def _measure(times: int, table: Table) -> None:
    def note(piece: str, seconds: list[float]) -> None:
        p50, p99 = (percentile(seconds, percent) * 1e6 for percent in (50, 99))
        table.add(piece, len(seconds), p50, p99, p50 * 1e-6 * FPS * 100.0)

    async with _ladder() as ladder:
        actor = Actor(idle=True)
        actor.show("happy", 0.0)
        note("the face: cues, mood, idle life", await _timed(times, _face(actor)))
        faces = Actor(idle=False).performance.key_faces()
        await ladder.show(character().load().portrait, faces)

        async def hit() -> None:
            await ladder.picture(*faces[0])

        note("the ladder: a hit in the cache", await _timed(times, hit))
        picture = await ladder.picture(*faces[0])
        assert picture.cached
        for count in VIEWERS:
            publish = _publish(picture, count)
            note(f"the hub: publish to {count} viewers", await _timed(times // 5, publish))


async def _timed(times: int, work: Callable[[], Awaitable[None]]) -> list[float]:
    """Seconds of each of `times` calls, after some to warm up."""
    seconds = []
    for _ in range(times // 10):
        await work()
    for _ in range(times):
        begun_s = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - begun_s)
    return seconds


def _face(actor: Actor) -> Callable[[], Awaitable[None]]:
    frame = 0

    async def work() -> None:
        nonlocal frame
        frame += 1
        actor.face(frame / FPS)

    return work


def _publish(picture: Picture, viewers: int) -> Callable[[], Awaitable[None]]:
    hub = FrameHub()

    def message(info: FrameInfo, image: bytes, dropped: int) -> bytes:
        return frame_codec.encode_websocket(info, image, ImageFormat.JPEG, dropped)

    memo = Memo(message)
    for _ in range(viewers):
        connection = _Nowhere()
        hub.attach(Viewer("websocket", ImageFormat.JPEG, connection, connection, memo))
    seq = 0

    async def work() -> None:
        nonlocal seq
        seq += 1
        info = FrameInfo(
            seq, seq / FPS, time.time() * 1000.0, picture.width, picture.height,
            picture.weights, None, cached=True, degraded=None,
        )  # fmt: skip
        await hub.publish(info, picture)

    return work


class _Nowhere(asyncio.WriteTransport):
    """A connection that takes everything at once."""

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    async def drain(self) -> None:
        pass


@asynccontextmanager
async def _ladder() -> AsyncIterator[FallbackLadder]:
    """The daemon's own ladder, with the mesh renderer."""
    metrics = PrometheusMetrics()
    host = RenderHost([RendererSource("mesh", MeshRenderer)], metrics=metrics)
    cache = FrameCache(SETTINGS.cache.max_bytes, metrics)
    encoder = FormatEncoder(cache, metrics)
    ladder = FallbackLadder(
        host,
        cache,
        encoder,
        stage="main",
        size_px=SETTINGS.stage.size_px,
        quality=SETTINGS.stage.jpeg_quality,
        deadline_s=SETTINGS.renderer.deadline_ms / 1000.0,
        metrics=metrics,
    )
    try:
        yield ladder
    finally:
        ladder.close()
        await host.close(STOP_S)
        await encoder.close(STOP_S)
