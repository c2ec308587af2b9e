"""The inside of the mouth, and the two sheets of skin that end at the lips.

The upper sheet ends at the upper lip. The lower one ends at the lower lip and at the jaw line,
so that a dropping chin covers the neck. Between the lips lies a cavity with teeth and a tongue:
upper teeth belong to the skull, lower teeth and tongue to the jaw. A portrait that shows its own
teeth keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

import numpy as np

from pipeline.mesh import layers
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, sampled, smoothstep, u8
from pipeline.mesh.curves import LOWER_LIP, UPPER_LIP, lip_edge, smooth_line
from pipeline.mesh.fields import Grid
from pipeline.mesh.layers import Tint
from pipeline.mesh.masks import distance_outside
from pipeline.types import Float32Array, Image

_LIP_EDGE: Final = 0.012
_LIP_INSET: Final = 0.014  # photos blur lips into teeth over about this much
_SHOWS_TEETH: Final = 0.045  # a parting in the portrait beyond which its own teeth are used
JAW_DROP: Final = 0.28
JAW_SHIFT: Final = 0.09

# Widths of the upper front teeth from the middle outwards as they appear from the front, and
# their height, in face units (8.5, 6.5, 5.5, 4, 3 mm; 10 mm).
_TEETH: Final = (0.0, 0.130, 0.228, 0.310, 0.372, 0.420)
_TOOTH_HEIGHT: Final = 0.16


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """One mouth, taken apart; arrays in pixels of the texture patch at `left`, `top`.

    Attributes:
        upper, lower: sheets (h, w, 4).
        cavity: (h, w, 3), what is behind everything.
        upper_teeth, jaw: (h, w, 4), colour and opacity; skull-fixed and jaw-fixed.
    """

    left: int
    top: int
    upper: Image
    lower: Image
    cavity: Image
    upper_teeth: Image
    jaw: Image


def prepare(face: Anatomy, texture: Image, box: tuple[int, int, int, int], light: Light) -> Mouth:
    """Take the mouth apart.

    Args:
        face: the face in pixels of the texture.
        texture: (H, W, 3) uint8.
        box: left, top, right, bottom of the patch in pixels of the texture.
        light: how the portrait is lit.
    """
    left, top, right, bottom = box
    cut = np.ascontiguousarray(texture[top:bottom, left:right])
    h, w = cut.shape[:2]
    at = face.to_face(Grid(left, top, w, h, 1).nodes())
    p = face.to_face(face.points)
    upper_line = lip_edge(p, UPPER_LIP, at[..., 0])
    lower_line = np.maximum(lip_edge(p, LOWER_LIP, at[..., 0]), upper_line)
    hole = np.maximum(distance_outside(_below_lip(face), at), distance_outside(_gape(face), at))
    upper = layers.with_edge(_folded(cut, at, upper_line, face, -1.0), hole)
    lower = layers.with_edge(
        _folded(cut, at, lower_line, face, 1.0), -distance_outside(_lower_skin(face), at)
    )
    own = _own_interior(cut, at, face, (upper_line, lower_line), light)
    cavity = _cavity(at, face, light)
    teeth = _upper_teeth(at, face, light) if own is None else own
    return Mouth(left, top, upper, lower, cavity, teeth, _jaw(at, face, light))


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


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """How a portrait is lit and coloured, for what it does not show.

    Attributes:
        level: (3,) float32, per channel, relative to a well-lit face.
        colour: 1 for a colour picture, 0 for a grey one.
    """

    level: Float32Array
    colour: float

    @classmethod
    def on_face(cls, texture: Image, face: Anatomy) -> Light:
        """Measured on both cheeks and the nose."""
        spots = np.stack([face.soft["appleLeft"], face.soft["appleRight"], face.points[30]])
        r = max(int(0.06 * face.unit), 1)
        samples = []
        for x, y in np.maximum(spots.astype(int), 0):
            part = texture[max(y - r, 0) : y + r, max(x - r, 0) : x + r].reshape(-1, 3)
            samples.append(np.median(part, axis=0) if len(part) else _TYPICAL_SKIN)
        skin = np.maximum(np.mean(samples, axis=0), 1.0)
        level = float(np.clip(skin.mean() / _TYPICAL_SKIN.mean(), 0.45, 1.1))
        tint = np.clip(skin / skin.mean() / (_TYPICAL_SKIN / _TYPICAL_SKIN.mean()), 0.7, 1.4)
        vivid = float(np.clip((skin.max() - skin.min()) / skin.max() / 0.25, 0.0, 1.0))
        return cls(f32(level * (1 - 0.3 * vivid + 0.3 * vivid * tint)), vivid)

    def tint(self, colour: Tint) -> Tint:
        """A tint of shadows, weaker in paler pictures and none in grey ones."""
        r, g, b = (1.0 + (share - 1.0) * self.colour for share in colour)
        return r, g, b

    def on(self, colour: Float32Array) -> Image:
        """A colour (..., 3) as it looks in this light, uint8."""
        grey = colour.mean(axis=-1, keepdims=True)
        return u8((grey + (colour - grey) * self.colour) * self.level)


_TYPICAL_SKIN: Final = f32([205, 160, 130])


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


def _upper_teeth(at: Float32Array, face: Anatomy, light: Light) -> Image:
    x, line = _middle(face, at)
    bottom = line + 0.065 - 0.30 * x * x - 0.016 * _between_teeth(x) ** 2
    colour, opacity = _teeth(x, f32(at[..., 1] - bottom))
    return np.dstack([light.on(colour), u8(255 * opacity)])


def _between_teeth(x: Float32Array) -> Float32Array:
    """0 in the middle of each tooth, 1 at the gaps."""
    across = np.abs(x)
    out = np.ones_like(x)
    for a, b in pairwise(_TEETH):
        inside = (across >= a) & (across < b)
        out = np.where(inside, np.abs(2 * (across - a) / (b - a) - 1), out)
    return f32(out)


def _teeth(x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Colour and opacity of teeth whose biting edge lies at y = 0, their roots at negative y."""
    gap = _between_teeth(x)
    rounding = 1.0 - 0.18 * gap**4 - 0.22 * smoothstep(gap, 0.86, 1.0)
    arch = 1.0 - 0.75 * smoothstep(np.abs(x), 0.10, 0.42)
    height = 1.0 - 0.12 * smoothstep(-y, 0.06, 0.16) - 0.10 * smoothstep(y, -0.03, 0.0)
    enamel = f32([226, 216, 200]) * (rounding * arch * height)[..., None]
    gum = f32([150, 82, 80]) * (0.8 * arch)[..., None]
    roots = smoothstep(-y + 0.02 * gap**2, _TOOTH_HEIGHT - 0.01, _TOOTH_HEIGHT + 0.01)[..., None]
    opacity = (1 - smoothstep(y, -0.008, 0.006)) * (1 - smoothstep(np.abs(x), 0.39, 0.43))
    return f32(enamel * (1 - roots) + gum * roots), f32(opacity)


