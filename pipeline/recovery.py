"""How the renderers of one ladder are doing: which serves, who failed, who is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from pipeline.drawing_ahead import DrawingAhead
from pipeline.errors import DeviceLostError
from pipeline.frame_cache import FrameCache
from pipeline.frame_maker import FrameMaker, MadeFrame, WantedFace
from pipeline.health import kind_of, reason_for, was_crowded_out
from pipeline.ports import Metric, Metrics
from pipeline.render_host import RenderHost
from pipeline.rung import Rung

log = structlog.get_logger()

CACHED: Final = "cached"
NEUTRAL: Final = "neutral"
PORTRAIT: Final = "portrait"
# So many slow probes in a row, the first of which may be a cold one, tell that it is always slow.
_SLOW_PROBES: Final = 2


class Recovery:
    """Keeps the health of a ladder's renderers. Belongs to the event loop's thread.

    Args:
        rungs: the ladder's, wanted first.
        deadline_s: of the stream's frames.
        on_recovery: called when a renderer has become usable.
        clock: monotonic seconds.

    Attributes:
        ahead: draws faces ahead of need, with renderers that are too slow for the stream.
        problem: None, or why the newest picture is not the wanted renderer's.
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
        metrics: Metrics,
        on_recovery: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._rungs = rungs
        self._host = host
        self._maker = maker
        self._stage = stage
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._on_recovery = on_recovery
        self._clock = clock
        self._rung = rungs[0].name
        self.problem: str | None = None
        self.ahead = DrawingAhead(
            rungs,
            host,
            cache,
            maker,
            stage=stage,
            deadline_s=deadline_s,
            on_failure=self._failed_ahead,
            clock=clock,
        )
        for rung in (*host.names, CACHED, NEUTRAL, PORTRAIT):
            metrics.set(Metric.DEGRADED, float(rung == self._rung), stage=stage, rung=rung)

    @property
    def degraded(self) -> str | None:
        """None, or why the wanted renderer's frames are not shown, in a few words."""
        return self._rungs[0].health.reason or self.problem

    @property
    def rung(self) -> str:
        """What serves: a renderer's name, `cached`, `neutral` or `portrait`."""
        return self._rung

    def probe(self, wanted: WantedFace | None) -> None:
        """Try a failed renderer again if it is time to, without waiting for it.

        Args:
            wanted: the face to try; nothing is tried without one.
        """
        self._host.rescue()
        if wanted is None:
            return
        now_s = self._clock()
        for rung in self._rungs:
            if rung.background and not self._host.is_needed(rung.name):
                self._let_rest(rung)
                continue
            if rung.health.reason is None:
                # Those below are not needed.
                return
            if not rung.probing and rung.health.retry_due(now_s):
                if rung.background and self.ahead.plan is not None:
                    # A frame that is of use later, for it may take long.
                    wanted = self.ahead.plan.neutral
                future = self._maker.submit(rung.name, wanted, f"probe of {rung.name}")
                rung.probing = True
                future.add_done_callback(partial(self._probed, rung))

    def settle(self, source: str) -> None:
        """Say which rung serves, where that has changed."""
        rung = next((r.name for r in self._rungs if self._serves(r, source)), source)
        if rung == self._rung:
            return
        before, self._rung = self._rung, rung
        reason = self._rungs[0].health.reason
        if reason is None and self._rungs[0].ahead:
            log.debug("rung_changed", stage=self._stage, rung=rung, before=before)
        elif reason is None:
            log.info("renderer_recovered", stage=self._stage, rung=rung, before=before)
        else:
            log.warning(
                "renderer_degraded", stage=self._stage, rung=rung, before=before, reason=reason
            )
        self._metrics.set(Metric.DEGRADED, 0.0, stage=self._stage, rung=before)
        self._metrics.set(Metric.DEGRADED, 1.0, stage=self._stage, rung=rung)

    def failed(self, rung: Rung, error: BaseException) -> str:
        """A renderer has failed; why, in a few words."""
        self.take_note(rung.name, error)
        return self.mark_failed(rung, error)

    def mark_failed(self, rung: Rung, error: BaseException) -> str:
        """The same for a failure that has been counted."""
        reason = reason_for(rung.name, error)
        if rung.name != self._rung and reason != rung.health.reason:
            # Of the one that serves, the step down is logged.
            log.warning("renderer_failed", stage=self._stage, renderer=rung.name, reason=reason)
        rung.health.failed(self._clock(), reason, lost=isinstance(error, DeviceLostError))
        return reason

    def take_note(self, renderer: str, error: BaseException) -> None:
        """Count a failure; a lost device counts for all."""
        self._metrics.count(Metric.RENDER_FAILURES, renderer=renderer, reason=kind_of(error))
        self._host.note(error)

    def too_late(self, rung: Rung) -> str:
        """A renderer cannot keep up; why, in a few words."""
        rung.health.too_late(self._clock(), self.late_text(rung))
        return self.late_text(rung)

    def late_text(self, rung: Rung) -> str:
        """What is said of a frame that is late."""
        return f"{rung.name}: no frame within {self._deadline_s * 1000.0:.0f} ms"

    def _let_rest(self, rung: Rung) -> None:
        """Nobody watches, so that it is let go: no reason to call that degraded."""
        if not self._host.is_ready(rung.name):
            rung.health.rests()
            self.problem = None

    def _probed(self, rung: Rung, future: asyncio.Future[MadeFrame]) -> None:
        rung.probing = False
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (error is not None and was_crowded_out(error)):
            return
        if error is not None:
            self.failed(rung, error)
        elif rung.background:
            self._loaded(rung, future.result().render_s)
        elif future.result().render_s > self._deadline_s:
            self._metrics.count(Metric.RENDER_FAILURES, renderer=rung.name, reason="timeout")
            self.too_late(rung)
        else:
            self._works_again(rung)
        self.settle(self._rung)

    def _loaded(self, rung: Rung, render_s: float) -> None:
        """One in the background has drawn a frame: let it serve, as fast as it can."""
        rung.slow = rung.slow + 1 if render_s > self._deadline_s else 0
        if 0 < rung.slow < _SLOW_PROBES and self._host.device(rung.name) != "cpu":
            self.too_late(rung)
            return
        if rung.slow and not rung.ahead:
            log.info(
                "renderer_draws_ahead",
                stage=self._stage,
                renderer=rung.name,
                frame_s=round(render_s, 3),
                faces=self.ahead.plan.size if self.ahead.plan is not None else 0,
            )
        rung.ahead = rung.slow > 0
        self._works_again(rung)
        self.ahead.go_on()

    def _works_again(self, rung: Rung) -> None:
        rung.health.succeeded(self._clock())
        self.problem = None
        self._on_recovery()

    def _failed_ahead(self, rung: Rung, error: BaseException) -> None:
        self.failed(rung, error)
        self.settle(self._rung)

    def _serves(self, rung: Rung, source: str) -> bool:
        if rung.health.reason is not None:
            return False
        if rung.background and not self._host.is_ready(rung.name):
            return False
        return not rung.ahead or source == rung.name
