"""Bringing a portrait on stage: prepared, and its most wanted faces drawn ahead."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import structlog

from pipeline.errors import DeviceLostError, JobDroppedError, RenderError
from pipeline.frame_cache import CachedFrame, FrameCache, FrameKey
from pipeline.frame_maker import FrameMaker, WantedFace
from pipeline.render_host import RenderHost
from pipeline.types import Portrait

log = structlog.get_logger()

_PURPOSE = "show"


@dataclass(frozen=True, slots=True, eq=False)
class Introduction:
    """What it took.

    Attributes:
        renderer: the first that could draw the neutral face; None if none could.
        neutral: its frame.
        keys: of the frames drawn ahead, the neutral one first.
        failures: renderer to what went wrong with it.
    """

    renderer: str | None
    neutral: tuple[FrameKey, CachedFrame] | None
    keys: tuple[FrameKey, ...]
    failures: dict[str, RenderError]


class Introducer:
    """Introduces portraits to one stage. Methods belong to the event loop's thread.

    Args:
        on_failure: called with the renderer's name and each error.
    """

    def __init__(
        self,
        host: RenderHost,
        cache: FrameCache,
        maker: FrameMaker,
        on_failure: Callable[[str, RenderError], None],
    ) -> None:
        self._host = host
        self._cache = cache
        self._maker = maker
        self._on_failure = on_failure

    async def introduce(
        self, faces: Sequence[WantedFace], renderers: Sequence[str], pins: Hashable
    ) -> Introduction:
        """Find the first renderer that can show the portrait, and draw all faces with it.

        Args:
            faces: of one portrait, the neutral one first.
            renderers: to be tried, wanted first.
            pins: in whose name the frames are kept from eviction, as far as there is room.
        """
        failures: dict[str, RenderError] = {}
        for position, renderer in enumerate(renderers):
            try:
                await self._host.prepare(
                    renderer, faces[0].portrait, self._turn, self._maker.size_px
                )
                made = await self._maker.finish(renderer, faces[0], _PURPOSE)
            except RenderError as error:
                self._failed(renderer, error, failures)
                continue
            keys = (made.key, *await self._draw_ahead(renderer, faces[1:]))
            self._cache.pin(pins, keys)
            spares = renderers[position + 1 :]
            await self._prepare_spares(spares, faces[0].portrait, failures)
            return Introduction(renderer, (made.key, made.frame), keys, failures)
        return Introduction(None, None, (), failures)

    async def _draw_ahead(self, renderer: str, faces: Sequence[WantedFace]) -> list[FrameKey]:
        """One job for each, so that the frames on stage are drawn in between."""
        keys = []
        for face in faces:
            key = self._maker.key(renderer, face)
            try:
                if self._cache.peek(key) is None:
                    await self._maker.finish(renderer, face, _PURPOSE)
            except RenderError as error:
                self._on_failure(renderer, error)
                log.warning("frame_not_drawn_ahead", renderer=renderer, error=str(error))
                if isinstance(error, JobDroppedError | DeviceLostError):
                    break
            else:
                keys.append(key)
        return keys

    async def _prepare_spares(
        self, renderers: Sequence[str], portrait: Portrait, failures: dict[str, RenderError]
    ) -> None:
        """Have the renderers below ready for the moment when they are needed."""
        for renderer in renderers:
            try:
                await self._host.prepare(renderer, portrait, self._turn, self._maker.size_px)
            except RenderError as error:
                self._failed(renderer, error, failures)

    def _failed(self, renderer: str, error: RenderError, failures: dict[str, RenderError]) -> None:
        failures[renderer] = error
        self._on_failure(renderer, error)

    @property
    def _turn(self) -> Hashable:
        return self._maker.turn(_PURPOSE)
