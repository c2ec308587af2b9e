"""Facial controls straight from producers, over what the emotions give.

A producer's newest message counts, for as long as it keeps sending: `LAPSE_S` after the last one
its controls fade out. A message takes over within a few milliseconds, which joins the steps of a
stream without a frame of delay. It is about the controls that it names; naming one of a pair of
opposites (`eyeLookUpLeft`) says that the other (`eyeLookDownLeft`) is 0.

Written order for several producers: first every `set`, whoever began first at the bottom, each
cross-faded over what is below by its weight; then the sum of every `add`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.expression.blending import ONE_WAY, OTHER_WAY, InjectedControls
from orchestrator.expression.easing import RELEASE
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import ARKIT_BLENDSHAPES, ARKIT_INDEX, ControlsMode, DirectControls

LAPSE_S: Final = 1.0
FADE_S: Final = 0.2
SMOOTHING_S: Final = 0.010
"""Time constant of a first-order low-pass, and so how late it is: well below a frame."""
MAX_SOURCES: Final = 128

_HEAD: Final[Mapping[str, int]] = {
    angle: len(ARKIT_BLENDSHAPES) + place for place, angle in enumerate(("pitch", "yaw", "roll"))
}
_COLUMNS: Final[Mapping[str, int]] = {**ARKIT_INDEX, **_HEAD}
_PAIRS: Final = tuple(zip(ONE_WAY.tolist(), OTHER_WAY.tolist(), strict=True))
_OPPOSITE: Final[Mapping[int, int]] = dict(_PAIRS) | {b: a for a, b in _PAIRS}

# Three rows of 55: the share that is taken from what is below, what `set` puts there, and what
# `add` adds.
_Rows = npt.NDArray[np.float32]
_TAKEN, _SET, _ADDED = range(3)


def _rows(message: DirectControls) -> _Rows:
    rows = np.zeros((3, len(_COLUMNS)), np.float32)
    named = {_COLUMNS[name]: value for name, value in {**message.weights, **message.head}.items()}
    for column, value in named.items():
        if message.mode is ControlsMode.ADD:
            rows[_ADDED, column] = message.weight * value
            continue
        rows[_TAKEN, column] = message.weight
        rows[_SET, column] = message.weight * value
        opposite = _OPPOSITE.get(column)
        if opposite is not None and opposite not in named:
            rows[_TAKEN, opposite] = message.weight
    return rows


@dataclass(slots=True, eq=False)
class _Source:
    """One producer's controls: on their way from one message to the next.

    Attributes:
        start: the rows when the newest message came.
        wanted: the rows that it asks for.
        heard_s: when it came.
    """

    start: _Rows
    wanted: _Rows
    heard_s: float

    @property
    def until_s(self) -> float:
        return self.heard_s + LAPSE_S + FADE_S

    def at(self, now_s: float) -> _Rows:
        since_s = max(0.0, now_s - self.heard_s)
        behind = np.float32(math.exp(-since_s / SMOOTHING_S))
        left = np.float32(1.0 - RELEASE.at((since_s - LAPSE_S) / FADE_S))
        rows: _Rows = left * (self.wanted + behind * (self.start - self.wanted))
        return rows


class Injection:
    """The direct controls of all producers."""

    def __init__(self) -> None:
        self._sources: dict[Hashable, _Source] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def send(self, source: Hashable, message: DirectControls, now_s: float) -> None:
        """Take a producer's newest message.

        Args:
            source: the producer.
            now_s: monotonic seconds of receipt.

        Raises:
            InvalidEventError: too many producers send controls; nothing has changed.
        """
        self._forget(now_s)
        known = self._sources.get(source)
        if known is None and len(self._sources) >= MAX_SOURCES:
            raise InvalidEventError(
                ErrorCode.RATE_LIMITED,
                f"{MAX_SOURCES} producers send controls at once, which is the most",
                event_id=message.id,
            )
        wanted = _rows(message)
        start = np.zeros_like(wanted) if known is None else known.at(now_s)
        self._sources[source] = _Source(start, wanted, now_s)

    @property
    def active(self) -> bool:
        """Some controls are on, or were in the last sample."""
        return bool(self._sources)

    def sample(self, now_s: float) -> InjectedControls | None:
        """What the face gets now; None where nothing is on."""
        self._forget(now_s)
        if not self._sources:
            return None
        keep = np.ones(len(_COLUMNS), np.float32)
        given, added = np.zeros_like(keep), np.zeros_like(keep)
        for source in self._sources.values():
            rows = source.at(now_s)
            left = 1.0 - rows[_TAKEN]
            keep *= left
            given = given * left + rows[_SET]
            added += rows[_ADDED]
        return InjectedControls(keep, given + added)

    def _forget(self, now_s: float) -> None:
        lapsed = [key for key, source in self._sources.items() if now_s >= source.until_s]
        for key in lapsed:
            del self._sources[key]
