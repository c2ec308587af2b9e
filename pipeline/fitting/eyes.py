"""Contours of the lids, and where exactly the eyes' dark discs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.fitting.appearance import blurred, fit_skin, lab_image
from pipeline.fitting.curves import (
    Batch,
    ColumnSums,
    LensScale,
    LensShape,
    Prior,
    climb,
    grid,
    lens_terms,
)
from pipeline.fitting.frame import FaceFrame, Window
from pipeline.types import Float32Array, Image

_PX: Final = 150.0
_WINDOW: Final = Window(-0.42, -0.36, 0.42, 0.36, _PX)  # about the eye, outer corner at the left

# Along the eye from the outer corner: the upper lid peaks outside the pupil, the lower is flatter.
_SHAPE: Final = LensShape(
    ((0, 0.15, 0.33, 0.62, 0.84, 1), (0, 0.62, 1, 0.97, 0.55, 0)),
    ((0, 0.2, 0.4, 0.65, 0.85, 1), (0, 0.6, 0.95, 1, 0.6, 0)),
    samples=33,
)
_SCALE: Final = LensScale(
    edge=0.035, ring=0.07, corner_in=0.05, corner_out=0.06, corner_half=0.025, least=0.01
)
_PRIOR: Final = Prior.of(
    (0.0, 0.035, -0.15, 0.15),
    (0.015, 0.025, -0.10, 0.10),
    (0.228, 0.02, 0.14, 0.29),
    (0.02, 0.03, -0.10, 0.12),
    (-0.09, 0.025, -0.18, -0.01),
    (0.06, 0.02, 0.005, 0.12),
)
# The lids touch the iris: its radius is about 0.09, the upper lid covers its top.
_TOP: Final = (-0.075, 0.022)
_BOTTOM: Final = (0.072, 0.018)

# The inner corner is pink like skin, so the fit ends short of it by this share of the width.
_CARUNCLE: Final = 0.06

_AT_UPPER: Final = (0.33, 0.66)  # where the contour's points lie along the eye
_AT_LOWER: Final = (0.66, 0.33)


@dataclass(frozen=True, slots=True, eq=False)
class EyeFit:
    """One eye.

    Attributes:
        points: (6, 2) float32 face units, in iBUG order for its side.
        contrast: how much darker or whiter the lens is than its surroundings, about 0 to 1.
    """

    points: Float32Array
    contrast: float


def fit_eye(image: Image, frame: FaceFrame, side: int) -> EyeFit:
    """Fit the lids of one eye.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face.
        side: -1 for the eye at the image's left, 1 for the other.
    """
    window = _WINDOW.moved(side * 0.5, 0.0)
    patch = frame.sample(image, window)
    if side > 0:
        patch = np.ascontiguousarray(patch[:, ::-1])
    openness = _eye_map(patch)
    edges = ColumnSums(2 * openness, _WINDOW)
    regions = ColumnSums(np.clip(openness, 0, 1), _WINDOW)

    def score(batch: Batch) -> Batch:
        terms = lens_terms(_SHAPE, batch, edges, regions, _SCALE)
        top = (batch[:, 1] + batch[:, 4] - _TOP[0]) / _TOP[1]
        bottom = (batch[:, 1] + batch[:, 5] - _BOTTOM[0]) / _BOTTOM[1]
        cost = _PRIOR.cost(batch) + 0.5 * (top**2 + bottom**2)
        total: Batch = (
            terms.upper + terms.lower + 0.35 * terms.corners + 3 * terms.region - 0.12 * cost
        )
        return total

    starts = grid(
        (-0.05, 0, 0.05), (-0.02, 0.02, 0.06), (0.2, 0.23), (0, 0.03), (-0.11, -0.07), (0.05,)
    )
    start = starts[[int(np.argmax(score(starts)))]]
    best, _ = climb(score, start, _PRIOR, (0.04, 0.03, 0.03, 0.03, 0.03, 0.025))
    terms = lens_terms(_SHAPE, best[None], edges, regions, _SCALE)
    return EyeFit(_contour(best, side), float(terms.region[0]))


def _contour(lens: Batch, side: int) -> Float32Array:
    upper_x, upper_y, _ = _SHAPE.curves(lens[None], np.array(_AT_UPPER))
    lower_x, _, lower_y = _SHAPE.curves(lens[None], np.array(_AT_LOWER))
    ends_x, ends_y, _ = _SHAPE.curves(lens[None], np.array([0.0, 1.0]))
    outer, inner = np.column_stack([ends_x[0], ends_y[0]])
    inner = inner + _CARUNCLE * (inner - outer)
    upper = np.column_stack([upper_x[0], upper_y[0]])
    lower = np.column_stack([lower_x[0], lower_y[0]])
    points = np.array([outer, *upper, inner, *lower])
    if side > 0:  # mirror, and begin at the inner corner
        points = points[[3, 2, 1, 0, 5, 4]] * (-1, 1)
    return np.asarray(points + np.array([side * 0.5, 0]), np.float32)


def _eye_map(patch: Float32Array) -> Float32Array:
    """How much a sample looks like iris, lashes or sclera instead of skin, about 0 to 1."""
    lab = lab_image(patch, 0.012 * _PX)
    x, y = _WINDOW.grid()
    below = (y > 0.12) & (y < 0.3) & (np.abs(x) < 0.3)
    above = (np.abs(x) < 0.25) & (y > -0.22) & (y < -0.12)
    skin = fit_skin(lab, _WINDOW, below | above)
    lighter = lab[..., 0] - skin.expected[..., 0]
    core = (np.abs(x) < 0.16) & (np.abs(y) < 0.09)
    depth = max(float(np.percentile(-lighter[core], 92)), 10.0)
    dark = np.clip(-lighter / depth, -0.3, 1.2)
    if skin.coloured:
        # The white of the eye is the least coloured thing there, even in the lids' shadow.
        paler = 1 - _saturation(lab) / _saturation(skin.expected)
        lit = np.clip((lighter + 0.6 * depth) / (0.4 * depth), 0, 1)
        white = np.clip(1.6 * paler - 0.3, 0, 1) * lit
    else:
        white = np.clip(lighter / 12 - 0.3, 0, 0.6)
    return np.asarray(np.maximum(dark, 0.8 * white), np.float32)


def _saturation(lab: Float32Array) -> npt.NDArray[np.float32]:
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return np.asarray(chroma / np.maximum(lab[..., 0], 15), np.float32) + np.float32(1e-3)


def dark_discs(grey: Float32Array, least: float, most: float) -> Float32Array:
    """Votes for centres of dark discs between two radii.

    Means of gradients (Timm & Barth 2011, VISAPP): at a dark disc's centre the gradients around
    point away. The votes of the left and right side are multiplied, since lids hide the edges
    above and below and a brow's end has only one side.

    Args:
        grey: (rows, columns) float32.
        least, most: radii in pixels.

    Returns:
        (rows, columns) float32 in [0, 1].
    """
    smooth = np.asarray(grey, np.float32)
    slope_y, slope_x = np.gradient(smooth)
    size = np.hypot(slope_x, slope_y)
    strength = np.minimum(size / (np.percentile(size, 85) + 1e-3), 1.0) / (size + 1e-3)
    reach = int(np.ceil(most))
    rows, columns = smooth.shape
    slopes = [np.pad(slope * strength, reach) for slope in (slope_x, slope_y)]
    votes = np.zeros((4, rows, columns), np.float32)
    counts = np.zeros(4)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            radius = float(np.hypot(dx, dy))
            if not least <= radius <= most:
                continue
            here = np.s_[reach + dy : reach + dy + rows, reach + dx : reach + dx + columns]
            outward = (dx * slopes[0][here] + dy * slopes[1][here]) / radius
            quarter = (0 if dx < 0 else 1) if abs(dx) >= abs(dy) else (2 if dy < 0 else 3)
            votes[quarter] += np.maximum(outward, 0) ** 2
            counts[quarter] += 1
    left, right, top, bottom = votes / counts[:, None, None]
    sides = np.sqrt(left * right) + 0.125 * np.sqrt((left + right) * (top + bottom))
    return np.asarray(sides, np.float32)


_FINE: Final = Window(-0.2, -0.16, 0.2, 0.16, 120.0)


def refine_eye(image: Image, frame: FaceFrame, side: int) -> Float32Array:
    """Centre of the dark disc within 0.12 of where the frame has the eye, pixels of the picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face, eyes roughly right.
        side: -1 for the eye at the image's left, 1 for the other.
    """
    window = _FINE.moved(side * 0.5, 0.0)
    grey = blurred(np.asarray(frame.sample(image, window).mean(axis=2)), 0.02 * window.px)
    votes = dark_discs(grey, 0.05 * window.px, 0.115 * window.px)
    x, y = _FINE.grid()
    near = np.exp(-0.5 * (x**2 + y**2) / 0.06**2)
    darkness = np.clip((np.percentile(grey, 75) - blurred(grey, 0.03 * window.px)) / 255, 0.02, 1)
    weight = votes * darkness * near
    weight = np.where(weight > 0.7 * weight.max(), weight, 0)
    total = float(weight.sum())
    centre = (
        np.array([(weight * x).sum(), (weight * y).sum()]) / total if total > 0 else np.zeros(2)
    )
    found = frame.to_image([centre + np.array([side * 0.5, 0])])
    return np.asarray(found[0], np.float32)


# Both eyes without their surroundings' shading, and by how much they may be shifted for the best
# match. Brows belong to it: they tell an eye from its corner.
_PATCH: Final = Window(-0.38, -0.38, 0.38, 0.30, 32.0)
_SLACK: Final = 3  # pixels of the window


def eyes_alike(image: Image, frame: FaceFrame) -> float:
    """Correlation of one eye with the other's mirror image, -1 to 1.

    Eyes of a face seen from the front reach 0.9, half turned 0.5.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face.
    """
    left = _unshaded(frame.sample(image, _PATCH.moved(-0.5, 0.0)))
    right = _unshaded(frame.sample(image, _PATCH.mirrored().moved(0.5, 0.0))[:, ::-1])
    inner = np.ascontiguousarray(right[_SLACK:-_SLACK, _SLACK:-_SLACK])
    return float(cv2.matchTemplate(left, inner, cv2.TM_CCOEFF_NORMED).max())


def _unshaded(patch: Float32Array) -> Float32Array:
    grey = blurred(np.asarray(patch.mean(axis=2), np.float32), 0.04 * _PATCH.px)
    detail = grey - blurred(grey, 0.3 * _PATCH.px)
    spread = np.sqrt(blurred(detail**2, 0.3 * _PATCH.px)) + 3
    return np.asarray(detail / spread, np.float32)
