"""Always something to show: the wanted renderer, the next, the nearest cached frame, neutral,
the portrait itself.

A rung that fails or is late costs its own picture, never the stream. What is shown says what
it is, and the wanted renderer is tried again in the background until it works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final

import structlog

from pipeline.errors import DeviceLostError, RenderError
from pipeline.frame_cache import CachedFrame, CacheStats, FrameCache, FrameKey, face_code
from pipeline.frame_maker import FrameMaker, MadeFrame, WantedFace
from pipeline.health import RendererHealth, kind_of, reason_for, was_crowded_out
from pipeline.introduction import Introducer
from pipeline.picture import FormatEncoder, Picture
from pipeline.ports import Metric, Metrics
from pipeline.render_host import RenderHost
from pipeline.types import FaceControls, Portrait

__all__ = ["FallbackLadder", "Picture"]

log = structlog.get_logger()

CACHED: Final = "cached"
NEUTRAL: Final = "neutral"
PORTRAIT: Final = "portrait"
# A frame this many deadlines old is not worth waiting for: its renderer has failed.
_PATIENCE: Final = 2.0
_NEUTRAL_WEIGHTS: Final = MappingProxyType({"neutral": 1.0})


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """The portrait on stage and what is kept for it outside the cache.

    Attributes:
        still: the portrait as it is, a JPEG.
        neutral: None where no renderer has drawn it yet.
        pins: in whose name its frames are pinned.
    """

    portrait: Portrait
    still: bytes
    neutral: tuple[FrameKey, CachedFrame] | None
    pins: Hashable


@dataclass(slots=True, eq=False)
class _Rung:
    """One renderer of this ladder."""

    name: str
    health: RendererHealth = field(default_factory=RendererHealth)
    probing: bool = False


class FallbackLadder:
    """The pictures of one stage. All methods belong to the event loop's thread.

    Host, cache and encoder are shared by all stages.

    Args:
        stage: for logs, metrics, and its turn in the render thread.
        size_px: (width, height) of every picture.
        quality: 1..100, of JPEG and WebP.
        deadline_s: `picture` has an answer by then.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        host: RenderHost,
        cache: FrameCache,
        encoder: FormatEncoder,
        *,
        stage: str,
        size_px: tuple[int, int],
        quality: int,
        deadline_s: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._cache = cache
        self._encoder = encoder
        self._stage = stage
        self._size_px = size_px
        self._quality = quality
        self._maker = FrameMaker(
            host, cache, stage=stage, size_px=size_px, quality=quality, metrics=metrics
        )
        self._introducer = Introducer(host, cache, self._maker, self._take_note)
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._clock = clock
        self._rungs = tuple(_Rung(name) for name in host.names)
        self._rung = self._rungs[0].name
        self._problem: str | None = None
        self._shown: _Shown | None = None
        self._wanted: WantedFace | None = None
        self._showing = asyncio.Lock()
        # The job that kept the last picture waiting in vain. Until it is over, waiting again
        # would only slow the stream down.
        self._blocker: asyncio.Future[object] | None = None
        self._late: _Rung | None = None
        for rung in (*host.names, CACHED, NEUTRAL, PORTRAIT):
            metrics.set(Metric.DEGRADED, float(rung == self._rung), stage=stage, rung=rung)

    # --- what it is doing -----------------------------------------------------------------

    @property
    def degraded(self) -> str | None:
        """None, or why the wanted renderer's frames are not shown, in a few words."""
        return self._rungs[0].health.reason or self._problem

    @property
    def rung(self) -> str:
        """What serves: a renderer's name, `cached`, `neutral` or `portrait`."""
        return self._rung

    @property
    def renderer(self) -> str:
        """The best renderer that works; the wanted one where none does."""
        working = (rung.name for rung in self._rungs if rung.health.reason is None)
        return next(working, self._rungs[0].name)

    @property
    def device(self) -> str:
        """That renderer's device; `unknown` until it has been loaded."""
        return self._host.device(self.renderer) or "unknown"

    def cache_stats(self) -> CacheStats:
        """Of the cache that all stages share."""
        return self._cache.stats

    # --- the portrait ---------------------------------------------------------------------

    async def show(
        self,
        portrait: Portrait,
        ahead: Sequence[tuple[FaceControls, Mapping[str, float]]],
        *,
        accept_still: bool = False,
    ) -> None:
        """Put a portrait on stage; the one before is shown until this one is ready.

        Args:
            ahead: faces to draw now and keep from eviction, the neutral one first.
            accept_still: where no renderer works, show the portrait itself until one does.

        Raises:
            RenderError: no renderer can show it; nothing has changed.
        """
        async with self._showing:
            pins = object()
            self._host.keep(pins, portrait)
            try:
                await self._introduce(portrait, ahead, pins, accept_still)
            except BaseException:
                self._leave(pins)
                raise

    async def _introduce(
        self,
        portrait: Portrait,
        ahead: Sequence[tuple[FaceControls, Mapping[str, float]]],
        pins: Hashable,
        accept_still: bool,
    ) -> None:
        still = await self._encoder.still(portrait, self._size_px, self._quality)
        faces = [WantedFace(portrait, face_code(controls), weights) for controls, weights in ahead]
        renderers = [rung.name for rung in self._rungs if not rung.health.lost]
        done = await self._introducer.introduce(faces, renderers, pins)
        if done.renderer is None and not accept_still:
            raise next(iter(done.failures.values()), RenderError("no renderer is left"))
        before, self._shown = self._shown, _Shown(portrait, still, done.neutral, pins)
        self._wanted = faces[0]
        for rung in self._rungs:
            if rung.name in done.failures:
                self._mark_failed(rung, done.failures[rung.name])
            elif rung.name == done.renderer:
                rung.health.succeeded(self._clock())
        self._settle(PORTRAIT if done.renderer is None else CACHED)
        if before is not None:
            self._leave(before.pins)
        # Again, with the room that the portrait before has left.
        pinned = self._cache.pin(pins, done.keys)
        if pinned < len(done.keys):
            log.warning("frames_not_pinned", stage=self._stage, pinned=pinned, of=len(done.keys))

    def _leave(self, pins: Hashable) -> None:
        self._cache.unpin(pins)
        self._host.keep(pins, None)

    def close(self) -> None:
        """Let go of the portrait on stage; `picture` cannot be used after this."""
        if self._shown is not None:
            self._leave(self._shown.pins)
        self._shown = self._wanted = None

    # --- pictures -------------------------------------------------------------------------

    async def picture(self, controls: FaceControls, weights: Mapping[str, float]) -> Picture:
        """The best picture of this face that can be had within the deadline.

        Args:
            weights: label to weight of the emotions on this face, to be reported with it.

        Raises:
            RuntimeError: no portrait is on stage.
        """
        if self._shown is None:
            raise RuntimeError("no portrait is on stage: call show() first")
        self._host.rescue()
        shown = self._shown
        wanted = self._wanted = WantedFace(shown.portrait, face_code(controls), weights)
        picture, source = await self._best(wanted, shown)
        self._problem = picture.degraded
        self._settle(source)
        self.probe()
        return picture

    async def _best(self, wanted: WantedFace, shown: _Shown) -> tuple[Picture, str]:
        end_s = self._clock() + self._deadline_s
        problem: str | None = None
        for rung in self._rungs:
            key = self._maker.key(rung.name, wanted)
            frame = self._cache.get(key)
            if frame is not None:
                return self._exact(key, frame, wanted, problem), CACHED
            drawn = await self._drawn_in_time(rung, wanted, end_s)
            if not isinstance(drawn, str):
                picture = self._exact(drawn.key, drawn.frame, wanted, problem, fresh=True)
                return picture, rung.name
            problem = problem or drawn
        return self._stand_in(wanted, shown, problem)

    async def _drawn_in_time(
        self, rung: _Rung, wanted: WantedFace, end_s: float
    ) -> MadeFrame | str:
        """The frame, or why there is none."""
        reason = rung.health.reason or self._blocked(rung)
        if reason is not None:
            return reason
        future = self._maker.submit(rung.name, wanted, "picture")
        try:
            await asyncio.wait((future,), timeout=max(0.0, end_s - self._clock()))
        except asyncio.CancelledError:
            future.cancel()
            raise
        if not future.done():
            return self._missed(rung, future)
        error = future.exception()
        if error is None:
            rung.health.succeeded(self._clock())
            return future.result()
        if was_crowded_out(error):
            return f"{rung.name}: busy"
        return self._failed(rung, error)

    def _blocked(self, rung: _Rung) -> str | None:
        """Whether what the last picture waited for in vain is still going on."""
        if self._blocker is None:
            return None
        since_s = self._host.worker.busy_since
        if self._host.worker.running is not self._blocker or since_s is None:
            self._blocker = self._late = None
            return None
        if self._late is rung and self._clock() - since_s > _PATIENCE * self._deadline_s:
            return self._too_late(rung)
        return self._late_text(rung) if self._late is rung else f"{rung.name}: busy"

    def _missed(self, rung: _Rung, future: asyncio.Future[MadeFrame]) -> str:
        self._blocker = self._host.worker.running
        if self._blocker is not future:
            # Somebody else's job is in the way, such as a portrait being prepared.
            future.cancel()
            self._late = None
            return f"{rung.name}: busy"
        self._late = rung
        # What becomes of it still matters: its frame goes to the cache, a lost device counts.
        future.add_done_callback(partial(self._late_end, rung))
        self._metrics.count(Metric.RENDER_FAILURES, renderer=rung.name, reason="timeout")
        rung.health.missed(self._clock(), self._late_text(rung))
        return self._late_text(rung)

    def _too_late(self, rung: _Rung) -> str:
        rung.health.too_late(self._clock(), self._late_text(rung))
        return self._late_text(rung)

    def _late_end(self, rung: _Rung, future: asyncio.Future[MadeFrame]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and not was_crowded_out(error):
            self._failed(rung, error)

    def _late_text(self, rung: _Rung) -> str:
        return f"{rung.name}: no frame within {self._deadline_s * 1000.0:.0f} ms"

    def _stand_in(
        self, wanted: WantedFace, shown: _Shown, problem: str | None
    ) -> tuple[Picture, str]:
        """What can be shown without drawing."""
        for rung in self._rungs:
            nearest = self._cache.nearest(self._maker.key(rung.name, wanted))
            if nearest is not None:
                return self._inexact(*nearest, problem), CACHED
        if shown.neutral is not None:
            return self._inexact(*shown.neutral, problem), NEUTRAL
        still = CachedFrame(shown.still, FaceControls(), _NEUTRAL_WEIGHTS)
        as_it_is = WantedFace(shown.portrait, face_code(still.controls), still.weights)
        return self._inexact(self._maker.key(PORTRAIT, as_it_is), still, problem), PORTRAIT

    def _exact(
        self,
        key: FrameKey,
        frame: CachedFrame,
        wanted: WantedFace,
        problem: str | None,
        *,
        fresh: bool = False,
    ) -> Picture:
        # Faces that differ by less than a step share a frame; the weights are of the one asked for.
        return self._picture(key, frame, wanted.weights, exact=True, problem=problem, fresh=fresh)

    def _inexact(self, key: FrameKey, frame: CachedFrame, problem: str | None) -> Picture:
        return self._picture(key, frame, frame.weights, exact=False, problem=problem)

    def _picture(
        self,
        key: FrameKey,
        frame: CachedFrame,
        weights: Mapping[str, float],
        *,
        exact: bool,
        problem: str | None,
        fresh: bool = False,
    ) -> Picture:
        width, height = self._size_px
        return Picture(
            key=key,
            jpeg=frame.data,
            width=width,
            height=height,
            controls=frame.controls,
            weights=weights,
            exact=exact,
            cached=not fresh,
            degraded=problem,
            _encoder=self._encoder,
        )

    # --- failing and recovering -----------------------------------------------------------

    def probe(self) -> None:
        """Try a failed renderer again if it is time to, without waiting for it.

        `picture` does so; call it now and then while no pictures are asked for.
        """
        self._host.rescue()
        wanted = self._wanted
        if wanted is None:
            return
        now_s = self._clock()
        for rung in self._rungs:
            if rung.health.reason is None:
                # Those below are not needed.
                return
            if not rung.probing and rung.health.retry_due(now_s):
                future = self._maker.submit(rung.name, wanted, f"probe of {rung.name}")
                rung.probing = True
                future.add_done_callback(partial(self._probed, rung))

    def _probed(self, rung: _Rung, future: asyncio.Future[MadeFrame]) -> None:
        rung.probing = False
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (error is not None and was_crowded_out(error)):
            return
        if error is not None:
            self._failed(rung, error)
        elif future.result().render_s > self._deadline_s:
            self._metrics.count(Metric.RENDER_FAILURES, renderer=rung.name, reason="timeout")
            self._too_late(rung)
        else:
            rung.health.succeeded(self._clock())
            self._problem = None
        self._settle(self._rung)

    def _failed(self, rung: _Rung, error: BaseException) -> str:
        self._take_note(rung.name, error)
        return self._mark_failed(rung, error)

    def _mark_failed(self, rung: _Rung, error: BaseException) -> str:
        reason = reason_for(rung.name, error)
        rung.health.failed(self._clock(), reason, lost=isinstance(error, DeviceLostError))
        return reason

    def _take_note(self, renderer: str, error: BaseException) -> None:
        self._metrics.count(Metric.RENDER_FAILURES, renderer=renderer, reason=kind_of(error))
        self._host.note(error)

    def _settle(self, source: str) -> None:
        """Say which rung serves, where that has changed."""
        working = (rung.name for rung in self._rungs if rung.health.reason is None)
        rung = next(working, source)
        if rung == self._rung:
            return
        before, self._rung = self._rung, rung
        reason = self._rungs[0].health.reason
        if reason is None:
            log.info("renderer_recovered", stage=self._stage, rung=rung, before=before)
        else:
            log.warning(
                "renderer_degraded", stage=self._stage, rung=rung, before=before, reason=reason
            )
        self._metrics.set(Metric.DEGRADED, 0.0, stage=self._stage, rung=before)
        self._metrics.set(Metric.DEGRADED, 1.0, stage=self._stage, rung=rung)
