"""How fast a WebSocket is read: so many frames a second, and few before others get a turn.

Messages of producers are limited where they are counted. Pings, pongs, empty messages and the
fragments that a message comes in are none: a megabyte of them is 170,000 frames, and whoever
sends them as fast as the connection takes them has the event loop to themselves. So a
connection is read no faster than this; who sends more waits for TCP, and is cut off by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from adapters.access import TokenBucket

FRAMES_PER_S: Final = 1000.0
FRAMES_IN_A_ROW: Final = 64
"""As much as costs the loop half a millisecond."""

_PAUSE_S: Final = 0.02
_LONGEST_HEADER: Final = 14  # two bytes, eight of length, four of mask


class Parser(Protocol):
    """What reads a WebSocket's bytes; aiohttp's `WebSocketReader`."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...

    def feed_eof(self) -> None: ...


class FrameEdges:
    """Finds where frames end in the bytes of a WebSocket (RFC 6455, section 5.2)."""

    def __init__(self) -> None:
        self._header = b""  # as far as it has arrived
        self._left = 0  # bytes of the payload that are still to come

    @property
    def between_frames(self) -> bool:
        """The next byte begins a frame."""
        return not (self._header or self._left)

    def follow(self, data: bytes, at: int) -> int:
        """Read on from `data[at]`: where the frame ends, or the data does."""
        if not self._left:
            known = len(self._header)
            header = self._header + data[at : at + _LONGEST_HEADER - known]
            size = _header_bytes(header)
            if len(header) < size:
                self._header = header
                return len(data)
            at += size - known
            self._header = b""
            self._left = _payload_bytes(header)
        taken = min(self._left, len(data) - at)
        self._left -= taken
        return at + taken


class FrameThrottle:
    """Passes a WebSocket's bytes on to its parser, no faster than it may be read.

    Args:
        parser: takes them.
        frames_per_s: how many frames a second, and as many at once after a pause.
        ended: called when the parser takes no more, some time after it was fed.
        resume: called when more may be read from the connection.
    """

    def __init__(
        self,
        parser: Parser,
        frames_per_s: float,
        *,
        ended: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = parser
        self._bucket = TokenBucket(frames_per_s, frames_per_s, self._loop.time())
        self._ended = ended
        self._resume = resume
        self._edges = FrameEdges()
        self._waiting = b""
        self._later: asyncio.TimerHandle | None = None

    @property
    def holding(self) -> bool:
        """There is more than could be passed on: nothing should be read meanwhile."""
        return self._later is not None

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes of the connection; what the parser says to those that it gets now."""
        self._waiting += data
        return (False, b"") if self.holding else self._pass_on()

    def feed_eof(self) -> None:
        """The connection has ended; what waits is not looked at any more."""
        self.stop()
        self._parser.feed_eof()

    def stop(self) -> None:
        """Let go of what waits."""
        self._waiting = b""
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _pass_on(self) -> tuple[bool, bytes]:
        at, frames, now_s = 0, 0, self._loop.time()
        pause_s = _PAUSE_S
        while at < len(self._waiting):
            if self._edges.between_frames:
                if frames == FRAMES_IN_A_ROW:
                    pause_s = 0.0  # only for others to have a turn
                    break
                if not self._bucket.take(now_s):
                    break
                frames += 1
            at = self._edges.follow(self._waiting, at)
        passed, self._waiting = self._waiting[:at], self._waiting[at:]
        if self._waiting:
            self._later = self._loop.call_later(pause_s, self._go_on)
        return self._parser.feed_data(passed) if passed else (False, b"")

    def _go_on(self) -> None:
        self._later = None
        ended, _ = self._pass_on()
        if ended:
            self.stop()
            self._ended()
        elif not self.holding:
            self._resume()


def _header_bytes(header: bytes) -> int:
    """How long a header is of which this is the beginning."""
    if len(header) < 2:
        return 2
    length = header[1] & 0x7F
    return 2 + {126: 2, 127: 8}.get(length, 0) + (4 if header[1] & 0x80 else 0)


def _payload_bytes(header: bytes) -> int:
    length = header[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(header[2 : 4 if length == 126 else 10], "big")
