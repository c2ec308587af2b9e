"""Whether to use a renderer, and when to try it again. Time is an argument."""

from __future__ import annotations

from typing import Final

FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0
# A renderer that fails again sooner than this has not recovered: the back-off goes on growing.
STABLE_S: Final = 30.0
# One late frame is a hiccup of the machine; a second in a row is a renderer too slow.
MISSES_TO_FAIL: Final = 2


class RendererHealth:
    """What is known about one renderer.

    Attributes:
        reason: None while it can be used, else why not, in a few words.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._misses = 0
        self._wait_s = FIRST_RETRY_S
        self._retry_s = 0.0
        self._succeeded_s: float | None = None
        self._lost = False

    @property
    def lost(self) -> bool:
        """It cannot be used again in this process."""
        return self._lost

    def succeeded(self, now_s: float) -> None:
        """It drew a frame in time."""
        if self.reason is not None or self._succeeded_s is None:
            self._succeeded_s = now_s
        self._misses = 0
        if not self._lost:
            self.reason = None

    def missed(self, now_s: float, reason: str) -> None:
        """It was late. The second time in a row is a failure."""
        self._misses += 1
        if self._misses >= MISSES_TO_FAIL:
            self.failed(now_s, reason)

    def failed(self, now_s: float, reason: str, *, lost: bool = False) -> None:
        """It cannot be used now; try again later, each time later still."""
        stable = self._succeeded_s is not None and now_s - self._succeeded_s >= STABLE_S
        if self.reason is None and stable:
            self._wait_s = FIRST_RETRY_S
        self._misses = 0
        self._lost = self._lost or lost
        self.reason = reason
        self._retry_s = now_s + self._wait_s
        self._wait_s = min(2.0 * self._wait_s, LAST_RETRY_S)

    def retry_due(self, now_s: float) -> bool:
        """It is time to try whether it works again."""
        return self.reason is not None and not self._lost and now_s >= self._retry_s
