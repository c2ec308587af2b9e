"""Contours of the lips, closed or open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.fitting.appearance import COLOURLESS, Skin, blurred, fit_skin, lab_image
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

_PX: Final = 64.0
_WINDOW: Final = Window(-0.85, 0.45, 0.85, 1.75, _PX)

# Cupid's bow above, one arc below.
_SHAPE: Final = LensShape(
    ((0, 0.18, 0.38, 0.5, 0.62, 0.82, 1), (0, 0.62, 1, 0.9, 1, 0.62, 0)),
    ((0, 0.2, 0.36, 0.5, 0.64, 0.8, 1), (0, 0.58, 0.92, 1, 0.92, 0.58, 0)),
)
_SCALE: Final = LensScale(
    edge=0.06, ring=0.14, corner_in=0.08, corner_out=0.10, corner_half=0.035, least=0.03
)
# A lens, and last how far the dark line between the lips sags below the corners' line.
_PRIOR: Final = Prior.of(
    (0.0, 0.09, -0.35, 0.35),
    (1.07, 0.13, 0.70, 1.50),
    (0.43, 0.075, 0.22, 0.62),
    (0.0, 0.035, -0.15, 0.15),
    (-0.10, 0.06, -0.25, 0.06),
    (0.24, 0.10, 0.07, 0.60),
    (0.0, 0.06, -0.05, 0.30),
)
_LINE_HALF: Final = 0.02  # half the thickness of that line

# The nose ends in a shadow about 0.41 above the middle of the mouth, 0.70 below the eyes.
_NOSE: Final = (0.70, 0.13)
_NOSE_TO_MOUTH: Final = (0.41, 0.10)

_OUTER_UPPER: Final = (0.0, 0.186, 0.395, 0.5, 0.605, 0.814, 1.0)  # points 48-54 along the mouth
_OUTER_LOWER: Final = (0.826, 0.64, 0.5, 0.36, 0.174)  # 55-59
_INNER_UPPER: Final = (0.07, 0.36, 0.5, 0.64, 0.93)  # 60-64
_INNER_LOWER: Final = (0.64, 0.5, 0.36)  # 65-67


@dataclass(frozen=True, slots=True, eq=False)
class MouthFit:
    """The mouth.

    Attributes:
        points: (20, 2) float32 face units, iBUG points 48-67.
        middle: (2,) float32 face units, middle of the outer contour.
        contrast: how much less the lips look like skin than their surroundings, about 0 to 0.7.
        line: how dark the line between the lips is, about 0 to 1.2.
        score: value of the fit; larger is better.
    """

    points: Float32Array
    middle: Float32Array
    contrast: float
    line: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class _Maps:
    """What the mouth is fitted to, each over `_WINDOW`."""

    lab: Float32Array
    edges: ColumnSums
    regions: ColumnSums
    lines: ColumnSums
    nose: tuple[Batch, Batch]


def fit_mouth(image: Image, frame: FaceFrame) -> MouthFit:
    """Fit the lips.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face.
    """
    maps = _maps(frame.sample(image, _WINDOW))

    def score(batch: Batch) -> Batch:
        terms = lens_terms(_SHAPE, batch, maps.edges, maps.regions, _SCALE)
        thick = np.sqrt(_area(batch) / 0.15)
        below_nose = np.interp(batch[:, 1] + 0.35 * batch[:, 5], *maps.nose)
        total: Batch = (
            terms.upper + terms.lower + 0.3 * terms.corners
            + 6 * terms.region * np.minimum(thick, 1.4)
            + 0.8 * _line(batch, maps.lines)
            + 1.2 * below_nose
            - 0.12 * _PRIOR.cost(batch)
        )  # fmt: skip
        return total

    candidates = grid(
        (-0.1, 0.0, 0.1),
        np.linspace(0.8, 1.4, 16).tolist(),
        (0.32, 0.40, 0.48, 0.56),
        (0.0,),
        (-0.14, -0.04),
        (0.12, 0.25, 0.40),
        (0.0, 0.1),
    )
    starts = _apart(candidates, score(candidates))
    best, value = climb(score, starts, _PRIOR, (0.06, 0.04, 0.05, 0.03, 0.04, 0.06, 0.05))
    terms = lens_terms(_SHAPE, best[None], maps.edges, maps.regions, _SCALE)
    outer = _outer(best)
    return MouthFit(
        np.concatenate([outer, _inner(best, maps.lab)]).astype(np.float32),
        outer.mean(axis=0).astype(np.float32),
        float(terms.region[0]),
        float(_line(best[None], maps.lines)[0]),
        value,
    )


def _apart(candidates: Batch, values: Batch, count: int = 3) -> Batch:
    """The best candidates that differ in height or in depth."""
    chosen: list[Batch] = []
    for index in np.argsort(-values, kind="stable")[:60]:
        candidate = candidates[index]
        if all(
            abs(candidate[1] - other[1]) > 0.06 or abs(candidate[5] - other[5]) > 0.1
            for other in chosen
        ):
            chosen.append(candidate)
        if len(chosen) == count:
            break
    return np.array(chosen)


def _area(batch: Batch) -> Batch:
    _, top, bottom = _SHAPE.curves(batch)
    area: Batch = np.maximum(bottom - top, _SCALE.least).mean(axis=1) * 2 * batch[:, 2]
    return area


def _line(batch: Batch, lines: ColumnSums) -> Batch:
    x, top, bottom = _SHAPE.curves(batch)
    along = _SHAPE.along
    base = batch[:, 1:2] + batch[:, 3:4] * (2 * along - 1)
    seam = np.clip(base + batch[:, 6:7] * 4 * along * (1 - along), top, np.maximum(bottom, top))
    mean: Batch = lines.mean(x, seam - _LINE_HALF, seam + _LINE_HALF).mean(axis=1)
    return mean


def _maps(patch: Float32Array) -> _Maps:
    lab = lab_image(patch, 0.015 * _PX)
    light = lab[..., 0]
    deeper = blurred(light, 0.25 * _PX) - light
    spread = np.sqrt(blurred(deeper**2, 0.35 * _PX)) + 2
    dark = np.clip(deeper / spread, -1.5, 2.5)
    x, y = _WINDOW.grid()
    skin = fit_skin(lab, _WINDOW, _skin_samples(x, y))
    unlike = _unlike_skin(lab, skin)
    signal = _dark_or_red(lab, dark, (np.abs(x) < 0.6) & (np.abs(y - 1.1) < 0.5))
    return _Maps(
        lab,
        ColumnSums(0.4 * signal + 2 * unlike, _WINDOW),
        ColumnSums(unlike, _WINDOW),
        ColumnSums(_dark_lines(light, spread), _WINDOW),
        _nose_above(dark, x, y),
    )


def _skin_samples(x: Float32Array, y: Float32Array) -> npt.NDArray[np.bool_]:
    cheeks = (np.abs(np.abs(x) - 0.5) < 0.15) & (np.abs(y - 0.7) < 0.2)
    chin = (np.abs(x) < 0.25) & (np.abs(y - 1.5) < 0.12)
    over_lip = (np.abs(np.abs(x) - 0.12) < 0.1) & (np.abs(y - 0.88) < 0.05)
    return np.asarray(cheeks | chin | over_lip)


def _unlike_skin(lab: Float32Array, skin: Skin) -> Float32Array:
    """0 for skin to 1 for lips, teeth and the dark between them."""
    off = lab - skin.expected
    allowed = max(1.2 * float(skin.spread[0]), 5.0)
    distance = (off[..., 0] / np.where(off[..., 0] < 0, allowed, 1.5 * allowed)) ** 2
    if skin.coloured:
        redder = (off[..., 1] / max(1.2 * float(skin.spread[1]), 3.0)) ** 2
        distance += redder * np.where(off[..., 1] > 0, 1.0, 0.5)
        distance += 0.7 * (off[..., 2] / max(1.2 * float(skin.spread[2]), 4.0)) ** 2
        # Teeth: less colour than skin, and not much darker.
        chroma = [np.hypot(c[..., 1], c[..., 2]) for c in (skin.expected, lab)]
        pale = np.clip((chroma[0] - chroma[1]) / 6, 0, 2) * np.clip((off[..., 0] + 12) / 10, 0, 1)
        distance = np.maximum(distance, 6 * np.asarray(pale, np.float32))
    else:
        distance = np.where(off[..., 0] > 0, 0.3 * distance, distance)
        distance = np.maximum(distance, 4 * np.clip((off[..., 0] - 10) / 10, 0, 2) ** 2)
    smooth = blurred(np.asarray(distance, np.float32), 0.015 * _PX)
    return np.asarray(smooth / (smooth + 4), np.float32)


def _dark_or_red(
    lab: Float32Array, dark: Float32Array, face: npt.NDArray[np.bool_]
) -> Float32Array:
    """How much darker and redder than its surroundings a sample is."""
    # Lips differ from skin in a* at the same b*; more of both is a tan or a shadow.
    redness = lab[..., 1] - 0.35 * lab[..., 2]
    redder = redness - blurred(redness, 0.4 * _PX)
    spread = float(np.sqrt((redder[face] ** 2).mean())) + 2.5
    trust = 1.4 * min(1.0, float(np.median(np.hypot(lab[face][:, 1], lab[face][:, 2]))) / 8)
    signal = (dark + trust * np.clip(redder / spread, -1.5, 2.5)) / (1 + trust / 2)
    return np.asarray(signal, np.float32)


def _dark_lines(light: Float32Array, spread: Float32Array) -> Float32Array:
    """How much darker than both above and below: the seam of the lips."""
    best = np.zeros_like(light)
    for thickness in (0.025, 0.05):
        across, along = thickness * _PX, 0.05 * _PX
        smooth = cv2.GaussianBlur(
            light, (0, 0), sigmaX=along, sigmaY=across, borderType=cv2.BORDER_REPLICATE
        )
        shift = round(2 * thickness * _PX)
        padded = np.pad(smooth, ((shift, shift), (0, 0)), mode="edge")
        above, below = padded[: -2 * shift], padded[2 * shift :]
        best = np.maximum(best, np.minimum(above, below) - smooth)
    return np.asarray(np.clip(best / (0.8 * spread), 0, 2), np.float32)


def _nose_above(dark: Float32Array, x: Float32Array, y: Float32Array) -> tuple[Batch, Batch]:
    """For heights of a mouth, how well the shadow under the nose fits to it: heights, values."""
    middle = np.abs(x[0]) < 0.16
    shadow = dark[:, middle].mean(axis=1)
    nose = np.arange(0.5, 0.96, 0.01)
    mouth = np.arange(0.6, 1.8, 0.01)
    evidence = np.interp(nose, y[:, 0], shadow) - 0.5 * ((nose - _NOSE[0]) / _NOSE[1]) ** 2
    gap = (mouth[:, None] - nose - _NOSE_TO_MOUTH[0]) / _NOSE_TO_MOUTH[1]
    return mouth, (evidence - 0.5 * gap**2).max(axis=1)


def _outer(lens: Batch) -> Batch:
    upper_x, upper_y, _ = _SHAPE.curves(lens[None], np.array(_OUTER_UPPER))
    lower_x, _, lower_y = _SHAPE.curves(lens[None], np.array(_OUTER_LOWER))
    return np.concatenate(
        [np.column_stack([upper_x[0], upper_y[0]]), np.column_stack([lower_x[0], lower_y[0]])]
    )


# The inner contour is looked for on a grid laid over the lens: rows from upper to lower curve.
_ROWS: Final = 32
_COLUMNS: Final = np.linspace(0.15, 0.85, 25)
_LEAST_LIP: Final = 5  # rows of either lip
_LEAST_GAP: Final = 0.05  # face units between open lips
_OPEN: Final = 0.33  # by how much the inside must be darker or paler than the lips


def _inner(lens: Batch, lab: Float32Array) -> Batch:
    """Points 60-67 from where the lips part."""
    x, top, bottom = _SHAPE.curves(lens[None], _COLUMNS)
    shares = (np.arange(_ROWS) + 0.5) / _ROWS
    heights = top + (bottom - top) * shares[:, None]
    at = _WINDOW.pixels(np.stack([np.broadcast_to(x, heights.shape), heights], axis=-1))
    laid = cv2.remap(lab, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    thickness = float((bottom - top).max())
    first, last = _parting(np.asarray(laid, np.float32), thickness)
    return np.concatenate([_within(lens, _INNER_UPPER, first), _within(lens, _INNER_LOWER, last)])


def _parting(laid: Float32Array, thickness: float) -> tuple[float, float]:
    """Shares of the lens's height at which the upper lip ends and the lower lip begins."""
    gap = max(round(_LEAST_GAP / thickness * _ROWS), 2)
    best = (_OPEN, 0, 0)
    for first in range(_LEAST_LIP, _ROWS - _LEAST_LIP - gap + 1):
        for last in range(first + gap, _ROWS - _LEAST_LIP + 1):
            lips = np.concatenate([laid[2:first], laid[last:-1]]).reshape(-1, 3)
            inside = laid[first:last].reshape(-1, 3)
            value = _openness(inside, lips) - _openness(lips, lips)
            if value > best[0]:
                best = (value, first, last)
    if best[2]:
        return best[1] / _ROWS, best[2] / _ROWS
    light = laid[..., 0].mean(axis=1)
    searched = np.arange(round(0.2 * _ROWS), round(0.7 * _ROWS))
    seam = float(searched[int(np.argmin(light[searched]))] + 0.5) / _ROWS
    return seam, seam


def _openness(samples: Float32Array, lips: Float32Array) -> float:
    """How much darker (the mouth's inside) or paler (teeth) than lips samples are, mean of 0-3.

    Args:
        samples, lips: (n, 3) float32 CIELAB.
    """
    light, chroma = samples[:, 0], np.hypot(samples[:, 1], samples[:, 2])
    lip_chroma = np.hypot(lips[:, 1], lips[:, 2])
    usual_light, light_spread = float(np.median(lips[:, 0])), float(lips[:, 0].std()) + 4
    usual_chroma, chroma_spread = float(np.median(lip_chroma)), float(lip_chroma.std()) + 2
    darker = (usual_light - light) / light_spread - 1
    if usual_chroma > COLOURLESS:
        paler = np.asarray(usual_chroma - chroma, np.float32) / chroma_spread - 0.5
    else:
        paler = (light - usual_light) / light_spread - 1
    return float(np.clip(np.maximum(darker, paler), 0, 3).mean())


def _within(lens: Batch, along: tuple[float, ...], share: float) -> Batch:
    x, top, bottom = _SHAPE.curves(lens[None], np.array(along))
    return np.column_stack([x[0], top[0] + share * (bottom[0] - top[0])])
