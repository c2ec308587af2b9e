"""The figures of one stage's frame clock: how many frames, how evenly, how many missed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import structlog

from pipeline.ports import Metric, Metrics

log = structlog.get_logger()

FPS_WINDOW_S: Final = 2.0
MOMENTS_KEPT: Final = 512
SKIPS_LOGGED: Final = 3  # so many at once are seen as a jerk
LOGGED_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class TickTimes:
    """Where the time of one tick went, in seconds.

    Attributes:
        woken_late: after it was to begin; the event loop, or its core, was taken.
        drawing: until there was a picture.
        sending: from then, or from its deadline, to the end.
    """

    woken_late: float
    drawing: float
    sending: float


class StageFigures:
    """Counts frames, and measures the intervals between those that follow one another.

    Args:
        stage: its name.
        fps: frames per second that are wanted.
    """

    def __init__(self, stage: str, fps: float, metrics: Metrics) -> None:
        self._stage = stage
        self._fps = fps
        self._metrics = metrics
        self._published_at: deque[float] = deque(maxlen=MOMENTS_KEPT)
        self._consecutive = False
        self._logged_s = -math.inf

    def begin(self, viewers: int) -> None:
        """Let what is counted begin at zero, so that the first of each shows as a change."""
        metrics, stage = self._metrics, self._stage
        metrics.set(Metric.FPS_WANTED, self._fps, stage=stage)
        self.viewers(viewers)
        for metric in (Metric.FRAMES_PUBLISHED, Metric.CUES_ACCEPTED):
            metrics.count(metric, 0.0, stage=stage)
        metrics.count(Metric.TICKS_SKIPPED, 0.0, stage=stage, reason="late")
        for ending in ("finished", "superseded", "expired"):
            metrics.count(Metric.CUES_ENDED, 0.0, stage=stage, ending=ending)

    def viewers(self, number: int) -> None:
        """So many sinks are attached."""
        self._metrics.set(Metric.VIEWERS, number, stage=self._stage)

    def degraded(self, degraded: bool) -> None:
        """Whether frames are not the wanted renderer's."""
        self._metrics.set(Metric.STAGE_DEGRADED, float(degraded), stage=self._stage)

    def skipped(self, ticks: int, now_s: float, before: TickTimes | None) -> None:
        """So many ticks went by while the frame before was in the making; several are logged."""
        self._consecutive = False
        self._metrics.count(Metric.TICKS_SKIPPED, ticks, stage=self._stage, reason="late")
        if ticks >= SKIPS_LOGGED and now_s - self._logged_s >= LOGGED_EVERY_S and before:
            self._logged_s = now_s
            log.warning(
                "ticks_skipped",
                stage=self._stage,
                ticks=ticks,
                woken_late_ms=round(before.woken_late * 1000.0, 1),
                drawing_ms=round(before.drawing * 1000.0, 1),
                sending_ms=round(before.sending * 1000.0, 1),
            )

    def rested(self) -> None:
        """No frame was wanted for a while: the next interval says nothing."""
        self._consecutive = False

    def published(self, at_s: float) -> None:
        """A frame has gone out, at that monotonic moment."""
        self._metrics.count(Metric.FRAMES_PUBLISHED, stage=self._stage)
        if self._consecutive and self._published_at:
            deviation_s = abs(at_s - self._published_at[-1] - 1.0 / self._fps)
            self._metrics.observe(Metric.INTERVAL_DEVIATION_SECONDS, deviation_s, stage=self._stage)
        self._consecutive = True
        self._published_at.append(at_s)

    def fps(self, now_s: float) -> float:
        """Frames per second of the last moments; 0 while the stage rests."""
        recent = [at_s for at_s in self._published_at if at_s > now_s - FPS_WINDOW_S]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / (recent[-1] - recent[0])
