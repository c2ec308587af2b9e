"""What a stage shows at one moment, in whatever encoding a viewer wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import cv2

from pipeline.encoding import decode_jpeg, encode
from pipeline.errors import RenderError
from pipeline.frame_cache import CachedFrame, FrameCache, FrameKey
from pipeline.framing import Framing
from pipeline.ports import Metric, Metrics
from pipeline.render_worker import RenderWorker
from pipeline.types import FaceControls, Image, ImageFormat, Portrait


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame to publish, and what it really shows.

    Attributes:
        key: of the JPEG in the frame cache.
        jpeg: one complete JPEG file.
        width, height: pixels.
        controls: what the face was drawn with.
        weights: emotion label to weight on the face that is shown.
        exact: the face is the one that was asked for.
        cached: it was not drawn for this frame.
        degraded: None, or why it is not the wanted renderer's frame of the wanted face.
    """

    key: FrameKey
    jpeg: bytes
    width: int
    height: int
    controls: FaceControls
    weights: Mapping[str, float]
    exact: bool
    cached: bool
    degraded: str | None
    _encoder: FormatEncoder = field(repr=False)

    @property
    def portrait(self) -> str:
        """Content hash of the portrait that is shown."""
        return self.key.family.portrait

    async def encoded(self, image_format: ImageFormat) -> bytes:
        """One complete image file. JPEG is there already; the others are made once.

        Raises:
            RenderError: it cannot be encoded; or too many wait for that, or the encoder is
                closed (`JobDroppedError`).
        """
        if image_format is ImageFormat.JPEG:
            return self.jpeg
        return await self._encoder.encoded(self, image_format)


class FormatEncoder:
    """Makes WebP and PNG in a thread of its own, so that the slow formats never delay JPEG.

    Each picture is encoded once per format, whoever asks and however often.
    """

    def __init__(self, cache: FrameCache, metrics: Metrics) -> None:
        self._cache = cache
        self._metrics = metrics
        self._worker = RenderWorker("encode")
        self._making: dict[FrameKey, asyncio.Future[bytes]] = {}

    async def encoded(self, picture: Picture, image_format: ImageFormat) -> bytes:
        """The picture in that format, from the cache or made now."""
        key = picture.key.in_format(image_format)
        frame = self._cache.peek(key)
        if frame is not None:
            return frame.data
        making = self._making.get(key)
        if making is None:
            making = self._worker.submit(partial(self._make, picture, key), owner=key)
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key))
        # Others may wait for the same image when this caller is cancelled.
        return await asyncio.shield(making)

    async def encode(self, image: Image, image_format: ImageFormat, quality: int) -> bytes:
        """An image that is no stage's picture.

        Raises:
            RenderError: as `Picture.encoded`.
        """
        job = partial(timed_encode, image, image_format, quality, self._metrics)
        return await self._worker.run(job, owner=object())

    def crossfaded(
        self, before: bytes, after: bytes, share: float, quality: int
    ) -> asyncio.Future[bytes]:
        """A JPEG of which `share` (0 to 1) is `after` and the rest `before`, of the same size."""

        def job() -> bytes:
            mixed = cv2.addWeighted(
                decode_jpeg(after), share, decode_jpeg(before), 1.0 - share, 0.0
            )
            return timed_encode(cast(Image, mixed), ImageFormat.JPEG, quality, self._metrics)

        return self._worker.submit(job, owner=object())

    async def still(self, portrait: Portrait, size_px: tuple[int, int], quality: int) -> bytes:
        """The portrait as it is, as a JPEG of that size, cut to its proportions.

        Raises:
            RenderError: as `Picture.encoded`.
        """

        def job() -> bytes:
            image = Framing.of(portrait, size_px).cut(portrait.image)
            return timed_encode(image, ImageFormat.JPEG, quality, self._metrics)

        return await self._worker.run(job, owner=object())

    async def close(self, deadline_s: float) -> bool:
        """Let the image in the making finish and end the thread.

        Returns:
            False if it is still at work after `deadline_s`.
        """
        return await self._worker.close(deadline_s)

    def _make(self, picture: Picture, key: FrameKey) -> bytes:
        # From the JPEG, not from what was drawn: fresh or from the cache, one face is one picture,
        # and no viewer sees it change when the same face comes again.
        image = decode_jpeg(picture.jpeg)
        family = key.family
        data = timed_encode(image, family.image_format, family.quality, self._metrics)
        self._cache.put(key, CachedFrame(data, picture.controls, picture.weights))
        return data


def timed_encode(image: Image, image_format: ImageFormat, quality: int, metrics: Metrics) -> bytes:
    """`encode`, with its seconds to the metrics.

    Raises:
        RenderError: this format cannot hold this image.
    """
    begun_s = time.perf_counter()
    try:
        data = encode(image, image_format, quality)
    except ValueError as error:
        raise RenderError(str(error)) from error
    seconds = time.perf_counter() - begun_s
    metrics.observe(Metric.ENCODE_SECONDS, seconds, format=image_format.value)
    return data
