"""Curves through landmarks: lip edges, the jaw line."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.mesh.arrays import f32
from pipeline.types import Float32Array

UPPER_LIP: Final = (60, 61, 62, 63, 64)
LOWER_LIP: Final = (60, 67, 66, 65, 64)
"""Landmarks along the inner edges of the lips, from the image's left."""

LIP_SPOTS: Final = 9
"""Further spots along each inner edge: lips only close without gaps if they are led closely."""


def along(x: npt.ArrayLike, knots: npt.ArrayLike, values: npt.ArrayLike) -> Float32Array:
    """A cubic through (knots, values) without overshoot, constant outside: shape of `x`.

    Fritsch and Carlson (SIAM J. Numer. Anal. 17, 1980), harmonic-mean tangents. Knots may come
    in any order.
    """
    order = np.argsort(knots)
    xs = np.asarray(knots, np.float64)[order]
    ys = np.asarray(values, np.float64)[order]
    h = np.maximum(np.diff(xs), 1e-6)
    slope = np.diff(ys) / h
    same = slope[:-1] * slope[1:] > 0
    total = np.where(same, slope[:-1] + slope[1:], 1.0)
    inner = np.where(same, 2 * slope[:-1] * slope[1:] / total, 0.0)
    first, last = 1.5 * slope[0] - 0.5 * inner[0], 1.5 * slope[-1] - 0.5 * inner[-1]
    tangent = np.concatenate([[first], inner, [last]])
    at = np.clip(np.asarray(x, np.float64), xs[0], xs[-1])
    i = np.clip(np.searchsorted(xs, at, side="right") - 1, 0, len(h) - 1)
    t = (at - xs[i]) / h[i]
    return f32(
        (1 + 2 * t) * (1 - t) ** 2 * ys[i]
        + t * (1 - t) ** 2 * h[i] * tangent[i]
        + t * t * (3 - 2 * t) * ys[i + 1]
        - t * t * (1 - t) * h[i] * tangent[i + 1]
    )


def lip_edge(at: Float32Array, indices: tuple[int, ...], x: npt.ArrayLike) -> Float32Array:
    """Height of a lip's inner edge at abscissae `x`; landmarks `at` (68, 2) in face units."""
    points = at[list(indices)]
    return along(x, points[:, 0], points[:, 1])


def lip_abscissae(at: Float32Array) -> Float32Array:
    """Where the further lip spots lie between the corners, (LIP_SPOTS,) in face units."""
    inner = np.linspace(at[60, 0], at[64, 0], LIP_SPOTS + 2)
    return f32(inner[1:-1])


def smooth_line(points: Float32Array, pieces: int = 8) -> Float32Array:
    """A Catmull-Rom curve through (n, 2) points, `pieces` between neighbours."""
    before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    padded = np.concatenate([before, points, after])
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    parts = [
        0.5
        * (
            2 * b
            + (c - a) * t
            + (2 * a - 5 * b + 4 * c - d) * t**2
            + (3 * b - a - 3 * c + d) * t**3
        )
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return f32(np.concatenate([*parts, points[-1:]]))
