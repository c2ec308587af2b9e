"""Placing curves on a feature: column sums make a curve's score cheap, so thousands are tried.

A *lens* is two curves that meet in two corners: the lids of an eye, the outer edges of the lips.
Its parameters are rows of arrays, so that one call scores a whole batch:

    0 x of the middle   1 y of the corners' middle   2 half width   3 tilt: how much lower the
    corner at larger x lies than the middle   4 height of the upper curve over the corners' line
    (negative is up)   5 depth of the lower curve under it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.fitting.frame import Window
from pipeline.types import Float32Array

Batch = npt.NDArray[np.float64]
"""(candidates, parameters)"""

Score = Callable[[Batch], Batch]
"""(candidates, parameters) to (candidates,); larger is better."""


class ColumnSums:
    """Means over vertical runs of a map, by running sums down its columns."""

    def __init__(self, values: Float32Array, window: Window) -> None:
        sums = np.cumsum(values, axis=0, dtype=np.float64)
        zero = np.zeros((1, values.shape[1]))
        self._sums = np.concatenate([zero, sums, sums[-1:]])
        self._window = window

    def mean(self, x: Batch, top: Batch, bottom: Batch) -> Batch:
        """Mean between `top` and `bottom` in the columns at `x`, all in face units."""
        columns = np.clip(
            np.rint((x - self._window.left) * self._window.px).astype(int),
            0,
            self._window.shape[1] - 1,
        )
        run = np.maximum(bottom - top, 1e-3) * self._window.px
        means: Batch = (self._down_to(columns, bottom) - self._down_to(columns, top)) / run
        return means

    def box(self, x0: Batch, x1: Batch, y: Batch, half_height: float) -> Batch:
        """Mean over boxes, one per candidate."""
        x = x0[:, None] + (x1 - x0)[:, None] * np.linspace(0, 1, 6)
        middle = np.broadcast_to(y[:, None], x.shape)
        means: Batch = self.mean(x, middle - half_height, middle + half_height).mean(axis=1)
        return means

    def _down_to(self, columns: npt.NDArray[np.int_], y: Batch) -> Batch:
        rows = np.clip((y - self._window.top) * self._window.px + 0.5, 0, self._window.shape[0])
        whole = np.minimum(rows.astype(int), self._window.shape[0] - 1)
        above = self._sums[whole, columns]
        sums: Batch = above + (rows - whole) * (self._sums[whole + 1, columns] - above)
        return sums


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Where parameters usually lie: mean and standard deviation, and hard limits.

    Attributes:
        mean, spread, low, high: one entry per parameter.
    """

    mean: Batch
    spread: Batch
    low: Batch
    high: Batch

    @classmethod
    def of(cls, *rows: tuple[float, float, float, float]) -> Prior:
        """From rows of mean, spread, low, high."""
        return cls(*np.array(rows, np.float64).T)

    def cost(self, batch: Batch) -> Batch:
        """Half the squared distance from the mean in standard deviations."""
        cost: Batch = 0.5 * (((batch - self.mean) / self.spread) ** 2).sum(axis=1)
        return cost


def climb(
    score: Score, starts: Batch, prior: Prior, steps: Sequence[float], rounds: int = 8
) -> tuple[Batch, float]:
    """Improve each start one parameter at a time with shrinking steps; the best end and its score.

    Args:
        score: what to maximise.
        starts: (starts, parameters).
        prior: gives the limits.
        steps: how far each parameter is tried to either side at first.
        rounds: passes over all parameters; each tries 7 values and shrinks the steps by 0.72.
    """
    best: tuple[Batch, float] | None = None
    for start in starts:
        here = start.copy()
        value = -np.inf
        reach = np.array(steps, np.float64)
        for _ in range(rounds):
            for index in range(here.size):
                tries = np.repeat(here[None], 7, axis=0)
                tries[:, index] += reach[index] * np.linspace(-1, 1, 7)
                tries[:, index] = np.clip(tries[:, index], prior.low[index], prior.high[index])
                values = score(tries)
                winner = int(np.argmax(values))
                here, value = tries[winner], float(values[winner])
            reach *= 0.72
        if best is None or value > best[1]:
            best = (here, value)
    if best is None:
        raise ValueError("starts: expected at least one")
    return best


