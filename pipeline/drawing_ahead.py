"""Gives renderers in the background something to draw while they have time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Final

import structlog

from pipeline.ahead import AheadPlan
from pipeline.errors import DeviceLostError, JobDroppedError, OutOfMemoryError
from pipeline.frame_cache import FrameCache
from pipeline.frame_maker import FrameMaker, MadeFrame, WantedFace
from pipeline.health import was_crowded_out
from pipeline.render_host import RenderHost
from pipeline.rung import Rung

log = structlog.get_logger()

# A renderer that draws within this share of the deadline has time between the stream's frames.
_EASY: Final = 0.15
_RESTING_S: Final = 1.0
# So many frames in a row within this share of the deadline tell that it keeps up after all.
_QUICK_FRAMES: Final = 3
_QUICK: Final = 0.6


class DrawingAhead:
    """Draws the faces of one stage's plan, one at a time. Belongs to the event loop's thread.

    Args:
        rungs: the stage's, wanted first.
        deadline_s: of the stream's frames.
        on_failure: called with the rung and what went wrong.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        host: RenderHost,
        cache: FrameCache,
        maker: FrameMaker,
        *,
        stage: str,
        deadline_s: float,
        on_failure: Callable[[Rung, BaseException], object],
        clock: Callable[[], float],
    ) -> None:
        self._rungs = tuple(rung for rung in rungs if rung.background)
        self._host = host
        self._cache = cache
        self._maker = maker
        self._stage = stage
        self._deadline_s = deadline_s
        self._on_failure = on_failure
        self._clock = clock
        self._pins: Hashable = None
        self._asked_s = clock()
        self._drew = False
        self.plan: AheadPlan | None = None

    def replace(self, plan: AheadPlan | None, pins: Hashable) -> None:
        """Draw something else from now on.

        Args:
            pins: in whose name the frames are kept from eviction.
        """
        self.plan, self._pins = plan, pins
        for rung in self._rungs:
            if rung.drawing_ahead is not None:
                # One that has not begun is no longer wanted.
                rung.drawing_ahead.cancel()
        self.go_on()

    def after(self, *, drew: bool) -> None:
        """Go on after a picture of the stream.

        Args:
            drew: a renderer had to draw it.
        """
        self._asked_s, self._drew = self._clock(), drew
        self.go_on()

    def go_on(self) -> None:
        """Give each renderer that has time the next face."""
        for rung in self._rungs:
            if self.plan is None or rung.drawing_ahead is not None or not self._has_time(rung):
                continue
            face = self.plan.next(rung.name, self._cache, self._maker)
            if face is None:
                continue
            rung.drawing_ahead = self._maker.submit(rung.name, face, "ahead")
            rung.drawing_ahead.add_done_callback(partial(self._drawn, rung, self.plan, face))

    def _has_time(self, rung: Rung) -> bool:
        if rung.health.reason is not None or not self._host.is_ready(rung.name):
            return False
        resting = self._clock() - self._asked_s > _RESTING_S
        easy = rung.render_s < _EASY * self._deadline_s
        return rung.ahead or resting or easy or not self._drew

    def _drawn(
        self, rung: Rung, plan: AheadPlan, face: WantedFace, future: asyncio.Future[MadeFrame]
    ) -> None:
        rung.drawing_ahead = None
        error = None if future.cancelled() else future.exception()
        if error is not None:
            if not was_crowded_out(error):
                if not isinstance(error, OutOfMemoryError | DeviceLostError | JobDroppedError):
                    plan.give_up(face)
                self._on_failure(rung, error)
            return
        if not future.cancelled():
            self._count_speed(rung, future.result().render_s)
            if plan is self.plan:
                self._cache.pin(self._pins, plan.keys(rung.name, self._maker))
        self.go_on()

    def _count_speed(self, rung: Rung, render_s: float) -> None:
        """Whether one that was too slow for the stream no longer is."""
        rung.render_s = render_s
        rung.quick = rung.quick + 1 if render_s < _QUICK * self._deadline_s else 0
        if rung.ahead and rung.quick >= _QUICK_FRAMES:
            rung.ahead, rung.slow = False, 0
            log.info("renderer_keeps_up", stage=self._stage, renderer=rung.name)
