"""Least squares with bounds on every unknown (Stark & Parker 1995, Computational Statistics 10)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_TOLERANCE: Final = 1e-10
_STEPS_PER_UNKNOWN: Final = 20


def bounded_least_squares(square: Array, linear: Array, most: Array) -> Array:
    """The x that makes x^T square x / 2 - linear^T x smallest with 0 <= x <= most.

    Args:
        square: (n, n), symmetric and positive definite.
        linear: (n,).
        most: (n,) upper bounds, 0 or more.

    Returns:
        (n,), within the bounds exactly.
    """
    x = np.zeros(len(linear))
    free = np.zeros(len(linear), bool)
    for _ in range(_STEPS_PER_UNKNOWN * len(linear)):
        downhill = linear - square @ x
        inward = np.where(x >= most, -downhill, downhill)
        inward[free | (most == 0.0)] = 0.0
        freed = int(np.argmax(inward))
        if inward[freed] <= _TOLERANCE * max(float(np.abs(linear).max()), 1.0):
            break
        free[freed] = True
        _settle(square, linear, most, x, free)
    return x


def _settle(
    square: Array, linear: Array, most: Array, x: Array, free: npt.NDArray[np.bool_]
) -> None:
    """Move the free unknowns to their best place; those that meet a bound stay there."""
    while free.any():
        held = square[np.ix_(free, ~free)] @ x[~free]
        wanted = np.linalg.solve(square[np.ix_(free, free)], linear[free] - held)
        now, limit = x[free], most[free]
        aim = np.clip(wanted, 0.0, limit)
        if (aim == wanted).all():
            x[free] = wanted
            return
        out = aim != wanted
        steps = np.ones(len(now))
        steps[out] = (aim[out] - now[out]) / (wanted[out] - now[out])
        step = float(steps.min())
        stopped = out & (steps <= step)
        moved = np.clip(now + step * (wanted - now), 0.0, limit)
        moved[stopped] = aim[stopped]
        x[free] = moved
        free[np.flatnonzero(free)[stopped]] = False
