"""Viewers: connections that take frames, the newest only, each at its own pace.

A frame is one write of bytes that all viewers of the same kind share, and only to a
connection that has taken everything before it. For one that has not, the newest frame
waits; a frame that is replaced while waiting is one the viewer has missed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol
from weakref import WeakSet

import structlog

from adapters.tcp import Uptake
from adapters.viewer_query import Pace
from pipeline.errors import AvatarError
from pipeline.ports import Metric, Metrics, StagePort
from pipeline.types import FrameInfo, ImageFormat

log = structlog.get_logger()

_MEMO_ENTRIES: Final = 8  # counts of missed frames for which the newest frame is kept built
_CHECKED_AT_ONCE: Final = 50
_RETRY_S: Final = 0.02

Message = Callable[[FrameInfo, bytes, int], bytes]
"""Frame, image file and number of missed frames to the bytes for the connection."""


class Drain(Protocol):
    """The writer that aiohttp's `prepare` returns, as far as it is needed here."""

    async def drain(self) -> None: ...


class Parting(StrEnum):
    """Why a viewer no longer gets frames."""

    LEFT = "left"  # it closed the connection, or its program ended
    VANISHED = "vanished"  # its machine has gone without a goodbye
    STALLED = "stalled"  # it took nothing for too long
    SHUTDOWN = "shutdown"
    REMOVED = "removed"  # its stage has been


class NoSeatError(AvatarError):
    """There is no place for another viewer now."""

    retryable: ClassVar[bool] = True


# --- one viewer ---------------------------------------------------------------------------


class Memo:
    """Builds the message of the newest frame once for all viewers that missed as many.

    Args:
        build: makes the message.
    """

    def __init__(self, build: Message) -> None:
        self._build = build
        self._seq = -1
        self._messages: dict[int, bytes] = {}

    def __call__(self, info: FrameInfo, image: bytes, dropped: int) -> bytes:
        if info.seq > self._seq:
            self._seq = info.seq
            self._messages.clear()
        if info.seq != self._seq:  # a frame that had to wait while the others went on
            return self._build(info, image, dropped)
        message = self._messages.get(dropped)
        if message is None:
            message = self._build(info, image, dropped)
            if len(self._messages) < _MEMO_ENTRIES:
                self._messages[dropped] = message
        return message


