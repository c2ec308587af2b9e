"""How far eyes and lips are open, from landmarks. No torch.

From 203 points as in specification 8.1. From the 68 points of the landmark path, which stands in
where the 203-point network is missing, with the same meaning: opening over width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.types import Float32Array

# Number of points to left eye, right eye and lips: pairs of upper and lower points, and corners.
_Gap = tuple[tuple[tuple[int, int], ...], tuple[int, int]]
_GAPS: Final[dict[int, tuple[_Gap, _Gap, _Gap]]] = {
    203: ((((6, 18),), (0, 12)), (((30, 42),), (24, 36)), (((90, 102),), (48, 66))),
    68: (
        (((37, 41), (38, 40)), (36, 39)),
        (((43, 47), (44, 46)), (42, 45)),
        (((62, 66),), (48, 54)),
    ),
}


@dataclass(frozen=True, slots=True)
class OpenRatios:
    """Opening over width, 0 when closed.

    Attributes:
        left_eye, right_eye: the eye at the image's left, at its right.
        lips: the inner lips over the mouth's width.
    """

    left_eye: float
    right_eye: float
    lips: float

    @classmethod
    def of(cls, points: npt.ArrayLike) -> Self:
        """Ratios of (203, 2) or (68, 2) points.

        Raises:
            ValueError: there is another number of points.
        """
        array = np.asarray(points, np.float32)
        if array.ndim != 2 or array.shape[1] != 2 or len(array) not in _GAPS:
            raise ValueError(f"expected 203 or 68 points (x, y), got shape {array.shape}")
        return cls(*(_ratio(array, pairs, corners) for pairs, corners in _GAPS[len(array)]))

    @property
    def eye_target(self) -> float:
        """The eye target that leaves the source as it is: the mean, to two decimals."""
        return round((self.left_eye + self.right_eye) / 2, 2)

    @property
    def lip_target(self) -> float:
        """The lip target that leaves the source as it is: the ratio, to two decimals."""
        return round(self.lips, 2)


def _ratio(
    points: Float32Array, pairs: tuple[tuple[int, int], ...], corners: tuple[int, int]
) -> float:
    openings = [np.linalg.norm(points[upper] - points[lower]) for upper, lower in pairs]
    width = np.linalg.norm(points[corners[0]] - points[corners[1]])
    return float(np.mean(openings) / (width + 1e-6))
