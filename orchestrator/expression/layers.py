"""What a trajectory of weights is piled up from: something at the bottom, cross-fades over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.expression.easing import Easing, brake_rate, braked

Weights = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

# A quick stop that is not yet a jerk. A young cross-fade is braked over twice its age, no harder
# than it sped up, so that a burst of retargets does not add up to a jump.
BRAKE_S: Final = 0.12
BRAKE_PER_AGE: Final = 2.0
ROUNDING: Final = 1e-12


@dataclass(slots=True, eq=False)
class Base:
    """What lies at the bottom: constant weights, or weights whose motion is braked to a stop.

    Attributes:
        value: at `start_s`.
        rates: (drains,) per second at `start_s`: what each weight that falls loses.
        brakes_s: (drains,) how long each goes on.
        flow: (drains, size) where each goes: -1 at its own weight, and shares of all that rise.
    """

    value: Weights
    rates: Weights
    brakes_s: Weights
    flow: Weights
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + float(self.brakes_s.max(initial=0.0))

    def at(self, t_s: float) -> tuple[Weights, Weights]:
        if not len(self.rates):
            return self.value, np.zeros_like(self.value)
        left = np.maximum(0.0, 1.0 - (t_s - self.start_s) / self.brakes_s)
        gone = self.rates * self.brakes_s * (1.0 - left**3) / 3.0
        return self.value + gone @ self.flow, (self.rates * left**2) @ self.flow


@dataclass(slots=True, eq=False)
class Layer:
    """One cross-fade.

    Attributes:
        where: (size,) the labels that it moves.
        marks: what waits for it to be complete.
        brake_at_s, brake_s: when it began to stop, and how long that takes.
    """

    start_s: float
    duration_s: float
    easing: Easing
    target: Weights
    where: Labels
    marks: set[int] = field(default_factory=set)
    brake_at_s: float | None = None
    brake_s: float = 0.0

    @property
    def end_s(self) -> float:
        """When it is complete, unless it is stopped before."""
        return self.start_s + self.duration_s

    @property
    def done_s(self) -> float:
        """From when on it does not move any more."""
        return self.end_s if self.brake_at_s is None else self.brake_at_s + self.brake_s

    def brake(self, t_s: float) -> None:
        """Bring it to a stop, no harder than it sped up, unless that takes it to its end."""
        age_s = t_s - self.start_s
        brake_s = min(BRAKE_S, BRAKE_PER_AGE * age_s)
        if age_s + braked(brake_s, brake_s) < self.duration_s:
            self.brake_at_s, self.brake_s = t_s, brake_s

    def over(self, below: Weights, t_s: float) -> Weights:
        """The weights, given those under it."""
        return below + self.share(t_s) * self.where * (self.target - below)

    def share(self, t_s: float) -> float:
        return self.easing.at(self._elapsed_s(t_s) / self.duration_s)

    def rate(self, t_s: float) -> float:
        """Change of the share per second."""
        pace = 1.0 / self.duration_s
        if self.brake_at_s is not None:
            pace *= brake_rate(t_s - self.brake_at_s, self.brake_s)
        return pace * self.easing.slope(self._elapsed_s(t_s) / self.duration_s)

    def _elapsed_s(self, t_s: float) -> float:
        if self.brake_at_s is None:
            return t_s - self.start_s
        return self.brake_at_s - self.start_s + braked(t_s - self.brake_at_s, self.brake_s)


def still(value: Weights) -> Base:
    nothing = np.zeros(0)
    return Base(value, nothing, nothing, np.zeros((0, len(value))), -np.inf)


def coasting(value: Weights, velocity: Weights, t_s: float) -> Base:
    """A motion with this value and velocity that comes to rest inside the range.

    Weights that fall, neutral among them, drain into those that rise, each over as long as it
    lasts: draining a weight w >= 0 at the rate r over 3 w / r brings it to 0 without a jerk,
    since a trajectory that stays above 0 has r^2 <= 2 w max|w''| (Glaeser's inequality).
    """
    size = len(value)
    values = np.append(value, max(0.0, 1.0 - float(value.sum())))
    velocities = np.append(velocity, -float(velocity.sum()))
    falls = np.flatnonzero((velocities < -ROUNDING) & (values > 0.0))
    rises = np.maximum(velocities, 0.0)
    if not len(falls) or not rises.any():
        return still(value)
    rates = -velocities[falls]
    brakes_s = np.minimum(BRAKE_S, 3.0 * values[falls] / rates)
    flow = rises / rises.sum() - np.eye(size + 1)[falls]
    return Base(value, rates, brakes_s, flow[:, :size], t_s)
