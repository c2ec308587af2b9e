"""The two clocks of the daemon, injected so that tests can run on virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds to pace and measure by, wall milliseconds to stamp with."""

    def now(self) -> float: ...

    def wall_ms(self) -> float: ...

    async def sleep_until(self, deadline_s: float) -> None: ...


class SystemClock:
    """The machine's clocks.

    Not `loop.time()`: under uvloop that is a cached clock of millisecond steps.
    """

    def now(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> float:
        return time.time() * 1000.0

    async def sleep_until(self, deadline_s: float) -> None:
        """Sleep to a moment of `now()`; a past one only lets others run."""
        await asyncio.sleep(max(0.0, deadline_s - time.monotonic()))
