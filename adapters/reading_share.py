"""How much of the event loop's time may go into reading one connection's requests.

A body of a million chunks of one byte each is six megabytes, and takes a second to be read. Bytes
do not tell what they cost, so the time that they took does: whoever has used more than a share
of it waits, for TCP, until that has evened out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

SHARE: Final = 0.1
AT_ONCE_S: Final = 0.005
DEAREST_S: Final = 0.020  # no piece costs more: the garbage collector's time is not the client's
PIECE_BYTES: Final = 8192  # a millisecond or two at the worst

_LONGEST_PAUSE_S: Final = 1.0


class ReadingShare:
    """Passes bytes on to whoever reads them, as long as that has time left.

    Args:
        read: takes bytes; it is called with one piece after another.
        resume: called when more may be read from the connection.
        clock: gives processor time of this thread in seconds, which waiting for others is not.
    """

    def __init__(
        self,
        read: Callable[[bytes], None],
        *,
        resume: Callable[[], None],
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._read = read
        self._resume = resume
        self._clock = clock
        self._waiting = b""
        self._debt_s = 0.0
        self._seen_s = self._loop.time()
        self._later: asyncio.TimerHandle | None = None

    @property
    def holding(self) -> bool:
        """Its time is used up: nothing should be read meanwhile."""
        return self._later is not None

    def take(self, data: bytes) -> None:
        """Have these bytes read, now or later."""
        self._waiting += data
        if not self.holding:
            self._pass_on()

    def spend(self, reading: Callable[[], None]) -> None:
        """Do some reading that was put off by whoever reads, at this connection's expense."""
        began_s = self._clock()
        reading()
        pause_s = self._spent(self._clock() - began_s)
        if pause_s and not self.holding:
            self._later = self._loop.call_later(pause_s, self._go_on)

    def stop(self) -> None:
        """Let go of what waits."""
        self._waiting = b""
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _pass_on(self) -> None:
        waiting, self._waiting = self._waiting, b""
        for at in range(0, len(waiting), PIECE_BYTES):
            self.spend(partial(self._read, waiting[at : at + PIECE_BYTES]))
            if self.holding:
                self._waiting = waiting[at + PIECE_BYTES :]
                return

    def _spent(self, seconds: float) -> float:
        """Count time; returns how long to wait before the next."""
        now_s = self._loop.time()
        self._debt_s = max(0.0, self._debt_s - (now_s - self._seen_s) * SHARE)
        self._debt_s += min(seconds, DEAREST_S)
        self._seen_s = now_s
        return min(max(0.0, self._debt_s - AT_ONCE_S) / SHARE, _LONGEST_PAUSE_S)

    def _go_on(self) -> None:
        self._later = None
        self._pass_on()
        if not self.holding:
            self._resume()
