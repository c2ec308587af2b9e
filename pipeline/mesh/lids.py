"""Eyelids: the shape of the opening, how lids travel, and their skin as two sheets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.mesh import layers
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import blurred, f32, sampled, smoothstep, spread, u8
from pipeline.mesh.curves import along as along_curve
from pipeline.mesh.fields import Grid
from pipeline.types import Float32Array, Image

# Face units, measured on adult eyes (palpebral fissure about 30 x 10 mm, 63 mm = 1).
_LASHES: Final = 0.030  # above the lid's edge: moves as one piece
_LASH_OVERHANG: Final = 0.010  # the edge lies this far below the landmarks, lashes included
_LOWER_REACH: Final = 0.17


@dataclass(frozen=True, slots=True, eq=False)
class Lids:
    """The opening of one eye along its own axes: s from corner to corner, v across, in units."""

    s: Float32Array
    v: Float32Array
    upper: Float32Array
    lower: Float32Array
    brow: Float32Array
    pixels: Float32Array

    @classmethod
    def of(cls, face: Anatomy, first: int, at: Float32Array) -> Lids:
        p = face.to_face(face.points)
        corners = p[first], p[first + 3]
        middle, half = (corners[0] + corners[1]) / 2, (corners[1] - corners[0]) / 2
        length = float(np.hypot(*half))
        along = half / length
        across = f32([-along[1], along[0]])

        def local(points: Float32Array) -> tuple[Float32Array, Float32Array]:
            d = points - middle
            return (d @ along) / np.float32(length), d @ across

        s, v = local(face.to_face(at))
        brows = p[17:22] if first == 36 else p[22:27]
        brow = along_curve(s, *local(brows))
        upper = _lid_curve(*local(p[[first + 1, first + 2]]), s)
        lower = _lid_curve(*local(p[[first + 5, first + 4]]), s)
        return cls(s, v, np.minimum(upper, lower), lower, brow, at)


def _lid_curve(s: Float32Array, v: Float32Array, at: Float32Array) -> Float32Array:
    """The lid line through both corners and two landmarks: (1 - s^2)(a + b s), 0 outside."""
    system = np.stack([1 - s**2, (1 - s**2) * s], axis=-1)
    a, b = np.linalg.solve(system + 1e-6 * np.eye(2), v)
    return f32(np.maximum(1 - at**2, 0.0) * (a + b * at))


def across(face: Anatomy, first: int) -> Float32Array:
    """Unit vector in the image across the eye, from the upper to the lower lid."""
    along = face.points[first + 3] - face.points[first]
    along = along / np.hypot(*along)
    return f32([-along[1], along[0]])


def travels(lids: Lids) -> tuple[Float32Array, Float32Array]:
    """How far each lid's skin goes when the eye shuts, face units: upper down, lower up."""
    opening = np.maximum(lids.lower - lids.upper, 0.0)
    opening = blurred(f32(opening), 1.0)
    top = np.minimum(lids.brow + 0.03, lids.upper - 0.12)
    start = lids.upper - _LASHES
    t = np.clip((lids.v - top) / (start - top), 0.0, 1.0)
    upper = opening * t**1.6
    fall = np.clip((lids.v - lids.lower) / _LOWER_REACH, 0.0, 1.0)
    lower = opening * (1 - fall) ** 2 * (1 + 2 * fall)
    return upper.astype(np.float32), lower.astype(np.float32)


def sheets(cut: Image, lids: Lids, unit: float) -> tuple[Image, Image]:
    """Skin above and below the opening, (h, w, 4) uint8 each, ending at the lids' edges.

    Args:
        cut: (h, w, 3) uint8, the eye's patch of the texture.
        lids: the opening, at every pixel of the patch.
        unit: face unit in pixels of the texture.
    """
    edge = lids.upper + _LASH_OVERHANG * smoothstep(1 - lids.s**2, 0.0, 0.3)
    beyond = 0.6 * np.maximum(np.abs(lids.s) - 1.0, 0.0)
    above = _folded(cut, lids, unit, edge, -1.0)
    below = _folded(cut, lids, unit, lids.lower, 1.0)
    return (
        layers.with_edge(above, f32(edge - lids.v + beyond)),
        layers.with_edge(below, f32(lids.v - lids.lower + beyond)),
    )


def _folded(cut: Image, lids: Lids, unit: float, edge: Float32Array, side: float) -> Image:
    """Skin of one lid with nothing of the eye beyond its edge: mirrored there instead.

    Args:
        side: -1 keeps what is above `edge`, 1 what is below.
    """
    excess = np.maximum((lids.v - edge) * -side, 0.0) * (np.abs(lids.s) < 1.0)
    shift = (2 * excess * side * unit).astype(np.float32)
    h, w = cut.shape[:2]
    places = Grid(0, 0, w, h, 1).nodes()
    places[..., 1] += shift
    return sampled(cut, places)


def without_crease(upper: Image, lids: Lids, unit: float) -> Image:
    """The upper lid's sheet with its crease smoothed out, as it is when the eye is shut.

    What is darker than the skin between crease and brow would be drawn out into smudges; it takes
    that skin's colour.
    """
    photo = f32(upper[..., :3])
    fine = blurred(photo, max(0.012 * unit, 0.5))
    above, from_brow = lids.upper - lids.v, lids.v - lids.brow
    across = 1 - smoothstep(np.abs(lids.s), 0.95, 1.2)
    skin = smoothstep(above, 0.045, 0.075) * smoothstep(from_brow, 0.02, 0.05) * across
    if float(skin.sum()) < 30.0:
        return upper
    grey = fine.mean(axis=-1)
    low, high = np.percentile(grey[skin > 0.5], (10, 45)) if (skin > 0.5).any() else (0.0, 1.0)
    skin = skin * (0.02 + smoothstep(grey, float(low), float(max(high, low + 1))))
    colour = spread(fine, f32(skin), 0.07 * unit)
    band = smoothstep(above, 0.012, 0.035) * smoothstep(from_brow, 0.01, 0.06) * across
    filled = photo + 0.9 * np.maximum(colour - fine, 0.0) * band[..., None]
    return u8(np.dstack([filled, upper[..., 3]]))
