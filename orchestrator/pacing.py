"""When frames are due: absolute deadlines that never drift and never pile up."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

RECENT_RENDERS: Final = 60
# This share of them may take longer than the lead: a single slow one is the machine's hiccup, and
# beginning every frame earlier for it would bring nothing.
SLOW_SHARE: Final = 0.03
LEAD_MARGIN_S: Final = 0.001
MAX_LEAD_SHARE: Final = 0.9
# A cue that came just after a face was sampled would wait for the rest of the lead and a whole
# period: the next deadline comes earlier for it, by so much at most, and the clock goes back to its
# own time in steps that nobody sees.
PULL_SHARE: Final = 0.3  # of a period
PULL_S: Final = 0.010
BACK_STEP_S: Final = 0.001


class Pace:
    """Deadlines at `start + n * period`; late ones are skipped and counted.

    Args:
        period_s: seconds between frames.
        start_s: the first deadline.
    """

    def __init__(self, period_s: float, start_s: float) -> None:
        self.period_s = period_s
        self._start_s = start_s
        self._tick = -1
        self._ahead_s = 0.0
        self._most_ahead_s = min(PULL_SHARE * period_s, PULL_S)

    def next(self, now_s: float) -> tuple[float, int]:
        """The next deadline that is not past, and how many were skipped to reach it."""
        back_s = min(BACK_STEP_S, self._ahead_s)
        self._ahead_s -= back_s
        self._start_s += back_s
        due = max(self._tick + 1, math.ceil((now_s - self._start_s) / self.period_s - 1e-9))
        skipped = due - self._tick - 1
        self._tick = due
        return self._start_s + due * self.period_s, skipped

    def pull(self, due_s: float, wanted_s: float) -> float:
        """The deadline `due_s` just given, earlier if it is wanted earlier, as far as may be."""
        early_s = min(due_s - wanted_s, self._most_ahead_s - self._ahead_s)
        if early_s <= 0.0:
            return due_s
        self._ahead_s += early_s
        self._start_s -= early_s
        return due_s - early_s

    def restart(self, now_s: float) -> None:
        """Begin anew at `now_s`, after a pause that was meant."""
        self._start_s = now_s
        self._tick = -1
        self._ahead_s = 0.0


class Lead:
    """How long before its deadline a frame is begun, learnt from the recent ones.

    A frame that is begun at its deadline would be published a render later, and every
    change of render time would show as jitter. Beginning early by about the slowest of the
    recent renders, an outlier apart, keeps publishing on the deadline.
    """

    def __init__(self, period_s: float) -> None:
        self._longest_s = period_s * MAX_LEAD_SHARE
        self._recent: deque[float] = deque(maxlen=RECENT_RENDERS)

    def observe(self, seconds: float) -> None:
        """Note how long a frame that had to be drawn took from being begun to being ready."""
        self._recent.append(seconds)

    @property
    def seconds(self) -> float:
        """Seconds before the deadline; at most most of a period."""
        if not self._recent:
            return LEAD_MARGIN_S
        slowest_first = sorted(self._recent, reverse=True)
        slow = slowest_first[int(SLOW_SHARE * len(slowest_first))]
        return min(slow + LEAD_MARGIN_S, self._longest_s)
