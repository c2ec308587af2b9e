"""One frame of a stage: drawn, encoded and kept in one go, in the render thread."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from pipeline.frame_cache import CachedFrame, FrameCache, FrameFamily, FrameKey, face_of
from pipeline.picture import timed_encode
from pipeline.ports import Metrics
from pipeline.render_host import Drawing, RenderHost
from pipeline.types import ImageFormat, Portrait


@dataclass(frozen=True, slots=True, eq=False)
class WantedFace:
    """A face that is asked for.

    Attributes:
        code: its quantised controls.
        weights: emotion label to weight, to be reported with it.
    """

    portrait: Portrait
    code: bytes
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class MadeFrame:
    """A frame fresh from a renderer; its JPEG is in the cache.

    Attributes:
        render_s: what drawing took, without loading, preparing and encoding.
    """

    key: FrameKey
    frame: CachedFrame
    render_s: float


class FrameMaker:
    """Makes the frames of one stage. Methods belong to the event loop's thread.

    Args:
        stage: has its own turns in the render thread.
        size_px: (width, height).
        quality: 1..100, of the JPEG.
    """

    def __init__(
        self,
        host: RenderHost,
        cache: FrameCache,
        *,
        stage: str,
        size_px: tuple[int, int],
        quality: int,
        metrics: Metrics,
    ) -> None:
        self._host = host
        self._cache = cache
        self._stage = stage
        self._size_px = size_px
        self._quality = quality
        self._metrics = metrics

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of its frames."""
        return self._size_px

    def key(self, renderer: str, wanted: WantedFace) -> FrameKey:
        """Of the JPEG of that face by that renderer."""
        family = FrameFamily(
            wanted.portrait.key, renderer, self._size_px, ImageFormat.JPEG, self._quality
        )
        return FrameKey(family, wanted.code)

    def turn(self, purpose: str) -> Hashable:
        """The stage's place in the render thread's queue for jobs of that purpose."""
        return self._stage, purpose

    def submit(self, renderer: str, wanted: WantedFace, purpose: str) -> asyncio.Future[MadeFrame]:
        """Have the frame made, unless a newer one of the same purpose comes first.

        It is encoded beside the next frame of a renderer that takes its time, and right away
        where handing it over would take as long.
        """
        worker, draw = self._host.worker(renderer), partial(self._draw, renderer, wanted)
        finish = partial(self._finish, renderer, wanted)
        if self._host.encodes_beside(renderer):
            return worker.submit_in_two(draw, finish, self.turn(purpose))
        return worker.submit(lambda: finish(draw()), self.turn(purpose))

    async def finish(self, renderer: str, wanted: WantedFace, purpose: str) -> MadeFrame:
        """Have the frame made, however long it takes.

        Raises:
            RenderError: it could not be made.
        """
        draw = partial(self._draw, renderer, wanted)
        finish = partial(self._finish, renderer, wanted)
        return await self._host.finish(renderer, lambda: finish(draw()), self.turn(purpose))

    def _draw(self, renderer: str, wanted: WantedFace) -> Drawing:
        return self._host.draw(renderer, wanted.portrait, face_of(wanted.code), self._size_px)

    def _finish(self, renderer: str, wanted: WantedFace, drawing: Drawing) -> MadeFrame:
        data = timed_encode(drawing.image, ImageFormat.JPEG, self._quality, self._metrics)
        weights = MappingProxyType(dict(wanted.weights))
        frame = CachedFrame(data, face_of(wanted.code), weights)
        key = self.key(renderer, wanted)
        self._cache.put(key, frame)
        return MadeFrame(key, frame, drawing.render_s)
