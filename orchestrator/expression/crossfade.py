"""The weights on the face over time: nested convex cross-fades between running trajectories.

The face is a vector of weights w >= 0 with sum(w) <= 1. A retarget at time t0 turns the
trajectory F into

    F'(t) = (1 - s(t)) F(t*) + s(t) T,        s(t0) = s'(t0) = 0

so value and velocity are continuous whatever F was doing, and range, sum and "no overshoot"
hold because F' is a convex combination. F keeps running under the cross-fade; where what it
was rising to is no longer wanted its time t* is braked to a stop within `BRAKE_S`.

A cross-fade that is complete hides everything under it, and what lies under an ended brake is
a constant: both are folded away. Beyond `MAX_LAYERS` the whole pile is replaced by one motion
that starts at its value and velocity and comes to rest inside the range, so that cost and memory
stay bounded however fast retargets come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.expression.easing import Easing, brake_rate, braked

Weights = npt.NDArray[np.float64]

BRAKE_S: Final = 0.12
MAX_LAYERS: Final = 48
MIN_TRANSITION_S: Final = 0.016


@dataclass(frozen=True, slots=True, eq=False)
class _Base:
    """What lies at the bottom: a constant, or a motion that is braked to a stop."""

    value: Weights
    velocity: Weights
    start_s: float = 0.0
    brake_s: float = 1.0

    def at(self, t_s: float) -> tuple[Weights, Weights]:
        elapsed_s = t_s - self.start_s
        value = self.value + self.velocity * braked(elapsed_s, self.brake_s)
        return value, self.velocity * brake_rate(elapsed_s, self.brake_s)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One cross-fade towards `target`.

    Attributes:
        brake_s: period over which what lies below is braked; None lets it run.
    """

    start_s: float
    duration_s: float
    easing: Easing
    target: Weights
    brake_s: float | None

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s

    def below_s(self, t_s: float) -> float:
        """The time at which what lies below is seen at `t_s`."""
        if self.brake_s is None:
            return t_s
        return self.start_s + braked(t_s - self.start_s, self.brake_s)

    def below_rate(self, t_s: float) -> float:
        return 1.0 if self.brake_s is None else brake_rate(t_s - self.start_s, self.brake_s)


class Crossfade:
    """A trajectory of weights that is retargeted as time goes on.

    Args:
        size: number of weights.
    """

    def __init__(self, size: int) -> None:
        self._base = _still(np.zeros(size))
        self._layers: list[_Layer] = []

    @property
    def depth(self) -> int:
        """Cross-fades that still show."""
        return len(self._layers)

    @property
    def target(self) -> Weights:
        """Where the trajectory is going."""
        return self._layers[-1].target if self._layers else self._base.value

    def at(self, t_s: float) -> tuple[Weights, Weights]:
        """Value and velocity per second at a time not before the last retarget."""
        times = [t_s]
        for layer in reversed(self._layers):
            times.append(layer.below_s(times[-1]))
        value, velocity = self._base.at(times.pop())
        for layer in self._layers:
            now_s = times.pop()
            x = (now_s - layer.start_s) / layer.duration_s
            share = layer.easing.at(x)
            rate = layer.easing.slope(x) / layer.duration_s
            velocity = (1.0 - share) * layer.below_rate(now_s) * velocity + rate * (
                layer.target - value
            )
            value = (1.0 - share) * value + share * layer.target
        return np.clip(value, 0.0, 1.0), velocity

    def moving(self, t_s: float) -> bool:
        """Whether the weights still change after `t_s`."""
        self.fold(t_s)
        return bool(self._layers) or bool(self._base.velocity.any())

    def retarget(
        self, t_s: float, target: Weights, duration_s: float, easing: Easing, *, brake: bool
    ) -> float:
        """Go to `target` from whatever is on at `t_s`.

        Args:
            duration_s: until the cross-fade is complete.
            brake: whatever is rising is no longer wanted. What only falls runs on: it ends
                no later for it.

        Returns:
            When it will be complete.
        """
        self.fold(t_s)
        duration_s = max(duration_s, MIN_TRANSITION_S)
        if self._layers and self._layers[-1].start_s >= t_s:
            # Two at one instant: nothing shows of the first yet.
            self._layers.pop()
        if len(self._layers) >= MAX_LAYERS:
            self._base, self._layers = self._coasting(t_s), []
        rising = bool((self.target > self.at(t_s)[0] + 1e-9).any())
        brake_s = min(BRAKE_S, duration_s) if brake and rising else None
        layer = _Layer(t_s, duration_s, easing, target, brake_s)
        self._layers.append(layer)
        return layer.end_s

    def fold(self, t_s: float) -> None:
        """Drop what no longer shows at `t_s` and later."""
        for index in reversed(range(len(self._layers))):
            layer = self._layers[index]
            seen_s = self._seen_s(index, t_s)
            if seen_s >= layer.end_s:
                self._base = _still(layer.target)
                self._layers = self._layers[index + 1 :]
                return
            if layer.brake_s is not None and seen_s >= layer.start_s + layer.brake_s:
                below = Crossfade(len(layer.target))
                below._base, below._layers = self._base, self._layers[:index]
                self._base = _still(below.at(layer.below_s(seen_s))[0])
                self._layers = self._layers[index:]
                return
        if not self._layers and t_s >= self._base.start_s + self._base.brake_s:
            self._base = _still(self._base.at(t_s)[0])

    def resized(self, order: npt.NDArray[np.intp]) -> None:
        """Rearrange the weights: new index i takes old index `order[i]`, or nothing for -1."""

        def moved(old: Weights) -> Weights:
            return np.where(order >= 0, old[order], 0.0)

        base = self._base
        self._base = _Base(moved(base.value), moved(base.velocity), base.start_s, base.brake_s)
        self._layers = [
            _Layer(x.start_s, x.duration_s, x.easing, moved(x.target), x.brake_s)
            for x in self._layers
        ]

    def _seen_s(self, index: int, t_s: float) -> float:
        """The time at which layer `index` is seen from above at `t_s`."""
        for layer in reversed(self._layers[index + 1 :]):
            t_s = layer.below_s(t_s)
        return t_s

    def _coasting(self, t_s: float) -> _Base:
        """One motion with the value and velocity of now, braked before it leaves the range."""
        value, velocity = self.at(t_s)
        falling = velocity < 0.0
        rooms = [BRAKE_S / 3.0]
        if falling.any():
            rooms.append(float(np.min(value[falling] / -velocity[falling])))
        if (rising := float(velocity.sum())) > 0.0:
            rooms.append((1.0 - float(value.sum())) / rising)
        advance_s = max(min(rooms), 1e-6)
        return _Base(value, velocity, t_s, 3.0 * advance_s)


def _still(value: Weights) -> _Base:
    return _Base(value, np.zeros_like(value))
