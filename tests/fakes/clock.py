"""Virtual time: a clock that jumps to whatever is slept for."""

import asyncio


class VirtualClock:
    """A `Clock` that advances only when somebody sleeps until a later moment."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def now(self) -> float:
        return self.now_s

    def wall_ms(self) -> float:
        return 1_700_000_000_000.0 + self.now_s * 1000.0

    async def sleep_until(self, deadline_s: float) -> None:
        self.now_s = max(self.now_s, deadline_s)
        await asyncio.sleep(0)
