"""Periodic work, and a wall clock that is set meanwhile."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, tzinfo
from typing import Self

import apscheduler.schedulers.base
import apscheduler.triggers.interval
import pytest
import structlog

from orchestrator.housekeeping import Housekeeping

OFTEN_S = 0.01
HOUR_S = 3600.0


class WallClock:
    """The wall clock as this process sees it, set to so much more than the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset_s = 0.0
        clock = self

        class Shifted(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return super().now(tz) + timedelta(seconds=clock.offset_s)

        for module in (apscheduler.schedulers.base, apscheduler.triggers.interval):
            monkeypatch.setattr(module, "datetime", Shifted)

    def __call__(self) -> float:
        return time.time() + self.offset_s


async def test_work_goes_on_whatever_the_wall_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set on or back by an hour, it delays nothing by more than a look at it."""
    clock, ran = WallClock(monkeypatch), asyncio.Event()

    async def work() -> None:
        ran.set()

    housekeeping = Housekeeping(look_s=OFTEN_S, wall_s=clock)
    housekeeping.every(OFTEN_S, work)
    with structlog.testing.capture_logs() as lines:
        async with housekeeping:
            for clock.offset_s in (0.0, -HOUR_S, HOUR_S, 0.0):
                await asyncio.sleep(5 * OFTEN_S)
                for _ in range(3):
                    ran.clear()
                    async with asyncio.timeout(10):
                        await ran.wait()
        ran.clear()
        await asyncio.sleep(5 * OFTEN_S)
    assert not ran.is_set()
    assert [line["by_s"] for line in lines] == [-HOUR_S, 2 * HOUR_S, -HOUR_S]


async def test_work_that_fails_is_done_again() -> None:
    """An error is the log's business; the next time comes all the same."""
    times = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise ValueError("told to fail")
        done.set()

    housekeeping = Housekeeping()
    housekeeping.every(OFTEN_S, work)
    async with housekeeping, asyncio.timeout(10):
        await done.wait()