class Viewer:
    """One connection that takes frames; a `FrameSink`.

    Besides what its connection has not taken of the last frame it keeps at most the
    newest one, which it shares with the stage and all others.

    A thousand of these are walked through for every frame, each of them cold in the
    processor's cache by then: hence the slots, and few objects to touch in `offer`.

    Args:
        kind: `websocket` or `mjpeg`.
        image_format: encoding it wants.
        transport: its connection, after `adapters.tcp.shorten_queue`.
        writer: waits until the connection has taken everything.
        message: makes the bytes to write.
        max_fps: skip frames beyond this rate; they do not count as missed.
        vanished: whether a connection that has ended did so because nothing came from its far end.
        clock: monotonic seconds.
    """

    __slots__ = (
        "__weakref__",
        "_catching_up",
        "_clock",
        "_ended",
        "_format",
        "_kind",
        "_message",
        "_pace",
        "_seq",
        "_transport",
        "_uptake",
        "_vanished",
        "_waiting",
        "_writer",
        "dropped",
        "parting",
        "sent",
    )

    def __init__(
        self,
        kind: str,
        image_format: ImageFormat,
        transport: asyncio.WriteTransport,
        writer: Drain,
        message: Message,
        *,
        max_fps: float | None = None,
        vanished: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._format = image_format
        self._transport = transport
        self._writer = writer
        self._message = message
        self._pace = None if max_fps is None else Pace(max_fps)
        self._vanished = vanished
        self._clock = clock
        self._uptake = Uptake(transport, clock())
        self._seq: int | None = None
        self._waiting: tuple[FrameInfo, bytes] | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self.parting: Parting | None = None
        self.sent = 0
        self.dropped = 0

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def format(self) -> ImageFormat:
        return self._format

    def offer(self, info: FrameInfo, image: bytes) -> bool:
        """Write this frame now (True), or keep it until the next one is there (False)."""
        if self.parting is not None or self._transport.is_closing():
            return False
        if self._seq is not None:
            if info.seq <= self._seq:
                return False
            if self._pace is None:  # frames that never came to us, in a slow format
                self.dropped += info.seq - self._seq - 1
        self._seq = info.seq
        if self._pace is not None and not self._pace.due(info.pts_s):
            return False
        if self._waiting is not None:
            self._waiting = None
            self.dropped += 1
        if self._transport.get_write_buffer_size() == 0:
            self._write(info, image)
            return True
        self._waiting = (info, image)
        if self._catching_up is None:
            self._catching_up = asyncio.create_task(self._catch_up())
        return False

    def stalled_s(self) -> float:
        """How long it has taken nothing although there was something to take."""
        return self._uptake.stalled_s(self.sent, self._clock())

    @property
    def gone(self) -> bool:
        """Its connection is closed or about to be."""
        return self._transport.is_closing()

    def end(self, parting: Parting) -> None:
        """Take no more frames; the first reason given stays."""
        if self.parting is None:
            self.parting = parting
            if self._waiting is not None:
                self._waiting = None
                self.dropped += 1
            self._ended.set()

    async def ended(self) -> Parting:
        """Wait for `end`."""
        await self._ended.wait()
        assert self.parting is not None
        return self.parting

    def explain(self) -> Parting:
        """Why it has ended, with what has become known of its connection since."""
        if self.parting is Parting.LEFT and self._vanished():
            self.parting = Parting.VANISHED
        assert self.parting is not None
        return self.parting

    async def settled(self) -> None:
        """Wait for what is still running here, once the connection is closed."""
        if self._catching_up is not None:
            await asyncio.wait([self._catching_up])

    def _write(self, info: FrameInfo, image: bytes) -> None:
        self._transport.write(self._message(info, image, self.dropped))
        self.sent += 1

    async def _catch_up(self) -> None:
        """Write the waiting frame once the connection has taken all before it."""
        try:
            while True:
                await self._writer.drain()
                if self.parting is not None or self._transport.is_closing():
                    break
                if self._transport.get_write_buffer_size():
                    await asyncio.sleep(_RETRY_S)
                    continue
                if self._waiting is not None:
                    (info, image), self._waiting = self._waiting, None
                    self._write(info, image)
                break
        except ConnectionError:
            self.end(Parting.LEFT)
        finally:
            self._catching_up = None


# --- all of them --------------------------------------------------------------------------


class Audience:
    """All viewers, whatever their kind: their number, their end, their figures.

    Args:
        metrics: where figures go.
        limit: most viewers at a time.
        stall_s: a viewer that has taken nothing for so long is ended.
        check_s: interval of that check and of handing on figures.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        limit: int = 2000,
        stall_s: float = 10.0,
        check_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._limit = limit
        self._stall_s = stall_s
        self._check_s = check_s
        self.clock = clock
        self._seats: Counter[str] = Counter()
        self._viewers: dict[Viewer, tuple[int, int]] = {}  # frames counted: sent, dropped
        self._watching: dict[Viewer, StagePort] = {}
        self._removed: WeakSet[StagePort] = WeakSet()
        self._watch: asyncio.Task[None] | None = None
        self._closing = False
        self._turnstile = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def seat(self, kind: str) -> Iterator[None]:
        """Hold a place for one connection of this kind.

        Raises:
            NoSeatError: there is none, or we are closing.
        """
        if self._closing:
            raise NoSeatError("the daemon is stopping")
        if self._seats.total() >= self._limit:
            raise NoSeatError(f"all {self._limit} places for viewers are taken")
        self._take_seats(kind, 1)
        try:
            yield
        finally:
            self._take_seats(kind, -1)

    async def turn(self) -> None:
        """Wait for one's turn to come or to go: one viewer in each turn of the event loop.

        A crowd that comes back at once would else hold up the frames of all the others with
        its handshakes and first frames for a fraction of a second, and again when it leaves.
        """
        async with self._turnstile:
            await asyncio.sleep(0)

    async def attend(self, stage: StagePort, viewer: Viewer, **about: Any) -> Parting:
        """Give the viewer the stage's frames until it leaves or is to be let go.

        Args:
            stage: what it watches.
            viewer: the viewer, in a seat.
            about: what the log should say about it.
        """
        began_s = self.clock()
        line = log.bind(kind=viewer.kind, stage=stage.name, **about)
        line.info("viewer_opened", format=viewer.format.value)
        self._viewers[viewer] = (0, 0)
        self._watching[viewer] = stage
        if self._watch is None:
            self._watch = asyncio.create_task(self._check_viewers(), name="audience")
        if self._closing:
            viewer.end(Parting.SHUTDOWN)
        if stage in self._removed:  # while the connection was being made
            viewer.end(Parting.REMOVED)
        stage.attach(viewer)
        try:
            parting = await viewer.ended()
            await self.turn()
            return parting
        finally:
            stage.detach(viewer)
            viewer.end(Parting.LEFT)
            self._count(viewer)
            del self._viewers[viewer], self._watching[viewer]
            line.info(
                "viewer_closed",
                parting=viewer.explain().value,
                sent=viewer.sent,
                dropped=viewer.dropped,
                seconds=round(self.clock() - began_s, 1),
            )

    def let_go(self, stage: StagePort) -> None:
        """End the viewers of a stage that has been removed, and those who are about to come."""
        self._removed.add(stage)
        for viewer, watched in list(self._watching.items()):
            if watched is stage:
                viewer.end(Parting.REMOVED)

    async def close(self) -> None:
        """End every viewer and wait until their connections are closed; idempotent."""
        self._closing = True
        for viewer in list(self._viewers):
            viewer.end(Parting.SHUTDOWN)
        await self._empty.wait()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    def _take_seats(self, kind: str, number: int) -> None:
        self._seats[kind] += number
        self._metrics.set(Metric.CONNECTIONS, self._seats[kind], kind=kind)
        if self._seats.total():
            self._empty.clear()
        else:
            self._empty.set()

    async def _check_viewers(self) -> None:
        """End those that take nothing or are gone; hand figures on in bulk, not per frame.

        A few viewers at a time, spread over the interval, so that many of them never hold
        the event loop up for long.
        """
        while True:
            viewers = list(self._viewers)
            pauses = max(1, -(-len(viewers) // _CHECKED_AT_ONCE))
            for begin in range(0, pauses * _CHECKED_AT_ONCE, _CHECKED_AT_ONCE):
                await asyncio.sleep(self._check_s / pauses)
                for viewer in viewers[begin : begin + _CHECKED_AT_ONCE]:
                    if viewer in self._viewers:
                        self._check(viewer)

    def _check(self, viewer: Viewer) -> None:
        self._count(viewer)
        if viewer.gone:
            viewer.end(Parting.LEFT)
        elif viewer.parting is None and viewer.stalled_s() >= self._stall_s:
            viewer.end(Parting.STALLED)
            self._metrics.count(Metric.EVICTIONS, kind=viewer.kind)

    def _count(self, viewer: Viewer) -> None:
        sent, dropped = self._viewers[viewer]
        self._viewers[viewer] = (viewer.sent, viewer.dropped)
        if viewer.sent > sent:
            self._metrics.count(Metric.FRAMES_SENT, viewer.sent - sent, kind=viewer.kind)
        if viewer.dropped > dropped:
            self._metrics.count(Metric.FRAMES_DROPPED, viewer.dropped - dropped, kind=viewer.kind)
