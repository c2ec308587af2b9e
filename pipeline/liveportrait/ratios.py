"""How far eyes and lips are open, from 203 landmark points (specification 8.1). No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.types import Float32Array

POINTS: Final = 203
# (upper, lower, one corner, other corner)
_LEFT_EYE: Final = (6, 18, 0, 12)
_RIGHT_EYE: Final = (30, 42, 24, 36)
_LIPS: Final = (90, 102, 48, 66)


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
        """Ratios of (203, 2) points.

        Raises:
            ValueError: there are not 203 points.
        """
        array = np.asarray(points, np.float32)
        if array.shape != (POINTS, 2):
            raise ValueError(f"expected (203, 2) points, got {array.shape}")
        return cls(*(_ratio(array, *indices) for indices in (_LEFT_EYE, _RIGHT_EYE, _LIPS)))

    @property
    def eye_target(self) -> float:
        """The eye target that leaves the source as it is: the mean, to two decimals."""
        return round((self.left_eye + self.right_eye) / 2, 2)

    @property
    def lip_target(self) -> float:
        """The lip target that leaves the source as it is: the ratio, to two decimals."""
        return round(self.lips, 2)


def _ratio(points: Float32Array, upper: int, lower: int, corner: int, other: int) -> float:
    opening = np.linalg.norm(points[upper] - points[lower])
    width = np.linalg.norm(points[corner] - points[other])
    return float(opening / (width + 1e-6))
