"""Newest frame to every sink, one slot each; never waits for a slow one.

JPEG goes out at once. The slower formats are encoded once per frame, off the stage's
path: each has a lane that always takes the newest picture, so that a WebP or PNG viewer
gets fewer frames where encoding cannot keep up, and nobody else notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from pipeline.errors import AvatarError
from pipeline.ports import FrameSink
from pipeline.types import FrameInfo, ImageFormat

log = structlog.get_logger()

SINKS_BEFORE_YIELD: Final = 100


class EncodedPicture(Protocol):
    """A picture that is there as JPEG and can be had in the other formats."""

    @property
    def jpeg(self) -> bytes: ...

    async def encoded(self, image_format: ImageFormat) -> bytes: ...


class FrameHub:
    """Fans published frames out to sinks.

    Args:
        changed: called after every attach and detach.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._sinks: dict[ImageFormat, dict[FrameSink, None]] = {f: {} for f in ImageFormat}
        self._lanes: dict[ImageFormat, _Lane] = {}
        self._newest: tuple[FrameInfo, EncodedPicture] | None = None

    def __len__(self) -> int:
        return sum(len(sinks) for sinks in self._sinks.values())

    def count_by_kind(self) -> dict[str, int]:
        """How many sinks of each kind are attached."""
        counts: dict[str, int] = {}
        for sinks in self._sinks.values():
            for sink in sinks:
                counts[sink.kind] = counts.get(sink.kind, 0) + 1
        return counts

    @property
    def newest(self) -> tuple[FrameInfo, EncodedPicture] | None:
        """The frame published last."""
        return self._newest

    def attach(self, sink: FrameSink) -> None:
        """Send frames to `sink` from now on, the newest at once."""
        self._sinks[sink.format][sink] = None
        self._changed()
        if self._newest is None:
            return
        info, picture = self._newest
        if sink.format is ImageFormat.JPEG:
            sink.offer(info, picture.jpeg)
        else:
            self._lane(sink.format).greet(sink, info, picture)

    def detach(self, sink: FrameSink) -> None:
        """Stop sending; harmless if it is not attached."""
        sinks = self._sinks[sink.format]
        if sink not in sinks:
            return
        del sinks[sink]
        if not sinks and sink.format in self._lanes:
            self._lanes.pop(sink.format).close()
        self._changed()

    async def publish(self, info: FrameInfo, picture: EncodedPicture) -> None:
        """Give the frame to every sink; lets the loop breathe between batches of sinks."""
        self._newest = (info, picture)
        for image_format in (ImageFormat.WEBP, ImageFormat.PNG):
            if self._sinks[image_format]:
                self._lane(image_format).put(info, picture)
        await self._offer(ImageFormat.JPEG, info, picture.jpeg)

    async def close(self) -> None:
        """End the lanes; sinks are closed by those who attached them."""
        lanes = list(self._lanes.values())
        self._lanes.clear()
        for lane in lanes:
            lane.close()
        await asyncio.gather(*(lane.ended() for lane in lanes))

    async def _offer(self, image_format: ImageFormat, info: FrameInfo, image: bytes) -> None:
        sinks = self._sinks[image_format]
        for index, sink in enumerate(list(sinks), start=1):
            if sink in sinks:
                sink.offer(info, image)
            if index % SINKS_BEFORE_YIELD == 0:
                await asyncio.sleep(0)

    def _lane(self, image_format: ImageFormat) -> _Lane:
        lane = self._lanes.get(image_format)
        if lane is None:

            async def deliver(info: FrameInfo, image: bytes) -> None:
                await self._offer(image_format, info, image)

            lane = self._lanes[image_format] = _Lane(image_format, deliver)
        return lane


class _Lane:
    """Encodes the newest picture in one format, over and over."""

    def __init__(
        self,
        image_format: ImageFormat,
        deliver: Callable[[FrameInfo, bytes], Awaitable[None]],
    ) -> None:
        self._format = image_format
        self._deliver = deliver
        self._waiting: tuple[FrameInfo, EncodedPicture] | None = None
        self._woken = asyncio.Event()
        self._delivered: tuple[FrameInfo, bytes] | None = None
        self._task = asyncio.create_task(self._run(), name=f"lane-{image_format}")

    def put(self, info: FrameInfo, picture: EncodedPicture) -> None:
        """Make this the next picture."""
        self._waiting = (info, picture)
        self._woken.set()

    def greet(self, sink: FrameSink, info: FrameInfo, picture: EncodedPicture) -> None:
        """Send the newest frame to a new sink: at once if it is encoded, else with the others."""
        if self._delivered is not None and self._delivered[0].seq == info.seq:
            sink.offer(*self._delivered)
        else:
            self.put(info, picture)

    def close(self) -> None:
        self._task.cancel()

    async def ended(self) -> None:
        """Wait for the task, which `close` cancelled."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            if self._waiting is None:
                continue
            info, picture = self._waiting
            self._waiting = None
            try:
                image = await picture.encoded(self._format)
            except AvatarError as error:
                log.warning("frame_not_encoded", format=self._format.value, error=str(error))
                continue
            self._delivered = (info, image)
            await self._deliver(info, image)