def _jaw(at: Float32Array, face: Anatomy, light: Light) -> Image:
    """Tongue and lower teeth, where they lie while the jaw is as in the portrait."""
    x, _ = _middle(face, at)
    y = at[..., 1] - face.to_face(face.points)[66, 1]
    mound = f32((x / 0.25) ** 2 + ((y - 0.02) / 0.17) ** 2)
    tongue = 1 - smoothstep(mound, 0.45, 1.05)
    groove = 1 - 0.15 * np.exp(-((x / 0.03) ** 2))
    flesh = f32([162, 84, 82]) * (groove * (0.48 + 0.4 * np.clip(1 - mound, 0, 1)))[..., None]
    scallop = 0.006 * _between_teeth(f32(x * 1.5)) ** 2
    teeth, cover = _teeth(f32(x * 1.5), f32(-(y + 0.045 - 0.30 * x * x + scallop)))
    cover = cover * (1 - smoothstep(np.abs(x), 0.16, 0.26))
    colour = flesh * (1 - cover[..., None]) + teeth * f32([0.70, 0.60, 0.53]) * cover[..., None]
    return np.dstack([light.on(f32(colour)), u8(255 * np.maximum(tongue, cover))])


def _own_interior(
    cut: Image,
    at: Float32Array,
    face: Anatomy,
    lips: tuple[Float32Array, Float32Array],
    light: Light,
) -> Image | None:
    """What the portrait itself shows between its lips, or None where they are closed.

    Its teeth are continued a little below the lower lip's edge, and above the upper lip's until
    they reach the gum, for lips that move away.
    """
    p = face.to_face(face.points)
    upper, lower = lips
    if float((lower - upper).max()) < _SHOWS_TEETH:
        return None
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
    return u8(np.dstack([colour, 255 * opacity]))


def opacity_of(layer: Image) -> Float32Array:
    """Fourth channel of a warped layer of opacity, (h, w) float32 in [0, 1]."""
    return cast(Float32Array, layers.edge_of(layer).astype(np.float32) * np.float32(1 / 255))


COVERAGE: Final = layers.coverage_table(_LIP_EDGE)
UPPER_SHADOW: Final = layers.shadow_table(0.022, 0.42)
LOWER_SHADOW: Final = layers.shadow_table(0.010, 0.30)
FLESH: Final = (1.0, 1.35, 1.45)  # shadows in a mouth are red
SEAM: Final = layers.closeness_table(0.016)
SEAM_DEPTH: Final = 0.42  # of the line between lips that were apart in the portrait
