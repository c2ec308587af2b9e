"""Head turns as a 2.5-D warp: a rough depth of the face, rotated and projected.

With depth z towards the viewer, a rotated point moves by a linear combination of x, y and z whose
coefficients depend on the angles alone; so a pose, like an expression, is a weighted sum of fixed
fields.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, smoothstep
from pipeline.types import FaceControls, Float32Array

COEFFICIENTS: Final = 6
# Degrees that the warp approaches but does not pass: beyond them one photo does not show enough.
_YAW_LIMIT: Final = 21.0
_PITCH_LIMIT: Final = 17.0
_ROLL_LIMIT: Final = 20.0
_PIVOT: Final = (0.0, 0.95)
"""What stays in place, in face units: between the ears, at the height of the mouth."""


def depth(at: Float32Array, face: Anatomy) -> Float32Array:
    """Height of the face above the plane of its outline, in face units: at.shape[:-1] float32.

    A parabolic shell over the face with a nose, lips, chin and brow on it and sockets in it;
    proportions of an average adult head (Farkas 1994) in units of 63 mm.
    """
    p = face.to_face(face.points)
    middle = (p[0] + p[16]) / 2
    half_width = float(np.hypot(*(p[16] - p[0]))) / 2 * 1.04
    chin = float(p[8, 1])
    centre_y, half_height = (chin - 1.15) / 2, (chin + 1.35) / 2
    x = (at[..., 0] - middle[0]) / half_width
    y = (at[..., 1] - centre_y) / half_height
    radius = x * x + y * y
    shell = 0.92 * np.maximum(1.0 - radius, 0.0) ** 0.9

    def bump(spot: Float32Array, sx: float, sy: float) -> Float32Array:
        dx, dy = at[..., 0] - spot[0], at[..., 1] - spot[1]
        return f32(np.exp(-0.5 * ((dx / sx) ** 2 + (dy / sy) ** 2)))

    tip, bridge = p[30], p[27]
    nose = 0.30 * bump(tip, 0.13, 0.16) + 0.12 * bump((tip + bridge) / 2, 0.10, 0.22)
    sockets = -0.07 * (bump(p[36:42].mean(0), 0.2, 0.12) + bump(p[42:48].mean(0), 0.2, 0.12))
    mouth = 0.06 * bump(p[48:68].mean(0), 0.28, 0.16) + 0.08 * bump(p[8] - [0, 0.12], 0.22, 0.15)
    return f32(shell + nose + sockets + mouth)


def basis(face: Anatomy, nodes: Float32Array, mask: Float32Array) -> Float32Array:
    """Fields that `coefficients` combine: (6, rows, columns, 2) float32 in pixels."""
    at = face.to_face(nodes)
    z = depth(at, face) * smoothstep(mask, 0.0, 0.5).astype(np.float32)
    relative = at - f32(_PIVOT)
    parts = (relative[..., 0] * mask, relative[..., 1] * mask, z)
    fields = [part[..., None] * axis for axis in face.axes for part in parts]
    return (np.stack(fields) * np.float32(face.unit)).astype(np.float32)


def coefficients(controls: FaceControls) -> Float32Array:
    """Weights (6,) of `basis` for the head angles of `controls`.

    Signs as in `FaceControls`: positive pitch looks down, positive yaw turns the nose to the
    image's left, positive roll tilts the top of the head to the image's right.
    """
    yaw = -_soft(controls.yaw, _YAW_LIMIT)
    pitch = _soft(controls.pitch, _PITCH_LIMIT)
    roll = _soft(controls.roll, _ROLL_LIMIT)
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    # Rows of roll * pitch * yaw that end up in the image; z towards the viewer.
    turned = np.array([[cy, 0.0, sy], [-sp * sy, cp, sp * cy]])
    rolled = np.array([[cr, -sr], [sr, cr]]) @ turned
    rolled[0, 0] -= 1.0
    rolled[1, 1] -= 1.0
    return f32(rolled.reshape(-1))


def _soft(degrees: float, limit: float) -> float:
    """Radians; follows small angles exactly and approaches `limit`."""
    return math.radians(limit * math.tanh(degrees / limit))
