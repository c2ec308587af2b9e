"""Idle life: blinks, gaze shifts, breath and head sway as functions of (seed, t).

Time is cut into intervals, and each interval's chances are hashed from the seed and its number,
so that any moment can be asked for, in any order, at the same cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

# A spontaneous blink: the lids close in about 60 ms, stay shut for 50, open in 100.
CLOSING_S: Final = 0.060
CLOSED_S: Final = 0.050
OPENING_S: Final = 0.100
BLINK_S: Final = CLOSING_S + CLOSED_S + OPENING_S
DOUBLE_GAP_S: Final = 0.100
DOUBLE_S: Final = 2 * BLINK_S + DOUBLE_GAP_S
DOUBLE_SHARE: Final = 0.1

# One blink in each interval, at a random place in its first part. The two lengths are the ones
# that put at least 1.5 s between the end of a blink and the next, and at most 6 s from start to
# start: interval - part - BLINK_S = 1.5, interval + part = 6. That makes 15.6 blinks a minute;
# people blink 10 to 20 times (Bentivoglio et al. 1997, Movement Disorders 12, 1028).
BLINK_REST_S: Final = (1.5, 6.0)
BLINK_INTERVAL_S: Final = (sum(BLINK_REST_S) + BLINK_S) / 2
BLINK_PART_S: Final = BLINK_REST_S[1] - BLINK_INTERVAL_S

# One saccade in each interval, likewise: gaze rests 0.5 to 3 s between two. Saccades of up to
# 10 degrees take about 45 ms (Bahill, Clark & Stark 1975, Mathematical Biosciences 24, 191).
SACCADE_S: Final = 0.045
GAZE_REST_S: Final = (0.5, 3.0)
GAZE_INTERVAL_S: Final = sum(GAZE_REST_S) / 2 + SACCADE_S
GAZE_PART_S: Final = (GAZE_REST_S[1] - GAZE_REST_S[0]) / 2
GAZE_HOME_SHARE: Final = 0.55  # how many of the shifts come back to the viewer
GAZE_HOME: Final = 0.03
GAZE_X: Final = 0.24
GAZE_Y: Final = (-0.12, 0.08)  # people glance down more than up

BREATH_HZ: Final = 0.25
BREATH_DEG: Final = 0.4
BREATH_WANDER_HZ: Final = 0.021  # breaths are not all equally long
BREATH_WANDER_RAD: Final = 0.9

SWAY_HZ: Final = (0.03, 0.22)
SWAY_WAVES: Final = 5
SWAY_DEG: Final = {"pitch": 0.9, "yaw": 1.8, "roll": 1.1}

_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class IdleAmplitude:
    """Size of the parts of idle life, relative to a calm neutral face, not negative.

    Blinks have none: how often they come is a setting, and half a blink looks drowsy.
    """

    gaze: float = 1.0
    sway: float = 1.0
    breath: float = 1.0


@dataclass(frozen=True, slots=True)
class IdleOffsets:
    """What idle life adds to a face.

    Attributes:
        blink: how far the lids are shut, in [0, 1].
        gaze_x: share of `eyeLookOutLeft` and `eyeLookInRight`; negative is the other way.
        gaze_y: share of `eyeLookUp`; negative looks down.
        pitch, yaw, roll: degrees, signs as in `FaceControls`.
    """

    blink: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0


class _Part(IntEnum):
    """What a draw is for; each part has chances of its own."""

    BLINK = 1
    GAZE = 2
    BREATH = 3
    SWAY = 4


class IdleLife:
    """The idle life of one character.

    Args:
        seed: which one; the same seed does the same at the same time.
        blink: blink rate, relative: 1 is one in 1.5 to 6 s, 0 none, at most 4.
        gaze, breath, sway: size, relative; 0 turns the part off.
        enabled: False turns everything off.

    Raises:
        ValueError: a setting is not in its range.
    """

    def __init__(
        self,
        seed: int,
        *,
        blink: float = 1.0,
        gaze: float = 1.0,
        breath: float = 1.0,
        sway: float = 1.0,
        enabled: bool = True,
    ) -> None:
        for name, value in (("blink", blink), ("gaze", gaze), ("breath", breath), ("sway", sway)):
            if not 0.0 <= value <= 4.0:
                raise ValueError(f"{name}: expected a number in [0, 4], got {value!r}")
        on = 1.0 if enabled else 0.0
        self._seed = seed
        self._blink = on * blink
        self._gaze = on * gaze
        self._breath = on * breath
        self._breath_phases = [math.tau * self._draw(_Part.BREATH, 0, n) for n in (0, 1)]
        self._sway = {
            axis: self._waves(row, on * sway * limit) if on * sway else []
            for row, (axis, limit) in enumerate(SWAY_DEG.items())
        }

    def sample(
        self,
        t_s: float,
        amplitude: IdleAmplitude = IdleAmplitude(),
        blinks: Callable[[float], float] = lambda _: 1.0,
    ) -> IdleOffsets:
        """Idle life at one moment: the same for the same seed, settings and arguments.

        Args:
            t_s: seconds since whenever; equally exact for years.
            amplitude: size of the parts, for what is on the face.
            blinks: share of the blinks that happen, in [0, 1], at a moment. Each is decided at
                the moment that it starts, so none is cut off when the share changes.
        """
        gaze_x, gaze_y = self._gaze_at(t_s)
        return IdleOffsets(
            blink=self._blink_at(t_s, blinks),
            gaze_x=amplitude.gaze * gaze_x,
            gaze_y=amplitude.gaze * gaze_y,
            pitch=amplitude.sway * self._sway_at("pitch", t_s)
            + amplitude.breath * self._breath_at(t_s),
            yaw=amplitude.sway * self._sway_at("yaw", t_s),
            roll=amplitude.sway * self._sway_at("roll", t_s),
        )

    # --- parts ----------------------------------------------------------------------------

    def _blink_at(self, t_s: float, share: Callable[[float], float]) -> float:
        if self._blink == 0.0:
            return 0.0
        interval_s = BLINK_INTERVAL_S / self._blink
        part_s = BLINK_PART_S / self._blink
        k = math.floor(t_s / interval_s)
        double = self._draw(_Part.BLINK, k, 0) < DOUBLE_SHARE
        if double:
            part_s -= DOUBLE_S - BLINK_S  # the last of it ends no later than a single one would
        start_s = k * interval_s + part_s * self._draw(_Part.BLINK, k, 1)
        since_s = t_s - start_s
        second_s = since_s - BLINK_S - DOUBLE_GAP_S
        shut = max(lids_shut(since_s), lids_shut(second_s) if double else 0.0)
        if shut > 0.0 and self._draw(_Part.BLINK, k, 2) >= share(start_s):
            return 0.0
        return shut

    def _gaze_at(self, t_s: float) -> tuple[float, float]:
        if self._gaze == 0.0:
            return 0.0, 0.0
        k = math.floor(t_s / GAZE_INTERVAL_S)
        onset_s = k * GAZE_INTERVAL_S + GAZE_PART_S * self._draw(_Part.GAZE, k, 0)
        after = _smooth((t_s - onset_s) / SACCADE_S)
        before = 1.0 - after
        (x0, y0), (x1, y1) = self._gaze_target(k - 1), self._gaze_target(k)
        return self._gaze * (before * x0 + after * x1), self._gaze * (before * y0 + after * y1)

    def _gaze_target(self, k: int) -> tuple[float, float]:
        home, u, v = (self._draw(_Part.GAZE, k, n) for n in (1, 2, 3))
        if home < GAZE_HOME_SHARE:
            return GAZE_HOME * (2 * u - 1), GAZE_HOME * (2 * v - 1)
        low, high = GAZE_Y
        return GAZE_X * (2 * u - 1), low + (high - low) * v

    def _breath_at(self, t_s: float) -> float:
        if self._breath == 0.0:
            return 0.0
        start, wander = self._breath_phases
        phase = math.tau * BREATH_HZ * t_s + start
        phase += BREATH_WANDER_RAD * math.sin(math.tau * BREATH_WANDER_HZ * t_s + wander)
        # Breathing in is the faster half.
        return self._breath * BREATH_DEG * math.sin(phase + 0.3 * math.sin(phase))

    def _waves(self, row: int, limit: float) -> list[tuple[float, float, float]]:
        """(degrees, Hz, phase) of the waves that add up to one axis of the sway."""
        low, high = SWAY_HZ
        waves = []
        for n in range(SWAY_WAVES):
            place = (n + self._draw(_Part.SWAY, row, 2 * n)) / SWAY_WAVES
            hz = low * (high / low) ** place
            waves.append((1.0 / hz**0.5, hz, math.tau * self._draw(_Part.SWAY, row, 2 * n + 1)))
        total = sum(size for size, _, _ in waves)
        return [(limit * size / total, hz, phase) for size, hz, phase in waves]

    def _sway_at(self, axis: str, t_s: float) -> float:
        waves = self._sway[axis]
        return math.fsum(size * math.sin(math.tau * hz * t_s + phase) for size, hz, phase in waves)

    def _draw(self, part: _Part, k: int, n: int) -> float:
        """A number in [0, 1) that depends on the seed and the three arguments alone.

        SplitMix64's finaliser (Steele, Lea & Flood 2014, doi 10.1145/2660193.2660195), once for
        each argument.
        """
        bits = self._seed & _MASK
        for value in (part, k, n):
            bits = _mix(bits ^ (value & _MASK))
        return (bits >> 11) * 2.0**-53


def lids_shut(since_s: float) -> float:
    """How far one blink has shut the lids, in [0, 1], `since_s` seconds after its start."""
    if since_s <= CLOSING_S:
        return _smooth(since_s / CLOSING_S)
    return 1.0 - _smooth((since_s - CLOSING_S - CLOSED_S) / OPENING_S)


def _smooth(progress: float) -> float:
    """0 before 0, 1 after 1, with a continuous velocity."""
    p = min(max(progress, 0.0), 1.0)
    return p * p * (3.0 - 2.0 * p)


def _mix(bits: int) -> int:
    bits = (bits + 0x9E3779B97F4A7C15) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
