"""Always something to show: the wanted renderer, the next, the nearest cached frame, neutral,
the portrait itself.

A rung that fails or is late costs its own picture, never the stream. What is shown says what
it is, and the wanted renderer is tried again in the background until it works.

A renderer that takes long to load is such a rung too: those below serve until it is there. One
that is too slow for the stream is given faces ahead of need (see `ahead`) and serves from the
cache. Where the renderer that is shown changes, the pictures cross-fade.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

import structlog

from pipeline.ahead import AheadPlan, Face, shows, stand_in
from pipeline.crossfade import FADE_S, CrossFade
from pipeline.errors import RenderError
from pipeline.frame_cache import CachedFrame, CacheStats, FrameCache, FrameKey, face_code
from pipeline.frame_maker import FrameMaker, MadeFrame, WantedFace
from pipeline.health import RendererHealth, was_crowded_out
from pipeline.introduction import Introducer
from pipeline.picture import FormatEncoder, Picture
from pipeline.ports import Metric, Metrics
from pipeline.recovery import CACHED, NEUTRAL, PORTRAIT, Recovery
from pipeline.render_host import RenderHost
from pipeline.rung import Rung
from pipeline.types import FaceControls, Portrait

__all__ = ["FallbackLadder", "Picture"]

log = structlog.get_logger()

# A frame this many deadlines old is not worth waiting for: its renderer has failed.
_PATIENCE: Final = 2.0
# What the renderers below need of the deadline, should the one above not make it.
_RESERVE_S: Final = 0.03
_RESERVE_SHARE: Final = 0.4
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


class FallbackLadder:
    """The pictures of one stage. All methods belong to the event loop's thread.

    Host, cache and encoder are shared by all stages.

    Args:
        stage: for logs, metrics, and its turn in the render thread.
        size_px: (width, height) of every picture.
        quality: 1..100, of JPEG and WebP.
        deadline_s: `picture` has an answer by then.
        fade_s: what a change from one renderer to another takes.
        clock: monotonic seconds.

    Attributes:
        upcoming: tells the faces that are about to be shown, for renderers that draw ahead.
        recovered: called when a renderer has become usable: the next picture may be its.
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
        fade_s: float = FADE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.upcoming: Callable[[], Iterable[Face]] = lambda: ()
        self.recovered: Callable[[], None] = lambda: None
        self._host = host
        self._cache = cache
        self._encoder = encoder
        self._stage = stage
        self._size_px = size_px
        self._quality = quality
        self._maker = FrameMaker(
            host, cache, stage=stage, size_px=size_px, quality=quality, metrics=metrics
        )
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._clock = clock
        self._rungs = tuple(
            Rung(source, RendererHealth(patient=source.background)) for source in host.sources
        )
        self._recovery = Recovery(
            self._rungs,
            host,
            cache,
            self._maker,
            stage=stage,
            deadline_s=deadline_s,
            metrics=metrics,
            on_recovery=self._tell_recovered,
            clock=clock,
        )
        self._introducer = Introducer(host, cache, self._maker, self._recovery.take_note)
        self._drawing: str | None = None
        self._shown: _Shown | None = None
        self._wanted: WantedFace | None = None
        self._showing = asyncio.Lock()
        self._fade = CrossFade(encoder, quality, deadline_s / 2.0, fade_s)

    def _tell_recovered(self) -> None:
        self.recovered()

    # --- what it is doing -----------------------------------------------------------------

    @property
    def degraded(self) -> str | None:
        """None, or why the wanted renderer's frames are not shown, in a few words."""
        return self._recovery.degraded

    @property
    def rung(self) -> str:
        """What serves: a renderer's name, `cached`, `neutral` or `portrait`."""
        return self._recovery.rung

    @property
    def renderer(self) -> str:
        """The renderer of what is shown; before that, the wanted one."""
        return self._drawing or self._rungs[0].name

    @property
    def wants_steps(self) -> bool:
        """A renderer can make use of simplified faces: those of `show` that may come later."""
        return any(rung.background for rung in self._rungs)

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
        ahead: Sequence[Face],
        later: Sequence[Face] = (),
        *,
        accept_still: bool = False,
    ) -> None:
        """Put a portrait on stage; the one before is shown until this one is ready.

        Args:
            ahead: faces to draw now and keep from eviction, the neutral one first.
            later: faces that a renderer in the background draws when it has time.
            accept_still: where no renderer works, show the portrait itself until one does.

        Raises:
            RenderError: no renderer can show it; nothing has changed.
        """
        async with self._showing:
            pins = object()
            self._host.keep(pins, portrait, self._size_px)
            try:
                await self._introduce(portrait, ahead, later, pins, accept_still)
            except BaseException:
                self._leave(pins)
                raise

    async def _introduce(
        self,
        portrait: Portrait,
        ahead: Sequence[Face],
        later: Sequence[Face],
        pins: Hashable,
        accept_still: bool,
    ) -> None:
        still = await self._encoder.still(portrait, self._size_px, self._quality)
        faces = [WantedFace(portrait, face_code(controls), weights) for controls, weights in ahead]
        renderers = [rung.name for rung in self._rungs if self._introduces(rung)]
        done = await self._introducer.introduce(faces, renderers, pins)
        if done.renderer is None and not accept_still:
            raise next(iter(done.failures.values()), RenderError("no renderer is left"))
        before, self._shown = self._shown, _Shown(portrait, still, done.neutral, pins)
        self._wanted = faces[0]
        for rung in self._rungs:
            if rung.name in done.failures:
                self._recovery.mark_failed(rung, done.failures[rung.name])
            elif rung.name == done.renderer:
                rung.health.succeeded(self._clock())
            self._await_loading(rung)
        self._drawing = done.renderer
        plan = AheadPlan(portrait, ahead[:1], self.upcoming, [*ahead[1:], *later])
        self._recovery.ahead.replace(plan, _ahead_of(pins))
        self._recovery.settle(PORTRAIT if done.renderer is None else CACHED)
        if before is not None:
            self._leave(before.pins)
        # Again, with the room that the portrait before has left.
        pinned = self._cache.pin(pins, done.keys)
        if pinned < len(done.keys):
            log.warning("frames_not_pinned", stage=self._stage, pinned=pinned, of=len(done.keys))

    def _introduces(self, rung: Rung) -> bool:
        """Whether a portrait is to wait for this renderer; else it is joined in the background."""
        if not rung.background:
            return not rung.health.lost
        works = self._host.is_ready(rung.name) and rung.health.reason is None
        return works and not rung.ahead

    def _leave(self, pins: Hashable) -> None:
        self._cache.unpin(pins)
        self._cache.unpin(_ahead_of(pins))
        self._host.keep(pins, None)

    def close(self) -> None:
        """Let go of the portrait on stage; `picture` cannot be used after this."""
        if self._shown is not None:
            self._leave(self._shown.pins)
        self._recovery.ahead.replace(None, None)
        self._shown = self._wanted = None

    def probe(self) -> None:
        """Try a failed renderer again if it is time to, without waiting for it.

        `picture` does so; call it now and then while no pictures are asked for.
        """
        self._recovery.probe(self._wanted)

    # --- pictures -------------------------------------------------------------------------

    async def picture(
        self,
        controls: FaceControls,
        weights: Mapping[str, float],
        steps: Callable[[], Sequence[Face]] = tuple,
        *,
        by_s: float = math.inf,
    ) -> Picture:
        """The best picture of this face that can be had within the deadline.

        Args:
            weights: label to weight of the emotions on this face, to be reported with it.
            steps: gives the face simplified, such as without idle life, what is least missed left
                out first. Asked where a renderer's own frame of nearly that face has to do.
            by_s: the stream pauses if there is no picture by then (on `clock`). A renderer that
                usually makes it is not waited for any longer.

        Raises:
            RuntimeError: no portrait is on stage.
        """
        if self._shown is None:
            raise RuntimeError("no portrait is on stage: call show() first")
        self._host.touch()
        self._host.rescue()
        shown = self._shown
        wanted = self._wanted = WantedFace(shown.portrait, face_code(controls), weights)
        picture, source = await self._best(wanted, steps, shown, by_s)
        self._recovery.problem = picture.degraded
        if picture.key.family.renderer in self._host.names:
            self._drawing = picture.key.family.renderer
        self._recovery.settle(source)
        self.probe()
        self._recovery.ahead.after(drew=not picture.cached)
        return await self._fade.next(picture, self._clock())

    async def _best(
        self,
        wanted: WantedFace,
        steps: Callable[[], Sequence[Face]],
        shown: _Shown,
        by_s: float,
    ) -> tuple[Picture, str]:
        end_s = self._clock() + self._deadline_s
        problem: str | None = None
        for rung in self._rungs:
            key = self._maker.key(rung.name, wanted)
            frame = self._cache.get(key)
            if frame is not None:
                source = CACHED if rung.health.reason else rung.name
                return self._exact(key, frame, wanted, problem), source
            drawn = await self._drawn_in_time(rung, wanted, end_s, by_s)
            if not isinstance(drawn, str):
                picture = self._exact(drawn.key, drawn.frame, wanted, problem, fresh=True)
                return picture, rung.name
            if rung.ahead or (rung.background and (rung.health.late or not rung.health.reason)):
                # Its own frame of much the same face looks better than another renderer's.
                step = stand_in(self._cache, self._maker, rung.name, wanted.portrait, steps())
                if step is not None:
                    return self._step(*step, wanted, None if rung.ahead else drawn), rung.name
            problem = problem or drawn
        return self._stand_in(wanted, shown, problem)

    async def _drawn_in_time(
        self, rung: Rung, wanted: WantedFace, end_s: float, by_s: float
    ) -> MadeFrame | str:
        """The frame, or why there is none."""
        reason = self._obstacle(rung)
        if reason is not None:
            return reason
        begun_s = self._clock()
        if rung is not self._rungs[-1]:
            end_s -= min(_RESERVE_S, _RESERVE_SHARE * self._deadline_s)
            by_s -= min(_RESERVE_S, 0.5 * (by_s - begun_s))
        if by_s - begun_s < rung.took_s <= self._deadline_s:
            by_s = end_s
        future = self._maker.submit(rung.name, wanted, "picture")
        try:
            await asyncio.wait((future,), timeout=max(0.0, min(by_s, end_s) - begun_s))
        except asyncio.CancelledError:
            future.cancel()
            raise
        if not future.done():
            return self._missed(rung, future, begun_s, overdue=by_s >= end_s)
        error = future.exception()
        if error is None:
            rung.took(self._clock() - begun_s)
            rung.health.succeeded(self._clock())
            rung.render_s = future.result().render_s
            return future.result()
        if was_crowded_out(error):
            return f"{rung.name}: busy"
        return self._recovery.failed(rung, error)

    def _obstacle(self, rung: Rung) -> str | None:
        """Why not to ask this renderer for a frame now."""
        self._await_loading(rung)
        if rung.health.reason is not None:
            return rung.health.reason
        if rung.ahead:
            return f"{rung.name}: this face is not drawn ahead yet"
        return self._blocked(rung)

    def _await_loading(self, rung: Rung) -> None:
        if rung.background and rung.health.reason is None and not self._host.is_ready(rung.name):
            rung.health.waits(self._clock(), f"{rung.name}: loading")

    def _blocked(self, rung: Rung) -> str | None:
        """Whether what the last picture waited for in vain is still going on."""
        if rung.blocker is None:
            return None
        worker = self._host.worker(rung.name)
        since_s = worker.busy_since
        if worker.running is not rung.blocker or since_s is None:
            rung.blocker = None
            return None
        if not rung.late:
            return f"{rung.name}: busy"
        busy_s = self._clock() - since_s
        if busy_s > _PATIENCE * self._deadline_s:
            return self._recovery.too_late(rung)
        return self._late(rung, overdue=busy_s >= self._deadline_s)

    def _missed(
        self, rung: Rung, future: asyncio.Future[MadeFrame], begun_s: float, *, overdue: bool
    ) -> str:
        rung.blocker = self._host.worker(rung.name).running
        # Where nothing runs, the frame is drawn and being encoded.
        rung.late = rung.blocker is future or rung.blocker is None
        rung.overdue = False
        if not rung.late:
            # Somebody else's job is in the way, such as a portrait being prepared.
            future.cancel()
            return f"{rung.name}: busy"
        # What becomes of it still matters: its frame goes to the cache, a lost device counts.
        future.add_done_callback(partial(self._late_end, rung, begun_s))
        return self._late(rung, overdue=overdue)

    def _late(self, rung: Rung, *, overdue: bool) -> str:
        """What is said of a frame that is not there; missing the deadline counts once."""
        if not overdue:
            return f"{rung.name}: no frame in time for its tick"
        if not rung.overdue:
            rung.overdue = True
            self._metrics.count(Metric.RENDER_FAILURES, renderer=rung.name, reason="timeout")
            rung.health.missed(self._clock(), self._recovery.late_text(rung))
        return self._recovery.late_text(rung)

    def _late_end(self, rung: Rung, begun_s: float, future: asyncio.Future[MadeFrame]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and not was_crowded_out(error):
            self._recovery.failed(rung, error)
        elif error is None and not future.cancelled():
            took_s = self._clock() - begun_s
            rung.took(took_s)
            rung.render_s = future.result().render_s
            self._late(rung, overdue=took_s > self._deadline_s)

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

    def _step(
        self, key: FrameKey, frame: CachedFrame, wanted: WantedFace, problem: str | None
    ) -> Picture:
        """A face drawn ahead, for one that is nearly the same."""
        exact = shows(frame.weights, wanted.weights)
        if problem is None and not exact:
            problem = f"{key.family.renderer}: the nearest face that was drawn ahead"
        return self._picture(key, frame, frame.weights, exact=exact, problem=problem)

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


def _ahead_of(pins: Hashable) -> Hashable:
    """In whose name the frames drawn ahead are pinned."""
    return pins, "ahead"
