"""The MediaBridge sink: dials out and pushes `avf1` frames, protocol section 3."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException
from websockets.frames import CloseCode

from adapters import frame_codec, tcp
from adapters.dialling import Backoff, Dial, reason, without_secrets
from pipeline.errors import SinkError
from pipeline.ports import Metric, Metrics, StagePort
from pipeline.types import FrameInfo, ImageFormat

log = structlog.get_logger()

KIND: Final = "media_bridge"

_MAX_INPUT_BYTES: Final = 65_536
_CLOSE_S: Final = 1.0
# A MediaBridge that took so many is there; what ended the connection is no reason to stay away.
PROVING_FRAMES: Final = 5


class MediaBridgeSink:
    """Keeps a MediaBridge supplied with one stage's frames; a `FrameSink`.

    At most one message is on its way and one frame waits, always the newest. It is
    attached to the stage while connected only, so that nothing is rendered for a
    MediaBridge that is not there.

    Args:
        url: `ws://` or `wss://` address.
        token: bearer token, or None.
        stage: whose frames to push.
        metrics: where figures go.
        image_format: encoding of the frames.
        stall_s: a connection that takes nothing for so long is given up.
        max_delay_s: longest delay between two attempts.
        stable_s: a connection that lasts so long lets the next delay be short again.
        open_s: limit for connecting, TLS and handshake together.
        ping_s: interval of pings; one that is not answered for two of them ends the connection.
        check_s: interval of the check for stalls and of handing on figures.
        clock: monotonic seconds.
        rng: source of jitter.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        stage: StagePort,
        metrics: Metrics,
        image_format: ImageFormat = ImageFormat.JPEG,
        stall_s: float = 10.0,
        max_delay_s: float = 30.0,
        stable_s: float = 10.0,
        open_s: float = 10.0,
        ping_s: float = 10.0,
        check_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._stage = stage
        self._metrics = metrics
        self._format = image_format
        self._stall_s = stall_s
        self._stable_s = stable_s
        self._open_s = open_s
        self._ping_s = ping_s
        self._check_s = check_s
        self._clock = clock
        self._backoff = Backoff(max_delay_s, rng or random.Random())
        self._waiting: tuple[FrameInfo, bytes] | None = None
        self._offered = asyncio.Event()
        self._seq: int | None = None
        self._sent = 0
        self._dropped = 0
        self._counted = (0, 0)
        self._log = log.bind(stage=stage.name, url=without_secrets(url))
        self._trouble = "not connected yet"
        self._connected = False

    @property
    def problem(self) -> str | None:
        """None while it is connected, else why not."""
        return None if self._connected else self._trouble

    @property
    def kind(self) -> str:
        return KIND

    @property
    def format(self) -> ImageFormat:
        return self._format

    def offer(self, info: FrameInfo, image: bytes) -> bool:
        """Make this the next frame to go out; False where it replaces one that never went."""
        if self._seq is not None:
            if info.seq <= self._seq:
                return True
            self._dropped += info.seq - self._seq - 1
        self._seq = info.seq
        replaces = self._waiting is not None
        self._dropped += replaces
        self._waiting = (info, image)
        self._offered.set()
        return not replaces

    async def run(self) -> None:
        """Connect, push, connect again; until cancelled."""
        self._metrics.set(Metric.MEDIA_BRIDGE_WANTED, 1)
        self._metrics.set(Metric.MEDIA_BRIDGE_CONNECTED, 0)
        connections = 0
        while True:
            connected_s: float | None = None
            try:
                connection = await self._connect()
                connected_s = self._clock()
                connections += 1
                if connections > 1:
                    self._metrics.count(Metric.MEDIA_BRIDGE_RECONNECTS)
                await self._serve(connection)
            # Whatever goes wrong out there, from names that do not resolve to servers that
            # speak something else, is no reason to stop trying, still less to end the daemon.
            except Exception as error:
                self._report(error, connected_s)
            if connected_s is not None and self._proved(connected_s):
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    def _proved(self, connected_s: float) -> bool:
        """The connection has worked: it took frames, or it lasted."""
        lasted = self._clock() - connected_s >= self._stable_s
        return lasted or self._sent >= PROVING_FRAMES

    async def _connect(self) -> ClientConnection:
        headers = {} if not self._token else {"Authorization": f"Bearer {self._token}"}
        return await Dial(
            self._url,
            additional_headers=headers,
            compression=None,  # images are compressed
            open_timeout=self._open_s,
            ping_interval=self._ping_s,
            ping_timeout=2 * self._ping_s,
            close_timeout=_CLOSE_S,
            max_size=_MAX_INPUT_BYTES,
        )

    async def _serve(self, connection: ClientConnection) -> None:
        """Push frames over one connection until it ends, which always raises."""
        tcp.shorten_queue(connection.transport)
        self._trouble = ""
        self._log.info("media_bridge_connected")
        self._set_connected(1)
        self._begin()
        tasks = [
            asyncio.create_task(work(connection), name=f"media-bridge-{work.__name__}")
            for work in (self._push, self._listen, self._watch)
        ]
        try:
            self._stage.attach(self)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Who gives a connection up cuts it, which the others then complain about.
            for task in reversed(tasks):
                if task in done:
                    task.result()
        finally:
            self._stage.detach(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._end()
            self._set_connected(0)
            with suppress(TimeoutError, WebSocketException):
                async with asyncio.timeout(_CLOSE_S):
                    await connection.close(CloseCode.GOING_AWAY)
            connection.transport.abort()

    async def _push(self, connection: ClientConnection) -> None:
        while True:
            await self._offered.wait()
            self._offered.clear()
            if self._waiting is None:
                continue
            (info, image), self._waiting = self._waiting, None
            message = frame_codec.encode(info, image, self._format, self._dropped)
            try:
                await connection.send(message)
            except BaseException:
                self._dropped += 1
                raise
            self._sent += 1

    async def _listen(self, connection: ClientConnection) -> None:
        """Read until the other side closes; what it says is ignored."""
        async for _ in connection:
            pass
        raise SinkError(f"closed by the other side: {connection.close_reason or 'no reason given'}")

    async def _watch(self, connection: ClientConnection) -> None:
        """Raise when the other side takes nothing; hand figures on in bulk."""
        uptake = tcp.Uptake(connection.transport, self._clock())
        while uptake.stalled_s(self._sent, self._clock()) < self._stall_s:
            await asyncio.sleep(self._check_s)
            self._count()
        connection.transport.abort()  # a goodbye would wait behind what is not being taken
        raise SinkError(f"took nothing for {self._stall_s:g} s")

    def _begin(self) -> None:
        self._seq, self._waiting = None, None
        self._sent, self._dropped, self._counted = 0, 0, (0, 0)

    def _end(self) -> None:
        self._dropped += self._waiting is not None
        self._waiting = None
        self._count()

    def _set_connected(self, connected: int) -> None:
        self._connected = bool(connected)
        self._metrics.set(Metric.MEDIA_BRIDGE_CONNECTED, connected)
        self._metrics.set(Metric.CONNECTIONS, connected, kind=KIND)

    def _count(self) -> None:
        sent, dropped = self._counted
        self._counted = (self._sent, self._dropped)
        if self._sent > sent:
            self._metrics.count(Metric.FRAMES_SENT, self._sent - sent, kind=KIND)
        if self._dropped > dropped:
            self._metrics.count(Metric.FRAMES_DROPPED, self._dropped - dropped, kind=KIND)

    def _report(self, error: Exception, connected_s: float | None) -> None:
        """One line when the connection is lost, one for each new reason why there is none."""
        trouble = reason(error, self._url)
        if connected_s is not None:
            self._log.warning(
                "media_bridge_lost",
                reason=trouble,
                seconds=round(self._clock() - connected_s, 1),
            )
        elif trouble != self._trouble:
            self._log.warning("media_bridge_unreachable", reason=trouble)
        self._trouble = trouble
