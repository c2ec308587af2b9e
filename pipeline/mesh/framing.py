"""From the portrait's pixels to the frame's: scale, crop and texture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from pipeline import framing
from pipeline.framing import resized
from pipeline.mesh.anatomy import Anatomy
from pipeline.types import Image, Portrait


@dataclass(frozen=True, slots=True)
class Framing(framing.Framing):
    """How a portrait fills a frame, and what the rig is made of there."""

    def face(self, portrait: Portrait, oversampling: int) -> Anatomy:
        """The face in pixels of the frame, or of a texture `oversampling` times as large.

        Raises:
            RenderError: the landmarks do not describe a face that can be animated.
        """
        scale = self.scale * oversampling
        return Anatomy.of(portrait.landmarks, scale, (-self.left * scale, -self.top * scale))

    def still(self, portrait: Portrait) -> Image:
        """The portrait itself at the frame's size, (height, width, 3) uint8 RGB."""
        return self.cut(portrait.image)

    def texture(self, portrait: Portrait, oversampling: int) -> Image:
        """What frames are sampled from: `oversampling` times the frame, averaging to `still`."""
        shown = portrait.image[self.top : self.top + self.down, self.left : self.left + self.across]
        width, height = self.width * oversampling, self.height * oversampling
        texture = resized(shown, width, height).astype(np.float32)
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
