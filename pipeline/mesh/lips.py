"""The skin of the mouth as two sheets: one ends at the upper lip, one at the lower.

The lower sheet also ends at the jaw line, so that a dropping chin covers the neck.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.mesh import layers
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, sampled
from pipeline.mesh.curves import LOWER_LIP, UPPER_LIP, lip_edge, smooth_line
from pipeline.mesh.fields import Grid
from pipeline.mesh.masks import quick_distance
from pipeline.types import Float32Array, Image

_LIP_INSET: Final = 0.014  # photos blur lips into teeth over about this much


def upper_sheet(cut: Image, at: Float32Array, face: Anatomy) -> Image:
    """Skin above the mouth, open below the upper lip: (h, w, 4) uint8.

    Args:
        cut: (h, w, 3) uint8, part of the texture.
        at: (h, w, 2) float32, its pixels in face units.
        face: in pixels of the texture.
    """
    line = lip_edge(face.to_face(face.points), UPPER_LIP, at[..., 0])
    hole = np.maximum(quick_distance(_below_lip(face), at), quick_distance(_gape(face), at))
    return layers.with_edge(_folded(cut, at, line, face, -1.0), hole)


def lower_sheet(cut: Image, at: Float32Array, face: Anatomy) -> Image:
    """Skin from the lower lip to the jaw line: (h, w, 4) uint8; arguments as `upper_sheet`."""
    p = face.to_face(face.points)
    upper = lip_edge(p, UPPER_LIP, at[..., 0])
    line = np.maximum(lip_edge(p, LOWER_LIP, at[..., 0]), upper)
    inside = -quick_distance(_lower_skin(face), at)
    return layers.with_edge(_folded(cut, at, line, face, 1.0), inside)


def _curve(face: Anatomy, indices: tuple[int, ...]) -> Float32Array:
    p = face.to_face(face.points)
    x = np.linspace(p[60, 0], p[64, 0], 33, dtype=np.float32)
    return np.stack([x, lip_edge(p, indices, x)], axis=-1)


def _below_lip(face: Anatomy) -> Float32Array:
    """What the upper sheet leaves open: below the upper lip, between the corners."""
    curve = _curve(face, UPPER_LIP)
    below = float(curve[:, 1].max()) + 0.55
    ends = f32([[curve[-1, 0] - 0.02, below], [curve[0, 0] + 0.02, below]])
    return np.concatenate([curve, ends])


def _gape(face: Anatomy) -> Float32Array:
    """How far it may leave that open: as far as the lower sheet covers the rest, and less."""
    p = face.to_face(face.points)
    jaw = smooth_line(p[4:13])[::-1]
    middle = p[[60, 64]].mean(axis=0)
    return np.concatenate([_curve(face, UPPER_LIP), f32(middle + 0.86 * (jaw - middle))])


def _lower_skin(face: Anatomy) -> Float32Array:
    """What the lower sheet covers: from the lower lip down to the jaw line."""
    p = face.to_face(face.points)
    curve = _curve(face, LOWER_LIP)
    upper = _curve(face, UPPER_LIP)
    curve[:, 1] = np.maximum(curve[:, 1], upper[:, 1])
    jaw = smooth_line(p[4:13])[::-1]
    return np.concatenate([curve, jaw]).astype(np.float32)


def _folded(cut: Image, at: Float32Array, line: Float32Array, face: Anatomy, side: float) -> Image:
    """Skin of one lip without what shows between the lips: mirrored there instead."""
    p = face.to_face(face.points)
    between = (at[..., 0] > p[60, 0] - 0.02) & (at[..., 0] < p[64, 0] + 0.02)
    excess = np.maximum((at[..., 1] - line) * -side + _LIP_INSET, 0.0)
    excess = excess * (between & (excess < 0.3))
    shift = np.float32(2 * side * face.unit) * excess[..., None] * face.axes[1]
    h, w = cut.shape[:2]
    places = (Grid(0, 0, w, h, 1).nodes() + shift).astype(np.float32)
    return sampled(cut, places)