def grid(*values: Sequence[float]) -> Batch:
    """Every combination of the values, (combinations, parameters)."""
    axes = np.meshgrid(*values, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1).astype(np.float64)


class LensShape:
    """How the two curves of a lens bend between its corners.

    Args:
        upper: positions along the lens in [0, 1] and heights there, 1 at the highest.
        lower: the same for the lower curve.
    """

    def __init__(
        self,
        upper: tuple[Sequence[float], Sequence[float]],
        lower: tuple[Sequence[float], Sequence[float]],
        samples: int = 41,
    ) -> None:
        self._upper, self._lower = upper, lower
        self.along = np.linspace(0, 1, samples)
        self.weight = np.sqrt(4 * self.along * (1 - self.along))

    def curves(self, batch: Batch, along: Batch | None = None) -> tuple[Batch, Batch, Batch]:
        """x, upper y and lower y at positions along the lens, each (candidates, positions)."""
        at = self.along if along is None else along
        middle_x, middle_y, half, tilt, up, down = (batch[:, i : i + 1] for i in range(6))
        x = middle_x + half * (2 * at - 1)
        base = middle_y + tilt * (2 * at - 1)
        return (
            x,
            base + up * np.interp(at, *self._upper),
            base + down * np.interp(at, *self._lower),
        )


@dataclass(frozen=True, slots=True, eq=False)
class LensTerms:
    """What speaks for each lens of a batch, each (candidates,).

    Attributes:
        upper, lower: how much the edge map falls from inside to outside across each curve.
        corners: the same across the two corners, sideways.
        region: how much the region map is larger inside than in a ring around.
    """

    upper: Batch
    lower: Batch
    corners: Batch
    region: Batch


@dataclass(frozen=True, slots=True)
class LensScale:
    """Lengths at which a lens is examined, in face units.

    Attributes:
        edge: thickness of the strips on either side of a curve.
        ring: thickness of the ring around the lens.
        corner_in, corner_out: lengths of the boxes inside and outside a corner.
        corner_half: half their height.
        least: the least thickness of the lens.
    """

    edge: float
    ring: float
    corner_in: float
    corner_out: float
    corner_half: float
    least: float


def lens_terms(
    shape: LensShape, batch: Batch, edges: ColumnSums, regions: ColumnSums, scale: LensScale
) -> LensTerms:
    """Measure a batch of lenses on an edge map and a region map."""
    x, top, bottom = shape.curves(batch)
    bottom = np.maximum(bottom, top + scale.least)
    inside = np.minimum(scale.edge, (bottom - top) / 2)
    upper = edges.mean(x, top, top + inside) - edges.mean(x, top - scale.edge, top)
    lower = edges.mean(x, bottom - inside, bottom) - edges.mean(x, bottom, bottom + scale.edge)
    weight = shape.weight / shape.weight.sum()
    depth = (bottom - top) * weight
    filled = (regions.mean(x, top, bottom) * depth).sum(axis=1) / depth.sum(axis=1)
    around = (
        regions.mean(x, top - scale.ring, top) + regions.mean(x, bottom, bottom + scale.ring)
    ).mean(axis=1) / 2
    middle_x, middle_y, half, tilt = (batch[:, i] for i in range(4))
    corners = np.zeros(len(batch))
    for side in (-1, 1):
        corner, y = middle_x + side * half, middle_y + side * tilt
        inner = (corner - side * 0.005, corner - side * scale.corner_in)
        outer = (corner + side * 0.01, corner + side * scale.corner_out)
        corners += edges.box(*inner, y, scale.corner_half)
        corners -= edges.box(*outer, y, scale.corner_half)
    return LensTerms(
        (upper * weight).sum(axis=1), (lower * weight).sum(axis=1), corners, filled - around
    )
