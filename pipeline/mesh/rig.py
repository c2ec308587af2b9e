"""Everything that depends on one portrait at one size: texture, fields, eyes and mouth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.mesh import basis, eyes, masks, mouth, pose, rest, shading, unfold
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, sampled
from pipeline.mesh.drive import POSE, ROWS
from pipeline.mesh.fields import Grid, Window
from pipeline.mesh.framing import Framing
from pipeline.mesh.layers import Part, Tint, part_with
from pipeline.mesh.light import Light
from pipeline.types import Float32Array, Image, Portrait

OVERSAMPLING: Final = 2
"""Texture pixels per frame pixel: bilinear sampling then neither blurs nor shimmers."""

_BAND: Final = 11  # rows of nodes drawn at once: about half a megabyte of texture and places
_SMILES: Final = 0.05  # a portrait that smiles less has no folds to lose


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """One portrait at one size, ready to be drawn.

    Attributes:
        base: (h, w, 3) uint8, the frame for zero controls.
        texture: (2h, 2w, 4) uint8, the fourth channel idle (four are faster to sample than
            three); eyes and folds are drawn into it, so it belongs to one thread.
        face: over everything that can move, sampled from the texture.
        parts: of it, drawn one by one: they leave out what nothing moves and what the mouth
            draws over, and what one of them needs stays in the processor's cache.
        fields: (ROWS, 2 * ways) float32: by row, x and y of every way that nodes move in.
        nodes: the ways of all nodes, see `split`. Many have none or share one: sheets differ
            from the face in places only.
        skull: (pose.COEFFICIENTS, values) float32, likewise for what only the pose moves.
        wrinkled: the part of `face` that can wrinkle.
        eyes: the one at the image's left first.
        smile: how much the portrait smiles at rest, 0..1.
        wrinkles: over `wrinkled`.
        skin: tint of wrinkles.
        folds: of the resting smile, in the texture and in the mouth's sheets.
    """

    base: Image
    texture: Image
    face: Window
    parts: tuple[Grid, ...]
    wrinkled: Grid
    fields: Float32Array
    nodes: npt.NDArray[np.intp]
    skull: Float32Array
    eyes: tuple[eyes.Eye, eyes.Eye]
    mouth: mouth.Mouth
    smile: float
    wrinkles: tuple[shading.Wrinkle, ...]
    skin: Tint
    folds: tuple[unfold.Fold, ...]

    def split(self, coefficients: Float32Array) -> list[Float32Array]:
        """Forward fields of one frame: face, upper sheet, skull, lower sheet."""
        moves = (coefficients @ self.fields).reshape(-1, 2)
        values = np.take(moves, self.nodes, axis=0)
        slot, skin = self.mouth.slot.outer, self.mouth.skin.outer
        parts, start = [], 0
        for grid in (self.face.outer, slot, skin):
            end = start + grid.rows * grid.columns
            parts.append(values[start:end].reshape(grid.rows, grid.columns, 2))
            start = end
        skull = (coefficients[POSE:] @ self.skull).reshape(slot.rows, slot.columns, 2)
        return [parts[0], parts[1], skull, parts[2]]

    def wrinkled_places(self, nodes: Float32Array, part: Part) -> tuple[Grid, Float32Array]:
        """Where a frame shows a part of what can wrinkle, and what of that part.

        Args:
            nodes: of `face`.
            part: rows and columns of `wrinkled`.

        Returns:
            Nodes of the frame, and where in the part every pixel of theirs rests.
        """
        s = 1.0 / OVERSAMPLING
        rows, columns = part
        corner = self.wrinkled.left + columns.start, self.wrinkled.top + rows.start
        x, y = (0.5 * s - 0.5 - start for start in corner)
        rests = cast(Float32Array, cv2.transform(nodes, f32([[s, 0.0, x], [0.0, s, y]])))
        margin = self.wrinkled.stride  # a small part may lie between nodes
        end = columns.stop - columns.start + margin, rows.stop - rows.start + margin
        shown = cv2.inRange(rests[1:-1, 1:-1], (-margin, -margin), end) > 0
        near = part_with(shown[self.face.inner.window(self.wrinkled)])
        place = self.wrinkled.beside(near) if near is not None else self.wrinkled
        return place, self.face.places(rests, place)


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
    base = framing.base(colours)
    grid.cut(base)[:] = sampled(texture, grid.texture_places(OVERSAMPLING))[..., :3]
    fields = basis.fields(face, grid, size_px)
    ways, nodes = _ways(fields, grid, windows)
    whole = Grid(0, 0, texture.shape[1], texture.shape[0], 1)
    smile, light = rest.smile(face), Light.on_face(fine, colours)
    lips = mouth.prepare(fine, colours, windows, rest.parting(face), light)
    wrinkled = _around(grid, face.to_pixels(masks.outline(face)), (0.0, 0.0, 0.0, 0.0), 1.0)
    return Rig(
        base=base,
        texture=texture,
        face=Window.of(grid, grid, whole, OVERSAMPLING),
        parts=_moving(fields.face, grid, windows[0].inner),
        wrinkled=wrinkled,
        fields=ways,
        nodes=nodes,
        skull=_pose_of_skull(fields.skull, grid, windows[0]),
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


def _ways(
    fields: basis.Fields, grid: Grid, windows: tuple[Window, Window]
) -> tuple[Float32Array, npt.NDArray[np.intp]]:
    """The different ways that nodes of face and sheets move in, and which is whose."""
    slot, skin = (grid.window(window.outer) for window in windows)
    parts = (fields.face, fields.upper[:, slot[0], slot[1]], fields.lower[:, skin[0], skin[1]])
    stacked = np.concatenate([part.reshape(ROWS, -1, 2) for part in parts], axis=1)
    by_node = np.ascontiguousarray(stacked.transpose(1, 0, 2)).reshape(-1, ROWS * 2)
    bytes_ = by_node.view(np.dtype((np.void, by_node.strides[0])))[:, 0]
    _, first, nodes = np.unique(bytes_, return_index=True, return_inverse=True)
    return np.ascontiguousarray(stacked[:, first].reshape(ROWS, -1)), nodes


def _pose_of_skull(skull: Float32Array, grid: Grid, slot: Window) -> Float32Array:
    rows, columns = grid.window(slot.outer)
    return np.ascontiguousarray(skull[POSE:, rows, columns].reshape(pose.COEFFICIENTS, -1))


def _moving(fields: Float32Array, grid: Grid, slot: Grid) -> tuple[Grid, ...]:
    """Parts of a grid that together hold all that `fields` can move, without the slot."""
    moves = np.abs(fields).max(axis=(0, 3)) > 0.0
    moves = cv2.dilate(moves.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    hole = grid.window(slot)
    cuts = {*range(0, grid.rows, _BAND), grid.rows, hole[0].start, hole[0].stop}
    parts = []
    for top, bottom in pairwise(sorted(cuts)):
        columns = np.flatnonzero(moves[top:bottom].any(axis=0))
        inside = hole[0].start <= top < hole[0].stop
        beside = (columns < hole[1].start, columns >= hole[1].stop)
        for chosen in [columns[side] for side in beside] if inside else [columns]:
            if chosen.size:
                left, right = int(chosen[0]), int(chosen[-1]) + 1
                parts.append(grid.block(left, top, right, bottom))
    return tuple(parts)


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
