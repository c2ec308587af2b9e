"""Where frames with a time each belong on a grid of constant frame rate. No I/O, no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

JUMP_S: Final = 1.0
"""A media clock that falls back by more than this, or runs ahead of time, began anew. A frame
that falls back by less is late."""


@dataclass(frozen=True, slots=True)
class Place:
    """What to do with a frame.

    Attributes:
        repeats: show the frame before it so many times more first.
        keep: then show this one; False leaves it out, for its place is taken.
    """

    repeats: int
    keep: bool


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A frame whose place is known."""

    place: int
    pts_s: float
    arrived_s: float

    def pts_s_at(self, arrived_s: float) -> float:
        """What the media clock should say by then."""
        return self.pts_s + arrived_s - self.arrived_s


class ConstantRate:
    """Fills every place of the grid with exactly one frame; the first frame is at place 0.

    Args:
        fps: places per second.
        most: places there are; None is without end.

    Attributes:
        most: places there are.
        filled: places that have a frame.
        repeated: how many of them have the one before once more.
        dropped: frames left out.
    """

    def __init__(self, fps: float, most: int | None = None) -> None:
        self._fps = fps
        self.most = most
        self._anchor: _Anchor | None = None
        self._newest_s = 0.0
        self._arrived_s = 0.0
        self.filled = 0
        self.repeated = 0
        self.dropped = 0

    @property
    def full(self) -> bool:
        """Every place has its frame."""
        return self.most is not None and self.filled >= self.most

    def place(self, pts_s: float, arrived_s: float) -> Place:
        """Find the place of the next frame.

        Args:
            pts_s: its time on the media clock; where that jumps, time goes on by `arrived_s`.
            arrived_s: monotonic seconds at which it came.
        """
        anchor = self._anchor
        if anchor is None:
            anchor = _Anchor(0, pts_s, arrived_s)
        elif pts_s < self._newest_s - JUMP_S or pts_s > anchor.pts_s_at(arrived_s) + JUMP_S:
            away = math.floor((arrived_s - self._arrived_s) * self._fps)
            anchor = _Anchor(self.filled - 1 + max(1, away), pts_s, arrived_s)
        if anchor is not self._anchor:
            self._anchor, self._newest_s = anchor, pts_s
        self._newest_s, self._arrived_s = max(self._newest_s, pts_s), arrived_s
        index = anchor.place + round((pts_s - anchor.pts_s) * self._fps)
        if index < self.filled:
            self.dropped += 1
            return Place(0, keep=False)
        repeats = self.fill(index)
        if self.full:
            return Place(repeats, keep=False)
        self.filled += 1
        return Place(repeats, keep=True)

    def fill(self, places: int) -> int:
        """Fill up to that many places, but no more than there are.

        Returns:
            How many times to show the last frame once more.
        """
        end = places if self.most is None else min(places, self.most)
        repeats = max(0, end - self.filled)
        self.filled += repeats
        self.repeated += repeats
        return repeats
