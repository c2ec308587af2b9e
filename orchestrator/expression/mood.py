"""The slow layer under the cues: valence and arousal that fade by themselves.

A new mood is a convex cross-fade from what is on screen, so it neither jumps nor leaves the
range: what was moving is braked inside the range while the new mood takes over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from orchestrator.expression.easing import RELEASE, brake_rate, braked
from pipeline.types import FaceControls, Float32Array

RISE_S: Final = 1.0
"""A mood comes within so long, or in the first half of its time if that is shorter."""
MIN_DECAY_S: Final = 1.0
"""Times below this count as this: a mood is slow by nature."""

# Faces at the four ends, each control at most a quarter together with any other end:
# AU 12 + 6 for pleasure, 15 + 1 for displeasure; wide eyes and brows (5 + 1 + 2) for arousal,
# drooping lids (43) for its lack.
_SIDES: Final = ("Left", "Right")


def _end(brow_inner_up: float = 0.0, **both_sides: float) -> Float32Array:
    named = {name + side: value for name, value in both_sides.items() for side in _SIDES}
    return FaceControls.of(browInnerUp=brow_inner_up, **named).weights


PLEASED: Final = _end(mouthSmile=0.22, cheekSquint=0.16, eyeSquint=0.05)
DISPLEASED: Final = _end(brow_inner_up=0.16, mouthFrown=0.20, browDown=0.08)
AROUSED: Final = _end(brow_inner_up=0.08, browOuterUp=0.14, eyeWide=0.18)
CALM: Final = _end(eyeBlink=0.20, eyeLookDown=0.05)
IDLE_SPAN: Final = 0.5
"""Full arousal makes idle life so much larger, full calm so much smaller."""
CORNER: Final = 0.2
"""Below this the two signs of a value merge into each other without a kink."""


@dataclass(frozen=True, slots=True, eq=False)
class MoodOffsets:
    """What a mood adds to a face at rest.

    Attributes:
        controls: (52,) float32 in [0, 0.25], in the order of `ARKIT_BLENDSHAPES`.
        idle: factor on the size of idle life, 1 for no mood, in [0.5, 1.5].
    """

    controls: Float32Array
    idle: float = 1.0


@dataclass(frozen=True, slots=True)
class _Course:
    """One of the two values over time: from where it was, to a target, to zero.

    Attributes:
        start_s: when it began.
        value, velocity: there and then.
        target: where it is after the rise, in [-1, 1].
        decay_s: seconds from the start until it is zero again.
    """

    start_s: float = 0.0
    value: float = 0.0
    velocity: float = 0.0
    target: float = 0.0
    decay_s: float = MIN_DECAY_S

    @property
    def rise_s(self) -> float:
        return min(RISE_S, self.decay_s / 2)

    @property
    def brake_s(self) -> float:
        """The longest brake, up to the rise, that stops within [-1, 1]."""
        room = 1.0 - self.value if self.velocity > 0.0 else 1.0 + self.value
        speed = abs(self.velocity)
        return min(self.rise_s, 3.0 * room / speed) if speed > 0.0 else self.rise_s

    def wanted(self, now_s: float) -> tuple[float, float]:
        """What it is heading for, and how fast that moves: the target, then its way to zero."""
        fade_s = self.decay_s - self.rise_s
        x = (now_s - self.start_s - self.rise_s) / fade_s
        return self.target * (1.0 - RELEASE.at(x)), -self.target * RELEASE.slope(x) / fade_s

    def at(self, now_s: float) -> tuple[float, float]:
        """Value in [-1, 1] and velocity per second."""
        elapsed_s = now_s - self.start_s
        x = elapsed_s / self.rise_s
        share, rate = RELEASE.at(x), RELEASE.slope(x) / self.rise_s
        to, to_rate = self.wanted(now_s)
        if share == 1.0:
            return to, to_rate
        off, off_rate = self.value, 0.0
        if (brake_s := self.brake_s) > 0.0:
            off += self.velocity * braked(elapsed_s, brake_s)
            off_rate = self.velocity * brake_rate(elapsed_s, brake_s)
        value = (1.0 - share) * off + share * to
        velocity = (1.0 - share) * off_rate + share * to_rate + rate * (to - off)
        return min(max(value, -1.0), 1.0), velocity

    def turned(self, target: float, decay_s: float, now_s: float) -> _Course:
        """A course that goes on from here to another target."""
        value, velocity = self.at(now_s)
        return _Course(now_s, value, velocity, target, decay_s)


class MoodLayer:
    """A mood over time. Holds one course per value, however often it is set."""

    def __init__(self) -> None:
        self._valence = _Course()
        self._arousal = _Course()

    def set(self, valence: float, arousal: float, decay_s: float, now_s: float) -> None:
        """Go there within `RISE_S`, and be back at zero after `decay_s`.

        Args:
            valence: from unpleasant to pleasant, clamped to [-1, 1].
            arousal: from calm to excited, clamped to [-1, 1].
            decay_s: seconds from now; below `MIN_DECAY_S` counts as that.
            now_s: never decreases between calls.

        Raises:
            ValueError: a number is not finite.
        """
        if not all(map(math.isfinite, (valence, arousal, decay_s))):
            raise ValueError("a mood needs finite numbers")
        decay_s = max(float(decay_s), MIN_DECAY_S)
        self._valence = self._valence.turned(_clamped(valence), decay_s, now_s)
        self._arousal = self._arousal.turned(_clamped(arousal), decay_s, now_s)

    def values(self, now_s: float) -> tuple[float, float]:
        """Valence and arousal now, each in [-1, 1]."""
        return self._valence.at(now_s)[0] + 0.0, self._arousal.at(now_s)[0] + 0.0

    def sample(self, now_s: float) -> MoodOffsets:
        """What the mood adds to the face now."""
        valence, arousal = self.values(now_s)
        controls = (
            _side(valence) * PLEASED
            + _side(-valence) * DISPLEASED
            + _side(arousal) * AROUSED
            + _side(-arousal) * CALM
        )
        return MoodOffsets(controls.astype(np.float32), 1.0 + IDLE_SPAN * arousal)

    def memory(self, now_s: float) -> dict[str, float] | None:
        """What survives a restart, ready for JSON; None where no mood is on.

        The values are those that the mood is heading for, with the time that is left to it.
        """
        valence, arousal = self._valence.wanted(now_s)[0], self._arousal.wanted(now_s)[0]
        if valence == 0.0 == arousal:
            return None
        left_s = self._valence.start_s + self._valence.decay_s - now_s
        return {"valence": valence, "arousal": arousal, "decay_s": left_s}

    def restore(self, memory: object, now_s: float) -> None:
        """Take up what `memory` returned in an earlier run; None changes nothing.

        Raises:
            ValueError: it is something else; nothing has changed.
        """
        if memory is None:
            return
        if not isinstance(memory, Mapping):
            raise ValueError(f"mood: expected an object, got {type(memory).__name__}")
        valence = _remembered(memory, "valence", -1.0, 1.0)
        arousal = _remembered(memory, "arousal", -1.0, 1.0)
        self.set(valence, arousal, _remembered(memory, "decay_s", 0.0, 86_400.0), now_s)


def _clamped(value: float) -> float:
    return min(max(float(value), -1.0), 1.0)


def _side(value: float) -> float:
    """The positive part of a value in [-1, 1]: 0 up to 0, 1 at 1, smooth at the corner."""
    if value <= 0.0:
        return 0.0
    bent = value * value / (2.0 * CORNER) if value < CORNER else value - CORNER / 2.0
    return bent / (1.0 - CORNER / 2.0)


def _remembered(memory: Mapping[Any, Any], key: str, low: float, high: float) -> float:
    value = memory.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"mood.{key}: expected a number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"mood.{key}: expected a number in [{low:g}, {high:g}], got {value!r}")
    return float(value)
