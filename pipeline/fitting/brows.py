"""Brows: dark bands above the eyes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.fitting.appearance import blurred, lab_image
from pipeline.fitting.curves import Batch, ColumnSums, Prior, climb, grid
from pipeline.fitting.frame import FaceFrame, Window
from pipeline.types import Float32Array, Image

_PX: Final = 110.0
_WINDOW: Final = Window(-0.62, -0.62, 0.55, 0.10, _PX)  # about the eye, outer end at the left

# Outer end, inner end (x from the eye), height of either (negative is up), arch over the chord.
_PRIOR: Final = Prior.of(
    (-0.36, 0.05, -0.50, -0.22),
    (0.28, 0.05, 0.12, 0.40),
    (-0.20, 0.06, -0.40, -0.05),
    (-0.235, 0.05, -0.42, -0.10),
    (0.10, 0.04, -0.02, 0.22),
)
_ALONG: Final = np.linspace(0, 1, 41)
_HALF_WIDTHS: Final = (0.022, 0.045)  # of thin and of bushy brows
_BESIDE: Final = 0.05  # strips of skin above and below that a brow is compared with
_NO_BROW: Final = 0.12  # contrast that skin reaches by chance; a brow ends where it falls below


@dataclass(frozen=True, slots=True, eq=False)
class BrowFit:
    """One brow.

    Attributes:
        points: (5, 2) float32 face units, in iBUG order for its side.
        contrast: how far it stands out, 0.2 and more where there is one.
    """

    points: Float32Array
    contrast: float


def fit_brows(image: Image, frame: FaceFrame) -> tuple[BrowFit, BrowFit]:
    """Fit both brows, the one at the image's left first.

    Where one shows and the other does not (hair, glasses), the other is made its mirror image;
    where none shows, both are average.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face.
    """
    fits = [_fit_side(image, frame, side) for side in (-1, 1)]
    seen = [contrast >= _SEEN for _, contrast in fits]
    curves = []
    for (curve, _), (other, _), visible, other_visible in zip(
        fits, fits[::-1], seen, seen[::-1], strict=True
    ):
        if visible:
            curves.append(curve)
        else:
            curves.append(other if other_visible else _PRIOR.mean)
    left, right = (
        BrowFit(_points(curve, side), contrast)
        for curve, side, (_, contrast) in zip(curves, (-1, 1), fits, strict=True)
    )
    return left, right


_SEEN: Final = 0.2


def _fit_side(image: Image, frame: FaceFrame, side: int) -> tuple[Batch, float]:
    window = _WINDOW if side < 0 else _WINDOW.mirrored()
    patch = frame.sample(image, window.moved(side * 0.5, 0.0))
    if side > 0:
        patch = np.ascontiguousarray(patch[:, ::-1])
    sums = ColumnSums(_lightness(patch), _WINDOW)

    def contrast(batch: Batch) -> Batch:
        x, y = _curve(batch, _ALONG)
        span = batch[:, 1:2] - batch[:, 0:1]
        widths = []
        for half in _HALF_WIDTHS:
            on = sums.mean(x, y - half, y + half)
            above = sums.mean(x, y - half - _BESIDE, y - half) - on
            below = sums.mean(x, y + half, y + half + _BESIDE) - on
            both = np.clip(np.minimum(above, below), -1, 1.5)
            either = np.clip(above + below, -1, 3) * 0.15
            widths.append(((both + either - _NO_BROW) * span).mean(axis=1))
        best: Batch = np.maximum(*widths)
        return best

    def score(batch: Batch) -> Batch:
        return contrast(batch) - 0.02 * _PRIOR.cost(batch)

    starts = grid(
        (-0.40, -0.32),
        (0.22, 0.28),
        (-0.10, -0.16, -0.22, -0.28),
        (-0.16, -0.22, -0.28, -0.34),
        (0.05, 0.10, 0.15),
    )
    start = starts[[int(np.argmax(score(starts)))]]
    best, _ = climb(score, start, _PRIOR, (0.06, 0.05, 0.05, 0.05, 0.04))
    return best, float(contrast(best[None])[0])


def _curve(batch: Batch, along: Batch) -> tuple[Batch, Batch]:
    outer_x, inner_x, outer_y, inner_y, arch = (batch[:, i : i + 1] for i in range(5))
    x = outer_x + (inner_x - outer_x) * along
    y = outer_y + (inner_y - outer_y) * along - arch * 4 * along * (1 - along)
    return x, y


def _points(curve: Batch, side: int) -> Float32Array:
    x, y = _curve(curve[None], np.linspace(0.02, 0.98, 5))
    points = np.column_stack([x[0], y[0]])
    if side > 0:
        points = points[::-1] * (-1, 1)
    return np.asarray(points + np.array([side * 0.5, 0]), np.float32)


def _lightness(patch: Float32Array) -> Float32Array:
    """Lightness in units of how much it varies here, so that pale and dark brows count alike."""
    light = lab_image(patch, 0.012 * _PX)[..., 0]
    detail = light - blurred(light, 0.12 * _PX)
    spread = float(np.sqrt((detail**2).mean())) + 3
    return np.asarray(light / spread, np.float32)
