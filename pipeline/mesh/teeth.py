"""The inside of the mouth: a cavity with teeth and a tongue.

Upper teeth belong to the skull, lower teeth and tongue to the jaw. A portrait that shows its own
teeth keeps them; others get drawn ones.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, sampled, smoothstep, u8
from pipeline.mesh.curves import LOWER_LIP, UPPER_LIP, lip_edge
from pipeline.mesh.fields import Grid
from pipeline.mesh.light import Light
from pipeline.types import Float32Array, Image

_SHOWS_TEETH: Final = 0.045  # a parting in the portrait beyond which its own teeth are used

# Widths of the upper front teeth from the middle outwards as they appear from the front, and
# their height, in face units (8.5, 6.5, 5.5, 4, 3 mm; 10 mm).
_TEETH: Final = (0.0, 0.130, 0.228, 0.310, 0.372, 0.420)
_TOOTH_HEIGHT: Final = 0.16


def skull_layer(cut: Image, at: Float32Array, face: Anatomy, light: Light) -> Image:
    """Cavity and upper teeth: (h, w, 4) uint8, the teeth's opacity in the fourth channel.

    Args:
        cut: (h, w, 3) uint8, part of the texture.
        at: (h, w, 2) float32, its pixels in face units.
        face: in pixels of the texture.
        light: on the face.
    """
    p = face.to_face(face.points)
    upper = lip_edge(p, UPPER_LIP, at[..., 0])
    lower = np.maximum(lip_edge(p, LOWER_LIP, at[..., 0]), upper)
    shows = float((lower - upper).max()) >= _SHOWS_TEETH
    if shows:
        teeth, opacity = _own_teeth(cut, at, face, (upper, lower), light)
    else:
        teeth, opacity = _upper_teeth(at, face, light)
    cavity = f32(_cavity(at, face, light))
    mixed = cavity + (teeth - cavity) * opacity[..., None]
    return u8(np.dstack([mixed, 255 * opacity]))


def jaw_layer(at: Float32Array, face: Anatomy, light: Light) -> Image:
    """Tongue and lower teeth where they lie in the portrait: (h, w, 4), opacity in the fourth."""
    x, _ = _middle(face, at)
    y = at[..., 1] - face.to_face(face.points)[66, 1]
    mound = f32((x / 0.25) ** 2 + ((y - 0.02) / 0.17) ** 2)
    tongue = 1 - smoothstep(mound, 0.45, 1.05)
    groove = 1 - 0.15 * np.exp(-((x / 0.03) ** 2))
    flesh = f32([162, 84, 82]) * (groove * (0.48 + 0.4 * np.clip(1 - mound, 0, 1)))[..., None]
    scallop = 0.006 * _between_teeth(f32(x * 1.5)) ** 2
    teeth, cover = _teeth(f32(x * 1.5), f32(-(y + 0.045 - 0.30 * x * x + scallop)), 0.4)
    cover = cover * (1 - smoothstep(np.abs(x), 0.16, 0.26))
    colour = flesh * (1 - cover[..., None]) + teeth * f32([0.70, 0.60, 0.53]) * cover[..., None]
    return np.dstack([light.on(f32(colour)), u8(255 * np.maximum(tongue, cover))])


def _middle(face: Anatomy, at: Float32Array) -> tuple[Float32Array, float]:
    """Abscissa from the middle of the mouth, and the height at which the teeth meet."""
    p = face.to_face(face.points)
    centre = float((p[60, 0] + p[64, 0]) / 2)
    return at[..., 0] - np.float32(centre), float(p[62, 1])


def _cavity(at: Float32Array, face: Anatomy, light: Light) -> Image:
    x, line = _middle(face, at)
    depth = np.exp(-((x / 0.34) ** 2) - ((at[..., 1] - line - 0.16) / 0.22) ** 2)
    near, far = f32([92, 40, 37]), f32([36, 13, 13])
    colour = near + (far - near) * np.clip(1.25 * depth, 0, 1)[..., None]
    return light.on(f32(colour))


def _upper_teeth(
    at: Float32Array, face: Anatomy, light: Light
) -> tuple[Float32Array, Float32Array]:
    x, line = _middle(face, at)
    bottom = line + 0.065 - 0.30 * x * x - 0.016 * _between_teeth(x) ** 2
    colour, opacity = _teeth(x, f32(at[..., 1] - bottom))
    return f32(light.on(colour)), opacity


def _between_teeth(x: Float32Array) -> Float32Array:
    """0 in the middle of each tooth, 1 at the gaps."""
    across = np.abs(x)
    out = np.ones_like(x)
    for a, b in pairwise(_TEETH):
        inside = (across >= a) & (across < b)
        out = np.where(inside, np.abs(2 * (across - a) / (b - a) - 1), out)
    return f32(out)


def _teeth(
    x: Float32Array, y: Float32Array, gaps: float = 1.0
) -> tuple[Float32Array, Float32Array]:
    """Colour and opacity of teeth whose biting edge lies at y = 0, their roots at negative y.

    Args:
        x, y: in face units; x from the middle of the mouth.
        gaps: how clearly one tooth stands out from the next.
    """
    gap = _between_teeth(x)
    rounding = 1.0 - gaps * (0.18 * gap**4 + 0.22 * smoothstep(gap, 0.86, 1.0))
    arch = 1.0 - 0.75 * smoothstep(np.abs(x), 0.10, 0.42)
    height = 1.0 - 0.12 * smoothstep(-y, 0.06, 0.16) - 0.10 * smoothstep(y, -0.03, 0.0)
    enamel = f32([226, 216, 200]) * (rounding * arch * height)[..., None]
    gum = f32([150, 82, 80]) * (0.8 * arch)[..., None]
    roots = smoothstep(-y + 0.02 * gap**2, _TOOTH_HEIGHT - 0.01, _TOOTH_HEIGHT + 0.01)[..., None]
    opacity = (1 - smoothstep(y, -0.008, 0.006)) * (1 - smoothstep(np.abs(x), 0.39, 0.43))
    return f32(enamel * (1 - roots) + gum * roots), f32(opacity)


def _own_teeth(
    cut: Image,
    at: Float32Array,
    face: Anatomy,
    lips: tuple[Float32Array, Float32Array],
    light: Light,
) -> tuple[Float32Array, Float32Array]:
    """What the portrait itself shows between its lips: colour and opacity.

    Its teeth are continued a little below the lower lip's edge, and above the upper lip's until
    they reach the gum, for lips that move away.
    """
    p = face.to_face(face.points)
    upper, lower = lips
    above = np.maximum(upper + 0.014 - at[..., 1], 0.0)
    below = np.maximum(at[..., 1] - (lower - 0.012), 0.0)
    height = np.maximum(lower - upper - 0.026, 0.004)
    up = np.minimum(1.7 * above, height + above)
    down = -np.minimum(1.4 * below, height + below)
    shift = f32((up + down) * face.unit)[..., None] * face.axes[1]
    h, w = cut.shape[:2]
    teeth = f32(sampled(cut, f32(Grid(0, 0, w, h, 1).nodes() + shift)))
    teeth = teeth * (1.0 - 0.35 * smoothstep(above, 0.0, 0.06))[..., None]
    teeth = teeth * (1.0 - 0.40 * smoothstep(below, 0.0, 0.035))[..., None]
    x, _ = _middle(face, at)
    half = float(p[64, 0] - p[60, 0]) / 2
    gum = f32([168, 96, 92]) * (1.0 - 0.7 * smoothstep(np.abs(x) / half, 0.3, 1.0))[..., None]
    gums = 0.9 * smoothstep(above - 0.012 * (1 - _between_teeth(x)), 0.012, 0.032)[..., None]
    colour = teeth * (1 - gums) + light.on(gum) * gums
    sides = np.minimum(at[..., 0] - p[60, 0], p[64, 0] - at[..., 0])
    opacity = smoothstep(sides, 0.0, 0.03) * (1 - smoothstep(above, 0.10, 0.16))
    tips = below - 0.010 * (1 - _between_teeth(x))
    opacity = opacity * (1 - smoothstep(tips, 0.020, 0.034))
    return f32(colour), f32(opacity)
