"""How far each influence reaches: soft masks that end before the background does."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, sampled_field, smoothstep
from pipeline.types import Float32Array

# Face units beyond the outline of the face where an influence has faded to nothing.
_EXPRESSION_REACH: Final = 0.34
_SHEET_REACH: Final = (0.55, 1.0)
_POSE_REACH_UP: Final = 0.75  # hair hides a long fade, collars and necks do not
_POSE_REACH_DOWN: Final = 0.3
_BORDER: Final = 0.12


def outline(face: Anatomy) -> Float32Array:
    """The face from ear to ear over chin and forehead: (n, 2) float32 in face units."""
    at = face.to_face(face.points)
    jaw = at[:17]
    left, right = jaw[0], jaw[16]
    brow = min(at[17:27, 1].min(), -0.3)
    top = brow - 0.52
    t = np.linspace(0.0, np.pi, 13)[1:-1]
    middle, half = (left[0] + right[0]) / 2, (right[0] - left[0]) / 2
    base = (left[1] + right[1]) / 2
    forehead = np.stack(
        [middle + half * np.cos(t), base + (top - base) * np.sin(t) ** 0.8], axis=-1
    )
    return np.concatenate([jaw, forehead]).astype(np.float32)


def distance_outside(polygon: Float32Array, at: Float32Array) -> Float32Array:
    """Signed distance to a closed polygon, positive outside: at.shape[:-1] float32.

    Args:
        polygon: (n, 2).
        at: (..., 2), in the same unit.
    """
    x = np.ascontiguousarray(at[..., 0], np.float32).ravel()
    y = np.ascontiguousarray(at[..., 1], np.float32).ravel()
    best = np.full(len(x), np.inf, np.float32)
    inside = np.zeros(len(x), bool)
    corners = polygon.astype(np.float32)
    for p, q in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along_x, along_y = q - p
        dx, dy = x - p[0], y - p[1]
        crosses = (dy < 0.0) != (y < q[1])
        inside ^= crosses & (dx < along_x / (along_y or np.float32(1e-12)) * dy)
        # In place: this is most of what preparing a portrait costs.
        t = dx * along_x
        t += dy * along_y
        t /= max(along_x**2 + along_y**2, np.float32(1e-12))
        np.clip(t, 0.0, 1.0, out=t)
        dx -= t * along_x
        dy -= t * along_y
        dx *= dx
        dy *= dy
        dx += dy
        np.minimum(best, dx, out=best)
    np.sqrt(best, out=best)
    return np.where(inside, -best, best).reshape(at.shape[:-1])


def quick_distance(polygon: Float32Array, at: Float32Array, step: int = 3) -> Float32Array:
    """`distance_outside` over the pixels of a picture, interpolated from every third one.

    Args:
        polygon: (n, 2).
        at: (h, w, 2), places of a regular grid of pixels.
    """
    h, w = at.shape[:2]
    rows = np.linspace(0, h - 1, max(-(-h // step), 2)).round().astype(int)
    columns = np.linspace(0, w - 1, max(-(-w // step), 2)).round().astype(int)
    coarse = distance_outside(polygon, at[np.ix_(rows, columns)])
    x = np.interp(np.arange(w), columns, np.arange(len(columns)))
    y = np.interp(np.arange(h), rows, np.arange(len(rows)))
    return sampled_field(coarse, f32(np.stack(np.meshgrid(x, y), axis=-1)))


def border(nodes: Float32Array, width: int, height: int, unit: float) -> Float32Array:
    """1 inside the canvas, falling to 0 at its edges, so that nothing is drawn in from beyond."""
    edge = np.minimum.reduce(
        [nodes[..., 0], nodes[..., 1], width - 1 - nodes[..., 0], height - 1 - nodes[..., 1]]
    )
    return smoothstep(edge, 0.0, _BORDER * unit).astype(np.float32)


def expression(face: Anatomy, nodes: Float32Array) -> Float32Array:
    """Where expressions move skin: the face and a margin of hair and neck."""
    outside = distance_outside(outline(face), face.to_face(nodes))
    return (1.0 - smoothstep(outside, 0.0, _EXPRESSION_REACH)).astype(np.float32)


def lower_sheet(face: Anatomy, nodes: Float32Array) -> Float32Array:
    """Where the lower sheet moves: well beyond the jaw line at which it ends."""
    outside = distance_outside(outline(face), face.to_face(nodes))
    return 1.0 - smoothstep(outside, *_SHEET_REACH)


def pose(face: Anatomy, nodes: Float32Array) -> Float32Array:
    """Where head turns move pixels: the face fully, hair and neck less and less."""
    at = face.to_face(nodes)
    outside = distance_outside(outline(face), at)
    up = 1.0 - smoothstep(at[..., 1], 0.0, 1.2)
    reach = _POSE_REACH_DOWN + (_POSE_REACH_UP - _POSE_REACH_DOWN) * up
    return 1.0 - smoothstep((outside + 0.05) / (reach + 0.05), 0.0, 1.0)
