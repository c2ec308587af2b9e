"""A face's own coordinates: origin between the eyes, x towards the image's right eye, unit their
distance.

Everything that is measured on a face is measured here, so that roll, size and place of the face
in the picture play no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Float32Array, Image


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle in face units that is sampled with `px` pixels per unit.

    Attributes:
        left, top, right, bottom: face units.
        px: sampling density.
    """

    left: float
    top: float
    right: float
    bottom: float
    px: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (
            round((self.bottom - self.top) * self.px) + 1,
            round((self.right - self.left) * self.px) + 1,
        )

    def moved(self, x: float, y: float) -> Window:
        """The same window elsewhere on the face."""
        return Window(self.left + x, self.top + y, self.right + x, self.bottom + y, self.px)

    def mirrored(self) -> Window:
        """The window as a mirror beside it shows it."""
        return Window(-self.right, self.top, -self.left, self.bottom, self.px)

    def pixels(self, points: npt.ArrayLike) -> Float32Array:
        """Face units to pixels of the sampled window, (..., 2)."""
        return ((np.asarray(points) - (self.left, self.top)) * self.px).astype(np.float32)

    def units(self, pixels: npt.ArrayLike) -> Float32Array:
        """Pixels of the sampled window to face units, (..., 2)."""
        return (np.asarray(pixels) / self.px + (self.left, self.top)).astype(np.float32)

    def grid(self) -> tuple[Float32Array, Float32Array]:
        """Face coordinates of every sample: x and y, each of `shape`."""
        rows, columns = np.indices(self.shape, np.float32)
        return columns / np.float32(self.px) + np.float32(self.left), rows / np.float32(
            self.px
        ) + np.float32(self.top)


@dataclass(frozen=True, slots=True)
class FaceFrame:
    """Where a face's coordinates lie in a picture.

    Attributes:
        x, y: the point between the eyes, pixels of the picture.
        unit: distance of the eyes, pixels.
        roll: angle of the line through the eyes, radians, clockwise as seen.
    """

    x: float
    y: float
    unit: float
    roll: float

    @classmethod
    def from_eyes(cls, left: npt.ArrayLike, right: npt.ArrayLike) -> Self:
        """The frame whose eyes, left and right in the picture, have these centres."""
        (x0, y0), (x1, y1) = np.asarray(left, float), np.asarray(right, float)
        return cls(
            (x0 + x1) / 2, (y0 + y1) / 2, float(np.hypot(x1 - x0, y1 - y0)),
            float(np.arctan2(y1 - y0, x1 - x0)),
        )  # fmt: skip

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """(2, 3) affine matrix from face units to pixels of the picture."""
        cos, sin = np.cos(self.roll) * self.unit, np.sin(self.roll) * self.unit
        return np.array([[cos, -sin, self.x], [sin, cos, self.y]])

    def to_image(self, points: npt.ArrayLike) -> Float32Array:
        """Face units to pixels of the picture, (N, 2)."""
        matrix = self.matrix
        return (np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)

    def to_face(self, points: npt.ArrayLike) -> Float32Array:
        """Pixels of the picture to face units, (N, 2)."""
        matrix = self.matrix
        inverse = np.linalg.inv(matrix[:, :2])
        return ((np.asarray(points) - matrix[:, 2]) @ inverse.T).astype(np.float32)

    def sample(self, image: Image, window: Window) -> Float32Array:
        """Sample a window of the face, level, smoothed first where it shrinks.

        Args:
            image: (H, W, 3) uint8 RGB.
            window: what to sample; edges of the picture are repeated outside it.

        Returns:
            (rows, columns, 3) float32 RGB in [0, 255].
        """
        matrix = self.matrix
        to_image = np.column_stack(
            [matrix[:, :2] / window.px, matrix[:, :2] @ (window.left, window.top) + matrix[:, 2]]
        )
        rows, columns = window.shape
        source, to_image = _shrunk(image, to_image, (columns, rows), self.unit / window.px)
        return np.asarray(
            cv2.warpAffine(
                source,
                to_image,
                (columns, rows),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.float32,
        )


def _shrunk(
    image: Image, to_image: npt.NDArray[np.float64], size: tuple[int, int], step: float
) -> tuple[Float32Array, npt.NDArray[np.float64]]:
    """The part of the image under a sampling, area-averaged so that `step` becomes at most 1.5.

    Returns it as float32 with the sampling's matrix into it.
    """
    columns, rows = size
    corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]], float)
    reached = corners @ to_image[:, :2].T + to_image[:, 2]
    margin = np.ceil(step) + 2
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(reached.min(axis=0) - margin), 0, (width - 1, height - 1))
    right, bottom = np.clip(
        np.ceil(reached.max(axis=0) + margin), (left + 1, top + 1), (width, height)
    )
    part = image[int(top) : int(bottom), int(left) : int(right)].astype(np.float32)
    matrix = to_image.copy()
    matrix[:, 2] -= (left, top)
    if step <= 1.5:
        return part, matrix
    target = np.maximum(np.round(np.array(part.shape[1::-1]) / step), 1).astype(int)
    scale = target / np.array(part.shape[1::-1])
    small = np.asarray(
        cv2.resize(part, tuple(int(side) for side in target), interpolation=cv2.INTER_AREA),
        np.float32,
    )
    matrix[:, 2] = (matrix[:, 2] + 0.5) * scale - 0.5
    matrix[:, :2] *= scale[:, None]
    return small, matrix
