"""How a portrait is lit and coloured, for what it does not show itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, u8
from pipeline.mesh.layers import Tint
from pipeline.types import Float32Array, Image

_TYPICAL_SKIN: Final = f32([205, 160, 130])


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Light on one face.

    Attributes:
        level: (3,) float32, per channel, relative to a well-lit face.
        colour: 1 for a colour picture, 0 for a grey one.
    """

    level: Float32Array
    colour: float

    @classmethod
    def on_face(cls, face: Anatomy, texture: Image) -> Light:
        """Measured on both cheeks and the nose; `face` in pixels of `texture`."""
        spots = np.stack([face.soft["appleLeft"], face.soft["appleRight"], face.points[30]])
        r = max(int(0.06 * face.unit), 1)
        samples = []
        for x, y in np.maximum(spots.astype(int), 0):
            part = texture[max(y - r, 0) : y + r, max(x - r, 0) : x + r, :3].reshape(-1, 3)
            samples.append(np.median(part, axis=0) if len(part) else _TYPICAL_SKIN)
        skin = np.maximum(np.mean(samples, axis=0), 1.0)
        level = float(np.clip(skin.mean() / _TYPICAL_SKIN.mean(), 0.45, 1.1))
        tint = np.clip(skin / skin.mean() / (_TYPICAL_SKIN / _TYPICAL_SKIN.mean()), 0.7, 1.4)
        vivid = float(np.clip((skin.max() - skin.min()) / skin.max() / 0.25, 0.0, 1.0))
        return cls(f32(level * (1 - 0.3 * vivid + 0.3 * vivid * tint)), vivid)

    def tint(self, colour: Tint) -> Tint:
        """A tint of shadows, weaker in paler pictures and none in grey ones."""
        r, g, b = (1.0 + (share - 1.0) * self.colour for share in colour)
        return r, g, b

    def on(self, colour: Float32Array) -> Image:
        """A colour (..., 3) as it looks in this light, uint8."""
        grey = colour.mean(axis=-1, keepdims=True)
        return u8((grey + (colour - grey) * self.colour) * self.level)
