"""Everything that depends on one portrait at one size: texture, fields, eyes and mouth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from pipeline.mesh import basis, eyes, masks, mouth, rest, shading, unfold
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import sampled
from pipeline.mesh.drive import ROWS
from pipeline.mesh.fields import Grid, Window
from pipeline.mesh.framing import Framing
from pipeline.mesh.layers import Tint
from pipeline.mesh.light import Light
from pipeline.types import Float32Array, Image, Portrait

OVERSAMPLING: Final = 2
"""Texture pixels per frame pixel: bilinear sampling then neither blurs nor shimmers."""

_SMILES: Final = 0.05  # a portrait that smiles less has no folds to lose


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """One portrait at one size, ready to be drawn.

    Attributes:
        base: (h, w, 3) uint8, the frame for zero controls.
        texture: (2h, 2w, 4) uint8, the fourth channel idle (four are faster to sample than
            three); eyes and folds are drawn into it, so it belongs to one thread.
        grid: over everything that can move.
        identity: `grid.indices()`.
        rest: (h, w, 2) float32, where in the texture each pixel of the grid's rectangle rests.
        fields: (ROWS, values) float32, see `split`.
        wrinkled: the part of `grid` that can wrinkle.
        pixels: (h, w, 2) float32, pixels of `wrinkled`'s rectangle.
        eyes: the one at the image's left first.
        smile: how much the portrait smiles at rest, 0..1.
        wrinkles: maps by row, see `shading`.
        skin: tint of wrinkles.
        folds: of the resting smile, in the texture and in the mouth's sheets.
    """

    base: Image
    texture: Image
    grid: Grid
    identity: Float32Array
    rest: Float32Array
    wrinkled: Grid
    pixels: Float32Array
    fields: Float32Array
    eyes: tuple[eyes.Eye, eyes.Eye]
    mouth: mouth.Mouth
    smile: float
    wrinkles: dict[int, Float32Array]
    skin: Tint
    folds: tuple[unfold.Fold, ...]

    def split(self, coefficients: Float32Array) -> list[Float32Array]:
        """Forward fields of one frame: face, upper sheet, skull, lower sheet."""
        values = coefficients @ self.fields
        slot, skin = self.mouth.slot.outer, self.mouth.skin.outer
        parts, start = [], 0
        for grid in (self.grid, slot, slot, skin):
            end = start + grid.rows * grid.columns * 2
            parts.append(values[start:end].reshape(grid.rows, grid.columns, 2))
            start = end
        return parts


def build(portrait: Portrait, size_px: tuple[int, int]) -> Rig:
    """Measure the portrait's face and lay out its fields for frames of `size_px`.

    Raises:
        RenderError: its landmarks do not describe a face that can be animated.
    """
    framing = Framing.of(portrait, size_px)
    face, fine = framing.face(portrait, 1), framing.face(portrait, OVERSAMPLING)
    colours = framing.texture(portrait, OVERSAMPLING)
    texture = _rgba(colours)
    grid = _face_grid(face, size_px)
    windows = _mouth_windows(face, grid, colours)
    places = grid.texture_places(OVERSAMPLING)
    base = framing.base(colours)
    grid.cut(base)[:] = sampled(texture, places)[..., :3]
    smile, light = rest.smile(face), Light.on_face(fine, colours)
    lips = mouth.prepare(fine, colours, windows, rest.parting(face), light)
    wrinkled = _around(grid, face.to_pixels(masks.outline(face)), (0.0, 0.0, 0.0, 0.0), 1.0)
    return Rig(
        base=base,
        texture=texture,
        grid=grid,
        identity=grid.indices(),
        rest=places,
        wrinkled=wrinkled,
        pixels=Grid(0, 0, wrinkled.width, wrinkled.height, 1).nodes(),
        fields=_stacked(basis.fields(face, grid, size_px), grid, windows),
        eyes=(eyes.prepare(fine, colours, 0), eyes.prepare(fine, colours, 1)),
        mouth=lips,
        smile=smile,
        wrinkles=shading.prepare(face, wrinkled, smile),
        skin=light.tint(shading.TINT),
        folds=_folds(fine, texture, lips) if smile > _SMILES else (),
    )


def _rgba(image: Image) -> Image:
    """(h, w, 4) from (h, w, 3), the fourth channel opaque."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), np.uint8)


def _stacked(fields: basis.Fields, grid: Grid, windows: tuple[Window, Window]) -> Float32Array:
    slot, skin = (grid.window(window.outer) for window in windows)
    parts = (
        fields.face,
        fields.upper[:, slot[0], slot[1]],
        fields.skull[:, slot[0], slot[1]],
        fields.lower[:, skin[0], skin[1]],
    )
    return np.ascontiguousarray(np.concatenate([part.reshape(ROWS, -1) for part in parts], axis=1))


def _folds(fine: Anatomy, texture: Image, lips: mouth.Mouth) -> tuple[unfold.Fold, ...]:
    patch = lips.skin.patch
    corner = (patch.left, patch.top)
    folds = unfold.prepare(fine, texture, (0, 0))
    for sheet in (lips.upper, lips.lower):
        folds += unfold.prepare(fine, sheet, corner)
    return folds


def _face_grid(face: Anatomy, size_px: tuple[int, int]) -> Grid:
    """The grid over everything that can move, in whole strides inside the canvas."""
    width, height = size_px
    stride = max(2, round(face.unit / 20))
    polygon = face.to_pixels(masks.outline(face))
    reach = 0.78 * face.unit
    left = int(max(polygon[:, 0].min() - reach, 0))
    top = int(max(polygon[:, 1].min() - reach, 0))
    right = int(min(polygon[:, 0].max() + reach, width))
    bottom = int(min(polygon[:, 1].max() + reach, height))
    columns, rows = (right - left) // stride, (bottom - top) // stride
    return Grid(left, top, max(columns, 2), max(rows, 2), stride)


def _mouth_windows(face: Anatomy, grid: Grid, texture: Image) -> tuple[Window, Window]:
    """Where the inside of the mouth can show, and where the lower sheet can."""
    u = face.unit
    jaw, lips = face.points[np.r_[4:13, 48:68]], face.points[48:68]
    skin = _around(grid, jaw, (0.25, 0.25, 0.25, 0.45), u)
    slot = _around(skin, lips, (0.34, 0.30, 0.34, 0.50), u)
    patch = _patch(skin, int(0.3 * u * OVERSAMPLING), texture)
    return (
        Window.of(_around(grid, lips, (0.55, 0.50, 0.55, 0.75), u), slot, patch, OVERSAMPLING),
        Window.of(_around(grid, jaw, (0.45, 0.45, 0.45, 0.65), u), skin, patch, OVERSAMPLING),
    )


def _around(
    grid: Grid, points: Float32Array, pads: tuple[float, float, float, float], unit: float
) -> Grid:
    """Nodes round points, with margins left, top, right, bottom in face units."""
    left, top, right, bottom = (pad * unit for pad in pads)
    low, high = points.min(axis=0), points.max(axis=0)
    return grid.part(low[0] - left, low[1] - top, high[0] + right, high[1] + bottom)


def _patch(skin: Grid, pad: int, texture: Image) -> Grid:
    height, width = texture.shape[:2]
    s = OVERSAMPLING
    left, top = max(skin.left * s - pad, 0), max(skin.top * s - pad, 0)
    right = min((skin.left + skin.width) * s + pad, width)
    bottom = min((skin.top + skin.height) * s + pad, height)
    return Grid(left, top, right - left, bottom - top, 1)
