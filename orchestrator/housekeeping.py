"""Periodic work in the event loop, which goes on when the wall clock is set."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC
from types import TracebackType
from typing import Final, Self

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

log = structlog.get_logger()

LOOK_S: Final = 1.0
JUMP_S: Final = 0.5
"""A wall clock that goes on by so much more or less than a monotonic one has been set."""


class Housekeeping:
    """Does things at intervals, from `async with` to its end.

    APScheduler plans by the wall clock: set back by an hour, it would do nothing for an hour. So
    that clock is watched, and everything planned anew when it has been set.

    Args:
        look_s: interval of looking at the clock.
        wall_s: seconds of the wall clock.
        now_s: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        *,
        look_s: float = LOOK_S,
        wall_s: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_s = look_s
        self._wall_s = wall_s
        self._now_s = now_s
        # Late is better than not at all, and once is enough.
        defaults = {"coalesce": True, "misfire_grace_time": None}
        self._scheduler = AsyncIOScheduler(timezone=UTC, job_defaults=defaults)
        self._every_s: dict[str, float] = {}
        self._watching: asyncio.Task[None] | None = None

    def every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do this every so many seconds.

        Args:
            work: a coroutine function: a plain one would be run in a thread, and all of this
                belongs to the event loop.
        """
        job = self._scheduler.add_job(work, "interval", seconds=seconds)
        self._every_s[job.id] = seconds

    async def __aenter__(self) -> Self:
        self._scheduler.start()
        self._watching = asyncio.create_task(self._watch_clock(), name="wall-clock")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.wait([self._watching])
        self._scheduler.shutdown(wait=False)

    async def _watch_clock(self) -> None:
        ahead_s = self._wall_s() - self._now_s()
        while True:
            await asyncio.sleep(self._look_s)
            before_s, ahead_s = ahead_s, self._wall_s() - self._now_s()
            if abs(ahead_s - before_s) > JUMP_S:
                log.warning("wall_clock_set", by_s=round(ahead_s - before_s, 1))
                for job, seconds in self._every_s.items():
                    self._scheduler.reschedule_job(job, trigger="interval", seconds=seconds)
