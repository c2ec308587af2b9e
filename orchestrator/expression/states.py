"""What the character is doing, and how its idle life goes meanwhile.

Each state has an idle set. A change moves every number of the set along a smooth curve within
`CHANGE_S`. A set that is changed again on its way is a sum of such moves: at every moment a mean
of the sets it was told, weighted by how far each has come, so it neither jumps in value or
velocity nor leaves their range.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.expression.easing import RELEASE
from orchestrator.expression.idle import DOUBLE_S
from pipeline.types import Activity

CHANGE_S: Final = 0.6
MERGED_S: Final = 0.01
"""Changes that follow each other more closely are one: a thousandth of a change has come by then,
and it bounds how many are under way."""
REMEMBERED_S: Final = CHANGE_S + 2.0 * DOUBLE_S
"""So long ago can be asked for: a change, and a blink that began before it was over."""

SPEAKING_MOUTH: Final = 1.0 / 3.0


@dataclass(frozen=True, slots=True)
class IdleSet:
    """How idle life goes in one state.

    Attributes:
        blinks: share of the blinks that happen, in [0, 1].
        gaze, sway, breath: factors on the size of these parts, not negative.
        gaze_x, gaze_y: where the eyes rest, as in `IdleOffsets`.
        pitch, yaw, roll: how the head rests, degrees, signs as in `FaceControls`.
        mouth: what emotions keep of their mouth, in [0, 1].
    """

    blinks: float = 1.0
    gaze: float = 1.0
    sway: float = 1.0
    breath: float = 1.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    mouth: float = 1.0


# Listeners look at who speaks, blink less, and tilt the head; who thinks looks up and aside (gaze
# aversion: Doherty-Sneddon & Phelps 2005, Memory & Cognition 33, 727) with the head going along
# a little; speakers move the head most of all.
IDLE_SETS: Final[Mapping[Activity, IdleSet]] = MappingProxyType(
    {
        Activity.IDLE: IdleSet(),
        Activity.LISTENING: IdleSet(blinks=0.55, gaze=0.5, sway=0.7, pitch=2.2, roll=2.5),
        Activity.THINKING: IdleSet(
            blinks=0.8,
            gaze=0.5,
            sway=0.8,
            gaze_x=0.62,
            gaze_y=0.46,
            pitch=-2.5,
            yaw=-4.0,
            roll=-1.5,
        ),
        Activity.SPEAKING: IdleSet(gaze=1.2, sway=1.9, breath=1.5, mouth=SPEAKING_MOUTH),
    }
)

_Numbers = npt.NDArray[np.float64]


def _numbers(of: IdleSet) -> _Numbers:
    return np.array(astuple(of))


class StateLayer:
    """The state over time, and the idle set that goes with it."""

    def __init__(self) -> None:
        self._state = Activity.IDLE
        self._settled = _numbers(IDLE_SETS[Activity.IDLE])
        self._at_rest = IDLE_SETS[Activity.IDLE]
        self._moves: deque[tuple[float, _Numbers]] = deque()
        self._asked_s = float("-inf")

    @property
    def state(self) -> Activity:
        """What was told last."""
        return self._state

    def set(self, state: Activity, now_s: float) -> None:
        """Go to the set of that state, beginning now, or with the last moment asked for."""
        if state is self._state:
            return
        start_s = max(now_s, self._asked_s)
        move = _numbers(IDLE_SETS[state]) - _numbers(IDLE_SETS[self._state])
        self._state = state
        if self._moves and start_s - self._moves[-1][0] < MERGED_S:
            start_s, earlier = self._moves.pop()
            move = earlier + move
        self._moves.append((start_s, move))

    def at(self, t_s: float) -> IdleSet:
        """The set at a moment, at most a second before the latest that was asked for."""
        self._asked_s = max(self._asked_s, t_s)
        self._settle()
        if not self._moves:
            return self._at_rest
        numbers = self._settled.copy()
        for start_s, move in self._moves:
            numbers += RELEASE.at((t_s - start_s) / CHANGE_S) * move
        return IdleSet(*numbers.tolist())

    def _settle(self) -> None:
        """Forget the moves that are over for every moment that may be asked for."""
        while self._moves and self._moves[0][0] + REMEMBERED_S < self._asked_s:
            self._settled = self._settled + self._moves.popleft()[1]
            if not self._moves:
                self._at_rest = IDLE_SETS[self._state]
                self._settled = _numbers(self._at_rest)
