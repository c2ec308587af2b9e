"""Where the parts of one face lie, in the face's own axes and unit.

Everything the mesh renderer moves is described in *face units*: 1 is the distance between
the centres of the two eyes (about 63 mm on an adult), x runs along the line of the eyes to
the image's right, y down the face. That makes one table of movements fit every portrait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.errors import RenderError
from pipeline.mesh.arrays import f32
from pipeline.mesh.curves import LOWER_LIP, UPPER_LIP, lip_abscissae, lip_edge
from pipeline.types import FaceLandmarks, Float32Array

POINTS: Final = 68
_IRIS_RADII: Final = (0.080, 0.105)  # 11.7 mm across on every adult, to 63 mm
SIDES: Final = ("Right", "Left")
"""The character's own sides, the one at the image's left first."""

MIRRORED: Final[Mapping[int, int]] = {
    **{i: 16 - i for i in range(17)},
    **{17 + i: 26 - i for i in range(10)},
    **{27 + i: 27 + i for i in range(4)},
    **{31 + i: 35 - i for i in range(5)},
    **dict(zip((36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46), strict=True)),
    **dict(zip((42, 43, 44, 45, 46, 47), (39, 38, 37, 36, 41, 40), strict=True)),
    **{48 + i: 54 - i for i in range(7)},
    **dict(zip((55, 56, 57, 58, 59), (59, 58, 57, 56, 55), strict=True)),
    **{60 + i: 64 - i for i in range(5)},
    **dict(zip((65, 66, 67), (67, 66, 65), strict=True)),
}
"""iBUG-68 index to the index of the same spot on the other half of the face."""


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """One face on one canvas.

    Attributes:
        points: (68, 2) float32, landmarks in pixels of the canvas.
        irises: (2, 3) float32, x, y, radius in pixels of the canvas.
        origin: (2,) float32, middle between the eye centres, in pixels.
        axes: (2, 2) float32, rows are the face's x and y axis in the image, of length 1.
        unit: distance between the eye centres, in pixels.
        soft: named spots of soft tissue between the landmarks, in pixels.
    """

    points: Float32Array
    irises: Float32Array
    origin: Float32Array
    axes: Float32Array
    unit: float
    soft: Mapping[str, Float32Array]

    @classmethod
    def of(cls, landmarks: FaceLandmarks, scale: float, offset: tuple[float, float]) -> Anatomy:
        """The face of `landmarks`, scaled and moved to the canvas.

        Raises:
            RenderError: the landmarks do not describe a face.
        """
        points = ((landmarks.points + 0.5) * scale - 0.5 + f32(offset)).astype(np.float32)
        irises = landmarks.irises * np.float32(scale)
        smallest, largest = (share * _unit(points) for share in _IRIS_RADII)
        irises[:, 2] = np.clip(irises[:, 2], smallest, largest)
        irises[:, :2] += 0.5 * scale - 0.5 + f32(offset)
        eyes = np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0)])
        across = eyes[1] - eyes[0]
        unit = _unit(points)
        if unit < 4.0:
            raise RenderError("the face is too small to animate")
        x_axis = _upright(points, across)
        axes = np.stack([x_axis, f32([-x_axis[1], x_axis[0]])]).astype(np.float32)
        origin = eyes.mean(axis=0).astype(np.float32)
        if float((points[8] - origin) @ axes[1]) < unit * 0.5:
            raise RenderError("the landmarks do not describe an upright face")
        face = cls(points, irises.astype(np.float32), origin, axes, unit, {})
        return cls(points, face.irises, origin, axes, unit, _soft_points(face))

    def to_face(self, pixels: Float32Array) -> Float32Array:
        """Pixels (..., 2) to face units (..., 2)."""
        return ((pixels - self.origin) @ self.axes.T / np.float32(self.unit)).astype(np.float32)

    def to_pixels(self, units: Float32Array) -> Float32Array:
        """Face units (..., 2) to pixels (..., 2)."""
        return (units @ self.axes * np.float32(self.unit) + self.origin).astype(np.float32)

    def spot(self, name: int | str) -> Float32Array:
        """Pixels (2,) of a landmark by index or a soft spot by name."""
        return f32(self.points[name]) if isinstance(name, int) else self.soft[name]

    def on_side(self, name: int | str, side: str) -> Float32Array:
        """Pixels (2,) of a spot named for the character's left half, on `side`."""
        if isinstance(name, int):
            return f32(self.points[name if side == "Left" else MIRRORED[name]])
        return self.soft[name if name in self.soft else name + side]


