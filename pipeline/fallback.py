"""Always something to show: the wanted renderer, the next, the nearest cached frame, neutral,
the portrait itself.

A rung that fails or is late costs its own picture, never the stream. What is shown says what
it is, and the wanted renderer is tried again in the background until it works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Final

import structlog

from pipeline.errors import (
    BadFrameError,
    DeviceLostError,
    DropReason,
    JobDroppedError,
    OutOfMemoryError,
    RenderError,
)
from pipeline.frame_cache import (
    CachedFrame,
    CacheStats,
    FrameCache,
    FrameFamily,
    FrameKey,
    face_code,
    face_of,
)
from pipeline.health import RendererHealth
from pipeline.picture import FormatEncoder, Picture, timed_encode
from pipeline.ports import Metric, Metrics
from pipeline.render_host import RenderHost
from pipeline.types import FaceControls, Image, ImageFormat, Portrait

__all__ = ["FallbackLadder", "Picture"]

log = structlog.get_logger()

CACHED: Final = "cached"
NEUTRAL: Final = "neutral"
PORTRAIT: Final = "portrait"
# A frame this many deadlines old is not worth waiting for: its renderer has failed.
_PATIENCE: Final = 2.0
_REASON_CHARACTERS: Final = 160
_NEUTRAL_WEIGHTS: Final = MappingProxyType({"neutral": 1.0})


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """The portrait on stage and what is kept for it outside the cache."""

    portrait: Portrait
    still: bytes
    pins: Hashable
    neutral: _Drawn | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """A face that is asked for."""

    shown: _Shown
    code: bytes
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A frame fresh from a renderer; its JPEG is in the cache.

    Attributes:
        image: (height, width, 3) uint8 RGB; None where it is no longer kept.
    """

    key: FrameKey
    frame: CachedFrame
    image: Image | None
    render_s: float


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
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._clock = clock
        self._rungs = tuple(_Rung(name) for name in host.names)
        self._rung = self._rungs[0].name
        self._problem: str | None = None
        self._shown: _Shown | None = None
        self._wanted: _Wanted | None = None
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
        shown = _Shown(portrait, still, pins)
        faces = [_Wanted(shown, face_code(controls), weights) for controls, weights in ahead]
        failures: dict[str, RenderError] = {}
        neutral = await self._first_frame(faces[0], failures)
        keys: list[FrameKey] = []
        if neutral is not None:
            keys = await self._draw_ahead(neutral, faces)
            self._cache.pin(pins, keys)
            await self._prepare_spares(neutral, portrait, failures)
            neutral = replace(neutral, image=None)
        elif not accept_still:
            raise next(iter(failures.values()), RenderError("no renderer is left"))
        self._adopt(replace(shown, neutral=neutral), faces[0], failures)
        pinned = self._cache.pin(pins, keys)
        if pinned < len(keys):
            log.warning("frames_not_pinned", stage=self._stage, pinned=pinned, of=len(keys))

    async def _first_frame(self, face: _Wanted, failures: dict[str, RenderError]) -> _Drawn | None:
        """The neutral frame by the first renderer that can draw it."""
        for rung in self._rungs:
            if rung.health.lost:
                continue
            try:
                await self._host.prepare(rung.name, face.shown.portrait, self._show_turn)
                return await self._host.finish(
                    partial(self._draw, rung.name, face), self._show_turn
                )
            except RenderError as error:
                self._take_note(rung.name, error)
                failures[rung.name] = error
        return None

    async def _draw_ahead(self, neutral: _Drawn, faces: Sequence[_Wanted]) -> list[FrameKey]:
        """One job for each, so that the frames on stage are drawn in between."""
        renderer = neutral.key.family.renderer
        keys = [neutral.key]
        for face in faces[1:]:
            key = self._key(renderer, face)
            try:
                if self._cache.peek(key) is None:
                    await self._host.finish(partial(self._draw, renderer, face), self._show_turn)
            except RenderError as error:
                self._take_note(renderer, error)
                log.warning("frame_not_drawn_ahead", stage=self._stage, error=str(error))
                if isinstance(error, JobDroppedError | DeviceLostError):
                    break
                continue
            keys.append(key)
        return keys

    async def _prepare_spares(
        self, neutral: _Drawn, portrait: Portrait, failures: dict[str, RenderError]
    ) -> None:
        """Have the renderers below ready for the moment when they are needed."""
        renderer = neutral.key.family.renderer
        below = self._host.names[self._host.names.index(renderer) + 1 :]
        for name in below:
            try:
                await self._host.prepare(name, portrait, self._show_turn)
            except RenderError as error:
                self._take_note(name, error)
                failures[name] = error

    def _adopt(self, shown: _Shown, first: _Wanted, failures: Mapping[str, RenderError]) -> None:
        before, self._shown = self._shown, shown
        self._wanted = replace(first, shown=shown)
        if before is not None:
            self._leave(before.pins)
        now_s = self._clock()
        for rung in self._rungs:
            if rung.name in failures:
                self._mark_failed(rung, failures[rung.name])
            elif shown.neutral is not None and shown.neutral.key.family.renderer == rung.name:
                rung.health.succeeded(now_s)
        self._settle(PORTRAIT if shown.neutral is None else CACHED)

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
        wanted = self._wanted = _Wanted(self._shown, face_code(controls), weights)
        picture, source = await self._best(wanted)
        self._problem = picture.degraded
        self._settle(source)
        self.probe()
        return picture

    async def _best(self, wanted: _Wanted) -> tuple[Picture, str]:
        end_s = self._clock() + self._deadline_s
        problem: str | None = None
        for rung in self._rungs:
            key = self._key(rung.name, wanted)
            frame = self._cache.get(key)
            if frame is not None:
                return self._exact(key, frame, wanted, problem), CACHED
            drawn = await self._drawn_in_time(rung, wanted, end_s)
            if not isinstance(drawn, str):
                picture = self._exact(drawn.key, drawn.frame, wanted, problem, drawn.image)
                return picture, rung.name
            problem = problem or drawn
        return self._stand_in(wanted, problem)

    async def _drawn_in_time(self, rung: _Rung, wanted: _Wanted, end_s: float) -> _Drawn | str:
        """The frame, or why there is none."""
        reason = rung.health.reason or self._blocked(rung)
        if reason is not None:
            return reason
        future = self._submit(rung, wanted, "picture")
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
        if _was_crowded_out(error):
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

    def _missed(self, rung: _Rung, future: asyncio.Future[_Drawn]) -> str:
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
        rung.health.failed(self._clock(), self._late_text(rung))
        return self._late_text(rung)

    def _late_end(self, rung: _Rung, future: asyncio.Future[_Drawn]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and not _was_crowded_out(error):
            self._failed(rung, error)

    def _late_text(self, rung: _Rung) -> str:
        return f"{rung.name}: no frame within {self._deadline_s * 1000.0:.0f} ms"

    def _stand_in(self, wanted: _Wanted, problem: str | None) -> tuple[Picture, str]:
        """What can be shown without drawing."""
        for rung in self._rungs:
            found = self._cache.nearest(self._key(rung.name, wanted))
            if found is not None:
                return self._inexact(*found, wanted, problem), CACHED
        neutral = wanted.shown.neutral
        if neutral is not None:
            return self._inexact(neutral.key, neutral.frame, wanted, problem), NEUTRAL
        still = CachedFrame(wanted.shown.still, FaceControls(), _NEUTRAL_WEIGHTS)
        key = self._key(PORTRAIT, replace(wanted, code=face_code(still.controls)))
        return self._inexact(key, still, wanted, problem), PORTRAIT

    def _exact(
        self,
        key: FrameKey,
        frame: CachedFrame,
        wanted: _Wanted,
        problem: str | None,
        image: Image | None = None,
    ) -> Picture:
        # Faces that differ by less than a step share a frame; the weights are of the one asked for.
        return self._picture(key, frame, wanted.weights, exact=True, problem=problem, image=image)

    def _inexact(
        self, key: FrameKey, frame: CachedFrame, wanted: _Wanted, problem: str | None
    ) -> Picture:
        return self._picture(key, frame, frame.weights, exact=False, problem=problem)

    def _picture(
        self,
        key: FrameKey,
        frame: CachedFrame,
        weights: Mapping[str, float],
        *,
        exact: bool,
        problem: str | None,
        image: Image | None = None,
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
            cached=image is None,
            degraded=problem,
            _pixels=image,
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
                rung.probing = True
                future = self._submit(rung, wanted, f"probe of {rung.name}")
                future.add_done_callback(partial(self._probed, rung))

    def _probed(self, rung: _Rung, future: asyncio.Future[_Drawn]) -> None:
        rung.probing = False
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (error is not None and _was_crowded_out(error)):
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
        reason = f"{rung.name}: {_in_words(error).removeprefix(f'{rung.name}: ')}"
        rung.health.failed(self._clock(), reason, lost=isinstance(error, DeviceLostError))
        return reason

    def _take_note(self, renderer: str, error: BaseException) -> None:
        self._metrics.count(Metric.RENDER_FAILURES, renderer=renderer, reason=_kind(error))
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

    # --- drawing --------------------------------------------------------------------------

    @property
    def _show_turn(self) -> Hashable:
        return self._stage, "show"

    def _submit(self, rung: _Rung, wanted: _Wanted, turn: str) -> asyncio.Future[_Drawn]:
        return self._host.worker.submit(
            partial(self._draw, rung.name, wanted), owner=(self._stage, turn)
        )

    def _draw(self, renderer: str, wanted: _Wanted) -> _Drawn:
        """In the render thread: draw, encode and keep, so that a frame costs one hop."""
        controls = face_of(wanted.code)
        drawing = self._host.draw(renderer, wanted.shown.portrait, controls, self._size_px)
        data = timed_encode(drawing.image, ImageFormat.JPEG, self._quality, self._metrics)
        frame = CachedFrame(data, controls, MappingProxyType(dict(wanted.weights)))
        key = self._key(renderer, wanted)
        self._cache.put(key, frame)
        return _Drawn(key, frame, drawing.image, drawing.render_s)

    def _key(self, renderer: str, wanted: _Wanted) -> FrameKey:
        portrait = wanted.shown.portrait.key
        family = FrameFamily(portrait, renderer, self._size_px, ImageFormat.JPEG, self._quality)
        return FrameKey(family, wanted.code)


def _was_crowded_out(error: BaseException) -> bool:
    """The renderer never got to it, or was not to blame."""
    return isinstance(error, JobDroppedError) and error.reason is not DropReason.ABANDONED


def _kind(error: BaseException) -> str:
    """The label of the failure metric."""
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (OutOfMemoryError, "out_of_memory"),
        (DeviceLostError, "device_lost"),
        (BadFrameError, "bad_frame"),
        (JobDroppedError, "hang"),
    )
    return next((kind for known, kind in kinds if isinstance(error, known)), "error")


def _in_words(error: BaseException) -> str:
    if isinstance(error, OutOfMemoryError):
        return "out of memory"
    if isinstance(error, DeviceLostError):
        return "device lost"
    if isinstance(error, JobDroppedError):
        return "hangs"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:_REASON_CHARACTERS]}..."
