"""What skin looks like around a feature, and how far pixels are from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.fitting.frame import Window
from pipeline.types import Float32Array

COLOURLESS: Final = 5.0  # mean chroma (CIELAB) of skin below which a picture counts as grey


def lab_image(patch: Float32Array, smooth_px: float) -> Float32Array:
    """CIELAB of a patch: (rows, columns, 3) float32 RGB in [0, 255] to L in [0, 100], a, b."""
    lab = cv2.cvtColor(patch / np.float32(255), cv2.COLOR_RGB2Lab)
    return blurred(np.asarray(lab, np.float32), smooth_px)


def blurred(values: Float32Array, sigma_px: float) -> Float32Array:
    """Gaussian blur with repeated edges."""
    return np.asarray(
        cv2.GaussianBlur(values, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE), np.float32
    )


@dataclass(frozen=True, slots=True, eq=False)
class Skin:
    """Skin as a colour that changes linearly over a window.

    Attributes:
        expected: (rows, columns, 3) float32 CIELAB that skin would have at each sample.
        spread: (3,) robust standard deviations of skin about it.
        chroma: mean distance of skin from grey.
    """

    expected: Float32Array
    spread: npt.NDArray[np.float64]
    chroma: float

    @property
    def coloured(self) -> bool:
        """Whether colour says anything: False in black-and-white pictures."""
        return self.chroma > COLOURLESS


def fit_skin(
    lab: Float32Array,
    window: Window,
    where: npt.NDArray[np.bool_],
    reach: tuple[float, float] | None = None,
) -> Skin:
    """Fit skin to the samples `where`, most of which should be skin.

    A plane per channel by iteratively reweighted least squares with Cauchy weights, so that hair,
    shadows and highlights among the samples count little.

    Args:
        lab: (rows, columns, 3) float32 CIELAB.
        window: where `lab` lies on the face.
        where: (rows, columns) bool.
        reach: beyond these |x| and y the plane goes on level, since extrapolation would run away.
    """
    x, y = window.grid()
    samples = lab[where].astype(np.float64)
    basis = np.column_stack([np.ones(len(samples)), x[where], y[where]])
    weight = np.ones(len(samples))
    for _ in range(8):
        plane = np.linalg.lstsq(basis * weight[:, None], samples * weight[:, None], rcond=None)[0]
        rest = samples - basis @ plane
        spread = 1.4826 * np.median(np.abs(rest), axis=0) + 1e-3
        weight = 1 / (1 + ((rest / (1.5 * spread + 1)) ** 2).sum(axis=1))
    if reach is not None:
        x, y = np.clip(x, -reach[0], reach[0]), np.clip(y, 0, reach[1])
    expected = np.stack([np.ones_like(x), x, y], axis=-1) @ plane.astype(np.float32)
    chroma = float(np.median(np.hypot(samples[:, 1], samples[:, 2])))
    return Skin(expected.astype(np.float32), spread, chroma)