def _unit(points: Float32Array) -> float:
    return float(np.hypot(*(points[42:48].mean(axis=0) - points[36:42].mean(axis=0))))


def _upright(points: Float32Array, across: Float32Array) -> Float32Array:
    """The face's x axis: mostly the line of the eyes, corrected by mouth and chin."""
    mouth = points[54] - points[48]
    down = points[8] - (points[36:42].mean(axis=0) + points[42:48].mean(axis=0)) / 2
    angles = [np.arctan2(v[1], v[0]) for v in (across, mouth, f32([down[1], -down[0]]))]
    angle = angles[0] + np.clip(0.25 * (angles[1] + angles[2] - 2 * angles[0]), -0.1, 0.1)
    return f32([float(np.cos(angle)), float(np.sin(angle))])


def _soft_points(face: Anatomy) -> dict[str, Float32Array]:
    """Spots without a landmark of their own: cheeks, forehead, chin, round the mouth."""
    at = face.to_face(face.points)
    flipped = at * f32([-1.0, 1.0])
    soft: dict[str, Float32Array] = {}
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        # Both sides are written for the image's right half; the other one is mirrored first.
        p = at if side == "Left" else flipped[[MIRRORED[i] for i in range(POINTS)]]
        for name, spot in _half_face(p).items():
            soft[name + side] = face.to_pixels((spot * f32([sign, 1.0])).astype(np.float32))
    soft["glabella"] = face.to_pixels((at[21] + at[22]) / 2)
    soft["forehead"] = soft["glabella"] - face.axes[1] * np.float32(0.35 * face.unit)
    soft["philtrum"] = (face.points[33] + face.points[51]) / 2
    x = lip_abscissae(at)
    for name, lip in (("upper_lip", UPPER_LIP), ("lower_lip", LOWER_LIP)):
        for k, spot in enumerate(np.stack([x, lip_edge(at, lip, x)], axis=-1)):
            soft[f"{name}{k}"] = face.to_pixels(f32(spot))
    centre = (at[30] + at[8]) / 2
    for i in range(3, 14):
        away = at[i] - centre
        soft[f"beyond{i}"] = face.to_pixels(f32(at[i] + 0.4 * away / np.hypot(*away)))
    soft["chin_boss"] = face.points[57] * 0.5 + face.points[8] * 0.5
    return soft


def _half_face(p: Float32Array) -> dict[str, Float32Array]:
    """Soft spots of the image's right half, in face units, from landmarks in face units."""

    def mix(*parts: tuple[float, Float32Array]) -> Float32Array:
        return f32(np.sum([weight * point for weight, point in parts], axis=0))

    def down(point: Float32Array, x: float, y: float) -> Float32Array:
        return (point + f32([x, y])).astype(np.float32)

    lower_lid = (p[46] + p[47]) / 2
    apple = mix((0.45, lower_lid), (0.3, p[35]), (0.25, p[14]))
    cheek = mix((0.4, p[54]), (0.35, p[14]), (0.25, apple))
    return {
        "under_eye": down(lower_lid, 0.0, 0.13),
        "apple": apple,
        "cheek": cheek,
        "jowl": mix((0.5, p[54]), (0.5, p[12])),
        "ala": down(p[35], 0.10, -0.08),
        "fold_top": down(p[35], 0.16, -0.04),
        "fold": mix((0.5, p[35]), (0.5, p[54])) + f32([0.10, 0.0]),
        "marionette": down(p[54], 0.0, 0.22),
        "chin_side": mix((0.5, p[56]), (0.5, p[10])),
        "brow_lid_in": mix((0.5, p[22]), (0.5, p[43])),
        "forehead_in": down((p[22] + p[23]) / 2, 0.0, -0.22),
        "forehead_mid": down(p[24], 0.0, -0.22),
        "forehead_out": down((p[25] + p[26]) / 2, 0.02, -0.2),
        "forehead_top": down(p[24], -0.05, -0.5),
        "temple": down(p[26], 0.16, 0.05),
    }
