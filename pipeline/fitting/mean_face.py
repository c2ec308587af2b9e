"""The average frontal face, as data.

Coordinates are face units (`frame`): origin between the eyes, x towards the image's right eye,
y down, the distance of the eyes is 1. Proportions follow adult anthropometry (Farkas 1994,
"Anthropometry of the Head and Face": eye fissure 0.47, mouth 0.8 to 0.86, eyes to mouth 1.05
to 1.1, chin 1.8 of the distance of the pupils), with left and right made equal.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.types import Float32Array

_JAW: Final = (
    (-1.06, 0.05), (-1.05, 0.32), (-1.01, 0.59), (-0.95, 0.86), (-0.85, 1.12), (-0.69, 1.36),
    (-0.48, 1.57), (-0.24, 1.73),
)  # fmt: skip
_CHIN: Final = ((0.0, 1.79),)


def _both_sides(
    left: tuple[tuple[float, float], ...], middle: tuple[tuple[float, float], ...] = ()
) -> npt.NDArray[np.float64]:
    """Points of the image's left side, the middle, and the same mirrored."""
    one = np.array(left)
    parts = [one, np.array(middle).reshape(-1, 2), one[::-1] * (-1, 1)]
    return np.concatenate(parts)


MEAN_JAW: Final = _both_sides(_JAW, _CHIN).astype(np.float32)
"""(17, 2) float32: iBUG points 0-16 of the average face."""


# A coarse picture of a face, as sums of Gaussians: x (mirrored unless 0), y, spread in x and y,
# brightness against skin. Eye sockets, brows, cheeks, bridge and base of the nose, mouth, chin,
# forehead, hair or background beside the face, jaw.
_BLOBS: Final = (
    (0.50, 0.00, 0.17, 0.075, -1.00), (0.50, -0.20, 0.24, 0.07, -0.50),
    (0.44, 0.42, 0.20, 0.17, 0.60), (0.00, 0.30, 0.09, 0.22, 0.60),
    (0.00, 0.70, 0.20, 0.08, -0.55), (0.00, 1.10, 0.34, 0.07, -0.80),
    (0.00, 1.50, 0.30, 0.10, 0.35), (0.00, -0.50, 0.50, 0.15, 0.35),
    (1.05, 0.30, 0.12, 0.60, -0.40), (0.75, 0.80, 0.15, 0.20, 0.20),
)  # fmt: skip


def coarse_face(x: Float32Array, y: Float32Array) -> Float32Array:
    """Brightness of the coarse face at face coordinates `x` and `y`, of their shape."""
    total = np.zeros(x.shape, np.float32)
    for centre_x, centre_y, spread_x, spread_y, level in _BLOBS:
        for side in (-1, 1) if centre_x else (1,):
            across = (x - side * centre_x) / spread_x
            along = (y - centre_y) / spread_y
            total += level * np.exp(-0.5 * (across**2 + along**2))
    return total
