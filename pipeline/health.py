"""Whether to use a renderer, why not, and when to try it again. Time is an argument."""

from __future__ import annotations

from typing import Final

from pipeline.errors import (
    BadFrameError,
    DeviceLostError,
    DropReason,
    JobDroppedError,
    OutOfMemoryError,
)

FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0
# A late renderer works, and the machine may be busy for a moment only: no back-off.
LATE_RETRY_S: Final = 0.15
# A renderer that fails again sooner than this has not recovered: the back-off goes on growing.
STABLE_S: Final = 30.0
# Where another renderer serves meanwhile, changing back and forth looks worse than waiting.
LAST_LATE_RETRY_S: Final = 5.0
# One late frame is a hiccup of the machine; a second in a row is a renderer too slow.
MISSES_TO_FAIL: Final = 2
_REASON_CHARACTERS: Final = 320


class RendererHealth:
    """What is known about one renderer.

    Args:
        patient: another renderer can serve as well: one that is late again soon after it
            recovered is left alone for longer each time.

    Attributes:
        reason: None while it can be used, else why not, in a few words.
        late: that reason is that it works, but not in time.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.reason: str | None = None
        self.late = False
        self._patient = patient
        self._late_wait_s = LATE_RETRY_S
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
        self.late = False
        if not self._lost:
            self.reason = None

    def missed(self, now_s: float, reason: str) -> None:
        """It was late. The second time in a row is a failure."""
        self._misses += 1
        if self._misses >= MISSES_TO_FAIL:
            self.too_late(now_s, reason)

    def too_late(self, now_s: float, reason: str) -> None:
        """It works, but not in time; look again soon."""
        self._misses = 0
        if self._lost:
            return
        stable = self._succeeded_s is not None and now_s - self._succeeded_s >= STABLE_S
        if self.reason is None and stable:
            self._late_wait_s = LATE_RETRY_S
        self.reason, self.late = reason, True
        self._retry_s = now_s + self._late_wait_s
        if self._patient:
            self._late_wait_s = min(2.0 * self._late_wait_s, LAST_LATE_RETRY_S)

    def waits(self, now_s: float, reason: str) -> None:
        """It is not there yet; try it now."""
        if not self._lost:
            self.reason, self.late = reason, False
            self._retry_s = now_s

    def rests(self) -> None:
        """It is not needed: nothing is the matter with it."""
        if not self._lost:
            self.reason, self.late = None, False

    def failed(self, now_s: float, reason: str, *, lost: bool = False) -> None:
        """It cannot be used now; try again later, each time later still."""
        stable = self._succeeded_s is not None and now_s - self._succeeded_s >= STABLE_S
        if self.reason is None and stable:
            self._wait_s = FIRST_RETRY_S
        self._misses = 0
        self._lost = self._lost or lost
        self.reason, self.late = reason, False
        self._retry_s = now_s + self._wait_s
        self._wait_s = min(2.0 * self._wait_s, LAST_RETRY_S)

    def retry_due(self, now_s: float) -> bool:
        """It is time to try whether it works again."""
        return self.reason is not None and not self._lost and now_s >= self._retry_s


def was_crowded_out(error: BaseException) -> bool:
    """The renderer never got to it, and is not to blame."""
    return isinstance(error, JobDroppedError) and error.reason is not DropReason.ABANDONED


def kind_of(error: BaseException) -> str:
    """The failure as a label of the metrics."""
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (OutOfMemoryError, "out_of_memory"),
        (DeviceLostError, "device_lost"),
        (BadFrameError, "bad_frame"),
        (JobDroppedError, "hang"),
    )
    return next((kind for known, kind in kinds if isinstance(error, known)), "error")


def reason_for(renderer: str, error: BaseException) -> str:
    """The failure in a few words for people, on one line."""
    if isinstance(error, OutOfMemoryError):
        words = "out of memory"
    elif isinstance(error, DeviceLostError):
        words = "device lost"
    elif isinstance(error, JobDroppedError):
        words = "hangs"
    else:
        words = " ".join(str(error).split()) or type(error).__name__
        words = words.removeprefix(f"{renderer}: ")
    if len(words) > _REASON_CHARACTERS:
        words = f"{words[:_REASON_CHARACTERS]}..."
    return f"{renderer}: {words}"
