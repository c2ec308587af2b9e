"""From a photo to the square that the networks see, and back (specification 5). No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, Self

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.landmark_sets import ANCHORS
from pipeline.types import Float32Array, Image

CROP_PX: Final = 512
INPUT_PX: Final = 256
MAX_SIDE_PX: Final = 1280
_FEATHER_PX: Final = 16

_Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Framing:
    """How a crop lies around a face.

    Attributes:
        scale: side of the crop over the larger side of the points' box.
        shift: of the crop's centre along the face's down axis, in crop sides.
        size_px: side of the crop.
        upright: turn the face upright.
    """

    scale: float
    shift: float
    size_px: int
    upright: bool = True


# Table of specification 5.4; the driving crop is the box over all frames, not turned.
SOURCE: Final = Framing(2.3, -0.125, CROP_PX)
EDITOR_SOURCE: Final = Framing(2.5, -0.125, CROP_PX)
LANDMARKS_INPUT: Final = Framing(1.5, -0.1, 224)
DRIVING: Final = Framing(2.2, -0.1, CROP_PX, upright=False)


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square cut out of an image.

    Attributes:
        to_crop: (3, 3) float32, pixels of the image to pixels of the crop.
        to_image: its inverse.
        size_px: side of the crop.
    """

    to_crop: Float32Array
    to_image: Float32Array
    size_px: int

    @classmethod
    def around(cls, points: npt.ArrayLike, framing: Framing) -> Self:
        """The crop that frames a face's (N, 2) points; N is 68, 106 or 203.

        Raises:
            ValueError: there is no such set of points, or they fall together.
        """
        array = np.asarray(points, np.float64)
        if array.ndim != 2 or array.shape[1] != 2 or len(array) not in ANCHORS:
            raise ValueError(f"expected 68, 106 or 203 points (x, y), got shape {array.shape}")
        centre, side, angle = _placed(array, framing)
        k = framing.size_px / side
        c, s = (k * np.cos(angle), k * np.sin(angle)) if framing.upright else (k, 0.0)
        half = framing.size_px / 2
        x, y = centre
        to_crop = np.array(
            [[c, s, half - (c * x + s * y)], [-s, c, half - (-s * x + c * y)], [0, 0, 1]]
        ).astype(np.float32)
        return cls(to_crop, np.linalg.inv(to_crop).astype(np.float32), framing.size_px)

    def cut(self, image: Image) -> Image:
        """(size, size, 3) of the image: bilinear, black outside."""
        return _warped(image, self.to_crop, (self.size_px, self.size_px))

    def points_in_image(self, points: npt.ArrayLike) -> Float32Array:
        """(N, 2) pixels of the crop to pixels of the image."""
        array = np.asarray(points, np.float32)
        return array @ self.to_image[:2, :2].T + self.to_image[:2, 2]


def _placed(points: _Points, framing: Framing) -> tuple[_Points, float, float]:
    """Centre, side and angle of the crop (steps 1 to 4)."""
    left_eye, right_eye, mouth = ANCHORS[len(points)].of(points)
    eyes = (left_eye + right_eye) / 2
    down = mouth - eyes
    length = float(np.linalg.norm(down))
    down = down / length if length > 1e-3 else np.array([0.0, 1.0])
    right = np.array([down[1], -down[0]])
    angle = float(np.arccos(np.clip(right[0], -1.0, 1.0)))
    if right[1] < 0:
        angle = -angle
    axes = np.stack((right, down)) if framing.upright else np.eye(2)
    mean = points.mean(0)
    turned = (points - mean) @ axes.T
    low, high = turned.min(0), turned.max(0)
    side = framing.scale * float((high - low).max())
    if not (np.isfinite(side) and side > 0):
        raise ValueError("the points fall together")
    offset = (low + high) / 2 + np.array([0.0, framing.shift * side])
    return mean + offset @ axes, side, angle


def limit_size(image: Image, multiple: int = 2) -> Image:
    """At most 1280 pixels a side, both sides multiples of `multiple` (specification 5.1)."""
    height, width = limited_sides(*image.shape[:2])
    if (height, width) != image.shape[:2]:
        image = np.asarray(cv2.resize(image, (width, height)), np.uint8)
    return image[: height - height % multiple, : width - width % multiple]


def limited_sides(height: int, width: int) -> tuple[int, int]:
    """Height and width of an image whose larger side is at most 1280 pixels."""
    larger = max(height, width)
    if larger <= MAX_SIDE_PX:
        return height, width
    return max(1, height * MAX_SIDE_PX // larger), max(1, width * MAX_SIDE_PX // larger)


def network_input(crop: Image) -> Float32Array:
    """(1, 3, 256, 256) float32 in [0, 1] from a square uint8 crop, by area interpolation."""
    small = crop
    if crop.shape[:2] != (INPUT_PX, INPUT_PX):
        small = np.asarray(
            cv2.resize(crop, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA), np.uint8
        )
    planes = np.ascontiguousarray(small.transpose(2, 0, 1)[None], np.float32)
    return planes / np.float32(255)


@cache
def mask_template() -> Image:
    """(512, 512) uint8: a rounded square with a linear feather of 16 pixels.

    floor(255/16 max(0, 16 - hypot(16 - a, 16 - b))) with a = min(x, 512 - x, 16), b likewise
    (specification 5.6).
    """
    index = np.arange(CROP_PX)
    near = _FEATHER_PX - np.minimum(np.minimum(index, CROP_PX - index), _FEATHER_PX)
    distance = np.hypot(near[:, None], near[None, :])
    level = np.floor(255 / _FEATHER_PX * np.maximum(0, _FEATHER_PX - distance))
    mask: Image = level.astype(np.uint8)
    mask.flags.writeable = False
    return mask


class PasteBack:
    """Puts a drawn crop back into its image, touching only the region that can change.

    Args:
        image: (H, W, 3) uint8, what the crop was cut from; kept.
        crop: where it was cut.
    """

    def __init__(self, image: Image, crop: Crop) -> None:
        height, width = image.shape[:2]
        mask = _warped(mask_template(), crop.to_image, (width, height))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        self._image = image
        self._region = (slice(0, 0), slice(0, 0))
        if len(rows):
            self._region = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        top, left = (part.start for part in self._region)
        moved = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float32)
        self._matrix = (moved @ crop.to_image).astype(np.float32)
        self._mask = (mask[self._region] / np.float32(255))[..., None]
        self._kept = image[self._region] * (1 - self._mask)

    @property
    def bytes(self) -> int:
        """Memory held besides the image."""
        return int(self._mask.nbytes + self._kept.nbytes)

    def __call__(self, drawn: Image) -> Image:
        """A copy of the image with the (512, 512, 3) uint8 crop in its place."""
        out = self._image.copy()
        height, width = self._mask.shape[:2]
        if height and width:
            warped = _warped(drawn, self._matrix, (width, height))
            mixed = self._mask * warped + self._kept
            out[self._region] = np.clip(mixed, 0, 255).astype(np.uint8)
        return out


def _warped(image: Image, matrix: Float32Array, size_px: tuple[int, int]) -> Image:
    warped = cv2.warpAffine(
        image, matrix[:2], size_px, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(warped, np.uint8)
