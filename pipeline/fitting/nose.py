"""Bridge, nostrils and base of the nose."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.fitting.appearance import blurred, lab_image
from pipeline.fitting.curves import Batch, ColumnSums, Prior, climb, grid
from pipeline.fitting.frame import FaceFrame, Window
from pipeline.types import Float32Array, Image

_PX: Final = 64.0
_WINDOW: Final = Window(-0.6, 0.3, 0.6, 1.0, _PX)

# Between eyes and mouth: x of the base as a share of the mouth's, height of the nostrils as a
# share of the mouth's; then half the distance of the nostrils.
_X_SHARE: Final = 0.6
_Y_SHARE: Final = 0.59
_SPREADS: Final = (0.05, 0.045, 0.02)
_NOSTRIL_APART: Final = 0.12
_NOSTRIL_HALF: Final = 0.045

_BASE: Final = ((-0.215, 0.0), (-0.11, 0.035), (0.0, 0.06), (0.11, 0.035), (0.215, 0.0))
"""Points 31-35 from the middle of the nostrils."""
_TIP_ABOVE: Final = 0.09
_ROOT_Y: Final = 0.02


def fit_nose(image: Image, frame: FaceFrame, mouth: Float32Array) -> Float32Array:
    """Fit the nose.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face.
        mouth: (2,) middle of the mouth, face units.

    Returns:
        (9, 2) float32 face units, iBUG points 27-35.
    """
    light = lab_image(frame.sample(image, _WINDOW), 0.015 * _PX)[..., 0]
    deeper = blurred(light, 0.2 * _PX) - light
    spread = np.sqrt(blurred(deeper**2, 0.35 * _PX)) + 2
    sums = ColumnSums(np.clip(deeper / spread, -1.5, 2.5), _WINDOW)
    mean = (_X_SHARE * float(mouth[0]), _Y_SHARE * float(mouth[1]), _NOSTRIL_APART)
    prior = Prior.of(*((m, s, m - 2 * s, m + 2 * s) for m, s in zip(mean, _SPREADS, strict=True)))

    def score(batch: Batch) -> Batch:
        x, y, half = batch.T
        sides = [
            sums.box(x + side * half - _NOSTRIL_HALF, x + side * half + _NOSTRIL_HALF, y, 0.03)
            for side in (-1, 1)
        ]
        under = sums.box(x - 0.2, x + 0.2, y + 0.16, 0.04)  # the lit upper lip
        total: Batch = (
            0.5 * (sides[0] + sides[1]) + 0.5 * np.minimum(*sides) - 0.4 * under
            - 0.3 * prior.cost(batch)
        )  # fmt: skip
        return total

    around = [
        np.linspace(m - 2 * s, m + 2 * s, 9).tolist() for m, s in zip(mean, _SPREADS, strict=True)
    ]
    starts = grid(*around)
    best, _ = climb(score, starts[[int(np.argmax(score(starts)))]], prior, (0.02, 0.02, 0.01), 4)
    return _points(float(best[0]), float(best[1]))


def _points(x: float, y: float) -> Float32Array:
    tip = np.array([x, y - _TIP_ABOVE])
    root = np.array([0.0, _ROOT_Y])
    bridge = root + (tip - root) * np.linspace(0, 1, 4)[:, None]
    return np.concatenate([bridge, np.array(_BASE) + np.array([x, y])]).astype(np.float32)
