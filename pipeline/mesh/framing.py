"""From the portrait's pixels to the frame's: scale, crop and texture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from pipeline.mesh.anatomy import Anatomy
from pipeline.types import Image, Portrait


@dataclass(frozen=True, slots=True)
class Framing:
    """How a portrait fills a frame: scaled without distortion, cropped round the face.

    Attributes:
        width, height: of the frame, in pixels.
        left, top, across, down: the part of the portrait that is shown, in its pixels.
    """

    width: int
    height: int
    left: int
    top: int
    across: int
    down: int

    @classmethod
    def of(cls, portrait: Portrait, size_px: tuple[int, int]) -> Framing:
        """The largest part of the portrait with the frame's proportions, the face in its middle."""
        width, height = size_px
        h, w = portrait.image.shape[:2]
        scale = max(width / w, height / h)
        across, down = min(round(width / scale), w), min(round(height / scale), h)
        points = portrait.landmarks.points
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        left = round(float(np.clip(centre[0] - across / 2, 0, w - across)))
        top = round(float(np.clip(centre[1] - down / 2, 0, h - down)))
        return cls(width, height, left, top, across, down)

    @property
    def scale(self) -> float:
        """Frame pixels per portrait pixel."""
        return self.width / self.across

    def face(self, portrait: Portrait, oversampling: int) -> Anatomy:
        """The face in pixels of the frame, or of a texture `oversampling` times as large.

        Raises:
            RenderError: the landmarks do not describe a face that can be animated.
        """
        scale = self.scale * oversampling
        return Anatomy.of(portrait.landmarks, scale, (-self.left * scale, -self.top * scale))

    def still(self, portrait: Portrait) -> Image:
        """The portrait itself at the frame's size, (height, width, 3) uint8 RGB."""
        shown = portrait.image[self.top : self.top + self.down, self.left : self.left + self.across]
        return _resized(shown, self.width, self.height)

    def texture(self, portrait: Portrait, oversampling: int) -> Image:
        """What frames are sampled from: `oversampling` times the frame, averaging to `still`."""
        shown = portrait.image[self.top : self.top + self.down, self.left : self.left + self.across]
        width, height = self.width * oversampling, self.height * oversampling
        texture = _resized(shown, width, height).astype(np.float32)
        wanted = self.still(portrait).astype(np.float32)
        for _ in range(2):  # iterative back-projection (Irani and Peleg 1991)
            error = wanted - cv2.resize(
                texture, (self.width, self.height), interpolation=cv2.INTER_AREA
            )
            texture += cv2.resize(error, (width, height), interpolation=cv2.INTER_NEAREST)
            np.clip(texture, 0, 255, out=texture)
        return np.rint(texture).astype(np.uint8)

    def base(self, texture: Image) -> Image:
        """The frame that shows the texture unmoved."""
        return cast(
            Image,
            cv2.resize(texture, (self.width, self.height), interpolation=cv2.INTER_AREA),
        )


def _resized(image: Image, width: int, height: int) -> Image:
    shrinks = width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cast(Image, cv2.resize(image, (width, height), interpolation=method))
