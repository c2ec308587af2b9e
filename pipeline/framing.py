"""How a picture fills a frame of other proportions; the same for every renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import cv2
import numpy as np

from pipeline.types import Image, Portrait


@dataclass(frozen=True, slots=True)
class Framing:
    """A picture scaled without distortion and cut to a frame.

    Attributes:
        width, height: of the frame, in pixels.
        left, top, across, down: the part of the picture that is shown, in its pixels.
    """

    width: int
    height: int
    left: int
    top: int
    across: int
    down: int

    @classmethod
    def of(cls, portrait: Portrait, size_px: tuple[int, int]) -> Self:
        """The largest part of the portrait with the frame's proportions, the face in its middle."""
        points = portrait.landmarks.points
        x, y = (points.min(axis=0) + points.max(axis=0)) / 2
        return cls._around((float(x), float(y)), portrait.image.shape[:2], size_px)

    @classmethod
    def middle(cls, shape: tuple[int, int], size_px: tuple[int, int]) -> Self:
        """The largest part in the middle of a (height, width) with the frame's proportions."""
        return cls._around((shape[1] / 2, shape[0] / 2), shape, size_px)

    @classmethod
    def _around(
        cls, centre: tuple[float, float], shape: tuple[int, int], size_px: tuple[int, int]
    ) -> Self:
        width, height = size_px
        h, w = shape
        scale = max(width / w, height / h)
        across = min(max(1, round(width / scale)), w)
        down = min(max(1, round(height / scale)), h)
        left = round(float(np.clip(centre[0] - across / 2, 0, w - across)))
        top = round(float(np.clip(centre[1] - down / 2, 0, h - down)))
        return cls(width, height, left, top, across, down)

    @property
    def scale(self) -> float:
        """Frame pixels per pixel of the picture."""
        return self.width / self.across

    def cut(self, image: Image) -> Image:
        """(height, width, 3) uint8: the part of the picture that is shown, at the frame's size."""
        shown = image[self.top : self.top + self.down, self.left : self.left + self.across]
        return resized(shown, self.width, self.height)


def resized(image: Image, width: int, height: int) -> Image:
    """Area averaging does not alias when shrinking; cubic stays crisp when enlarging."""
    shrinks = width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cast(Image, cv2.resize(image, (width, height), interpolation=method))
