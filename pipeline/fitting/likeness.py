"""How much a whole face looks like the coarse face, laid on by its eyes and its mouth.

Two eyes and a mouth fix an affine map, which is what a face seen a little from the side or from
above undergoes. So one pair of eyes is judged with the mouth wherever the face may have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from pipeline.fitting.appearance import blurred
from pipeline.fitting.frame import FaceFrame, Window
from pipeline.fitting.mean_face import coarse_face
from pipeline.types import Float32Array, Image

_WINDOW: Final = Window(-1.0, -0.75, 1.0, 2.0, 16.0)
_MEAN_MOUTH_Y: Final = 1.1  # of the coarse face

# Mouths that are tried, face units; how far they usually lie from the average one, and what
# correlation that costs.
_X: Final = np.linspace(-0.4, 0.4, 9)
_Y: Final = np.linspace(0.8, 1.6, 17)
_SPREADS: Final = (0.14, 0.16)
_COST: Final = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """Correlation of a face with the coarse face, -1 to 1, for every mouth that is tried."""

    values: Float32Array

    @property
    def best(self) -> float:
        """For the best mouth, less what an unusual one costs."""
        usual = ((_X / _SPREADS[0]) ** 2)[:, None] + ((_Y - _MEAN_MOUTH_Y) / _SPREADS[1]) ** 2
        return float((self.values - 0.5 * _COST * usual).max())

    def at(self, mouth: Float32Array) -> float:
        """For the tried mouth nearest to (2,) `mouth`, face units."""
        column, row = (
            int(np.abs(tried - place).argmin())
            for tried, place in zip((_X, _Y), mouth, strict=True)
        )
        return float(self.values[column, row])


def likeness(image: Image, frame: FaceFrame) -> Likeness:
    """Compare the face in a frame with the coarse face, both without broad shading.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face.
    """
    grey = np.asarray(frame.sample(image, _WINDOW).mean(axis=2), np.float32)
    seen = _without_shading(blurred(grey, 0.05 * _WINDOW.px)).ravel()
    faces, weights = _templates()
    count = weights.sum(axis=1)
    mean = weights @ seen / count
    power = np.maximum(weights @ seen**2 - count * mean**2, 0)
    values = faces @ seen / np.sqrt(power + 1e-6)
    return Likeness(values.reshape(len(_X), len(_Y)).astype(np.float32))


@cache
def _templates() -> tuple[Float32Array, Float32Array]:
    """For each mouth the coarse face, of mean 0 and power 1 within its oval, and the oval.

    Each (mouths, samples) float32.
    """
    x, y = _WINDOW.grid()
    faces, weights = [], []
    for mouth_x in _X:
        for mouth_y in _Y:
            along = np.where(y > 0, y * (_MEAN_MOUTH_Y / mouth_y), y)
            across = x - mouth_x * np.clip(along / _MEAN_MOUTH_Y, 0, 1.3)
            along, across = along.astype(np.float32), across.astype(np.float32)
            weight = (((across / 0.9) ** 2 + ((along - 0.45) / 1.15) ** 2) < 1).astype(np.float32)
            face = _without_shading(coarse_face(across, along))
            face = (face - (face * weight).sum() / weight.sum()) * weight
            faces.append((face / np.sqrt((face**2).sum())).ravel())
            weights.append(weight.ravel())
    return np.array(faces, np.float32), np.array(weights, np.float32)


def _without_shading(grey: Float32Array) -> Float32Array:
    detail = grey - blurred(grey, 0.5 * _WINDOW.px)
    spread = np.sqrt(blurred(detail**2, 0.5 * _WINDOW.px))
    return np.asarray(detail / (spread + 0.3 * spread.mean() + 1e-3), np.float32)
