"""A stage that publishes what a test hands it, and the daemon around it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiohttp import web

from adapters.access import AccessPolicy
from adapters.http_api import build_application
from adapters.metrics import PrometheusMetrics
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import FrameSink, Reply, StagePort
from pipeline.types import FrameInfo, ImageFormat, StageMessage


class FakeStage:
    """Implements `pipeline.ports.StagePort` as far as frames go."""

    def __init__(self, name: str = "main", fps: float = 30.0) -> None:
        self._name = name
        self._fps = fps
        self.seq = 0
        self.sinks: dict[FrameSink, None] = {}
        self.newest: tuple[FrameInfo, bytes] | None = None

    @property
    def name(self) -> str:
        return self._name

    def publish(self, image: bytes = b"\xff\xd8image\xff\xd9") -> FrameInfo:
        """Give the next frame to every sink."""
        self.seq += 1
        info = FrameInfo(
            seq=self.seq,
            pts_s=self.seq / self._fps,
            ts_ms=1.7e12 + 1000.0 * self.seq / self._fps,
            width=512,
            height=512,
            emotion={"neutral": 0.25, "happy": 0.75},
            event="evt-1",
            cached=False,
            degraded=None,
        )
        self.newest = (info, image)
        for sink in list(self.sinks):
            sink.offer(info, image)
        return info

    def attach(self, sink: FrameSink) -> None:
        self.sinks[sink] = None
        if self.newest is not None:
            sink.offer(*self.newest)

    def detach(self, sink: FrameSink) -> None:
        self.sinks.pop(sink, None)

    def hello(self) -> Mapping[str, Any]:
        return {"type": "hello"}

    def submit(self, message: StageMessage, reply: Reply) -> None:
        raise NotImplementedError

    def snapshot(self) -> Mapping[str, Any]:
        return {}

    async def picture(self, image_format: ImageFormat) -> tuple[FrameInfo, bytes] | None:
        return self.newest


class FakeDaemon:
    """Implements `pipeline.ports.DaemonPort` around one stage, to which a test may add."""

    def __init__(self, stage: FakeStage) -> None:
        self._default = stage.name
        self.stages = {stage.name: stage}

    def stage(self, name: str | None) -> StagePort:
        found = self.stages.get(self._default if name is None else name)
        if found is None:
            raise InvalidEventError(ErrorCode.UNKNOWN_STAGE, f"no stage {name}", field="stage")
        return found

    def health(self, name: str | None = None) -> Mapping[str, Any]:
        return {"status": "ok", "problems": []}

    def not_ready_reason(self, name: str | None = None) -> str | None:
        return None

    def characters(self, name: str | None = None) -> Mapping[str, Any]:
        return {}

    def expressions(self) -> Sequence[str]:
        return ("neutral",)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens soon; fail if it does not."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110 - the condition is the other side's, not ours
            await asyncio.sleep(0.005)


class Endpoint(Protocol):
    """What serves viewers."""

    def routes(self) -> list[web.RouteDef]: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def on_a_port(daemon: FakeDaemon, endpoint: Endpoint) -> AsyncIterator[int]:
    """Serve an endpoint on a free port of the loopback, which is what this gives."""
    app = build_application(
        daemon,
        metrics=PrometheusMetrics(),
        access=AccessPolicy(),
        extra_routes=endpoint.routes(),
    )
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await endpoint.close()
        await runner.cleanup()
