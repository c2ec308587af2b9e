"""Skin without the folds of a resting smile.

A portrait that smiles has creases from nose to mouth printed into it. When the smile is taken away
they have to go, or a sad mouth sits in a happy face. The smoothed skin is prepared once and faded
in where the face rests, before it is warped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from pipeline.mesh import layers
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import blurred, f32, resized, smoothstep, u8
from pipeline.mesh.curves import smooth_line
from pipeline.mesh.fields import Grid
from pipeline.mesh.masks import quick_distance
from pipeline.types import Float32Array, Image

_WIDEST: Final = 0.20  # of a fold that is filled, in face units
_FILL_UNIT: Final = 110.0  # pixels of a face unit at which folds are filled
_NEAR: Final = 0.10
_FAR: Final = 0.17


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One rectangle of an image: as photographed, and without its fold.

    Attributes:
        target: (h, w, 4) uint8, a view into the image that is drawn into.
        photo, smooth: (h, w, 4) uint8.
        shown: what the image shows now, so that nothing is drawn twice.
    """

    target: Image
    photo: Image
    smooth: Image
    shown: list[float]

    def draw(self, amount: float) -> None:
        """Write the rectangle with `amount` (0..1) of its fold taken away."""
        if self.shown == [amount]:
            return
        self.shown[:] = [amount]
        cv2.addWeighted(self.photo, 1.0 - amount, self.smooth, amount, 0.0, dst=self.target)


def prepare(face: Anatomy, image: Image, corner: tuple[int, int]) -> tuple[Fold, ...]:
    """Find and fill the folds on both sides of nose and mouth.

    Args:
        face: the face in pixels of the texture.
        image: (h, w, 4) uint8, the texture or a sheet, of which nothing shows where the fourth
            channel is 0; will be drawn into.
        corner: x, y of the image in the texture.
    """
    folds = []
    for side, sign in (("Right", -1.0), ("Left", 1.0)):
        curve = _path(face, side, sign)
        wide = _rectangle(face, curve, _FAR + 0.16, image, corner)
        narrow = _rectangle(face, curve, _FAR + 0.01, image, corner)
        if min(narrow.columns, narrow.rows) < 2:
            continue
        part = wide.slices(narrow)
        fill = _fill(wide.cut(image)[..., :3], face.unit)[part]
        at = face.to_face(narrow.nodes() + f32(corner))
        target = narrow.cut(image)
        smooth = target.copy()
        smooth[..., :3] = u8(target[..., :3] + fill * _band(face, at, curve)[..., None])
        changed = layers.part_with((smooth != target).any(axis=-1) & (target[..., 3] > 0))
        if changed is not None:
            target = target[changed]
            folds.append(Fold(target, target.copy(), smooth[changed].copy(), [0.0]))
    return tuple(folds)


def _rectangle(
    face: Anatomy, curve: Float32Array, reach: float, image: Image, corner: tuple[int, int]
) -> Grid:
    """The part of an image within `reach` face units of a curve, one node per pixel."""
    pixels = face.to_pixels(curve) - f32(corner)
    left, top = np.maximum(pixels.min(axis=0) - reach * face.unit, 0).astype(int)
    right, bottom = np.minimum(pixels.max(axis=0) + reach * face.unit, image.shape[1::-1]).astype(
        int
    )
    return Grid(int(left), int(top), int(right - left), int(bottom - top), 1)


def _path(face: Anatomy, side: str, sign: float) -> Float32Array:
    """Where the fold runs: from the wing of the nose round the corner of the mouth."""
    out = f32([sign, 1.0])
    ala, fold, corner = (face.to_face(face.on_side(name, side)) for name in ("ala", "fold", 54))
    spots = (
        ala + f32([0.06, -0.10]) * out,
        ala + f32([0.10, 0.0]) * out,
        fold + f32([0.05, -0.02]) * out,
        corner + f32([0.11, 0.0]) * out,
        corner + f32([0.08, 0.13]) * out,
    )
    return smooth_line(f32(np.stack(spots)), 10)


def _band(face: Anatomy, at: Float32Array, curve: Float32Array) -> Float32Array:
    """1 along the fold, 0 away from it and on lips and nostrils."""
    squared = np.full(at.shape[:2], np.inf, np.float32)
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    for point in curve:
        np.minimum(squared, (x - point[0]) ** 2 + (y - point[1]) ** 2, out=squared)
    band = 1.0 - smoothstep(np.sqrt(squared), _NEAR, _FAR)
    p = face.to_face(face.points)
    lips = quick_distance(smooth_line(p[48:60], 4), at)
    band = band * smoothstep(lips, 0.01, 0.05)
    for nostril in (31, 35):
        away = np.hypot(at[..., 0] - p[nostril, 0], at[..., 1] - p[nostril, 1])
        band = band * smoothstep(away, 0.07, 0.12)
    return f32(band)


def _fill(photo: Image, unit: float) -> Float32Array:
    """What to add per channel to fill valleys narrower than `_WIDEST`: a closing.

    Done at reduced size: its cost grows with the fourth power of the resolution.
    """
    h, w = photo.shape[:2]
    scale = min(_FILL_UNIT / unit, 1.0)
    unit *= scale
    fine = blurred(f32(photo), max(0.010 * unit / scale, 0.4))
    small = resized(fine, max(round(w * scale), 2), max(round(h * scale), 2))
    size = int(_WIDEST * unit) | 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    level = blurred(cast(Float32Array, cv2.morphologyEx(small, cv2.MORPH_CLOSE, disc)), 0.05 * unit)
    return f32(np.maximum(resized(level, w, h) - fine, 0.0))
