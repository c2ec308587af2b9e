"""Named curves from [0, 1] to [0, 1], flat at both ends, so that a cross-fade that follows one
starts and ends without a jump in velocity.

Both belong to the family s(x) = 1 - (1 - x)^n (1 + n x), whose slope n (n + 1) x (1 - x)^(n - 1)
is nowhere negative: it never overshoots. n = 2 is the usual smoothstep 3x^2 - 2x^3; for growing n
it approaches the step response of a critically damped spring, which starts sooner and settles
longer, as facial muscles do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Easing:
    """One curve of the family.

    Attributes:
        n: steepness of the start, at least 2.
        x95: where the curve reaches 0.95.
    """

    n: int
    x95: float

    def at(self, x: float) -> float:
        """The curve at x, 0 before 0 and 1 after 1."""
        if x <= 0.0:
            return 0.0
        if x >= 1.0:
            return 1.0
        return 1.0 - (1.0 - x) ** self.n * (1.0 + self.n * x)

    def slope(self, x: float) -> float:
        """Its derivative."""
        if x <= 0.0 or x >= 1.0:
            return 0.0
        return self.n * (self.n + 1) * x * (1.0 - x) ** (self.n - 1)


def _easing(n: int) -> Easing:
    low, high = 0.0, 1.0
    curve = Easing(n, 1.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if curve.at(middle) < 0.95 else (low, middle)
    return Easing(n, high)


# An expression comes quickly and settles; it goes evenly.
ONSET: Final = _easing(6)
RELEASE: Final = _easing(2)


def braked(elapsed_s: float, period_s: float) -> float:
    """How far time has got that began at full rate and was braked to a stop over `period_s`.

    The rate is (1 - x)^2 at the share x of the period: a third of it passes in all. A period of
    0 is a stop at once.
    """
    x = _share(elapsed_s, period_s)
    return period_s * (1.0 - (1.0 - x) ** 3) / 3.0


def brake_rate(elapsed_s: float, period_s: float) -> float:
    """The rate of that time, 1 at first and 0 at the end."""
    return (1.0 - _share(elapsed_s, period_s)) ** 2


def _share(elapsed_s: float, period_s: float) -> float:
    return min(1.0, max(0.0, elapsed_s / period_s)) if period_s > 0.0 else 1.0
