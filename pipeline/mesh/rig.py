"""Everything that depends on one portrait at one size: texture, fields, eyes and mouth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.mesh import actions, drive, eyes, masks, mouth, pose, rest, shading, unfold
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, sampled, smoothstep
from pipeline.mesh.curves import LOWER_LIP, UPPER_LIP, lip_edge
from pipeline.mesh.fields import Grid, interpolator
from pipeline.mesh.framing import Framing
from pipeline.mesh.layers import Tint
from pipeline.types import ARKIT_BLENDSHAPES, Float32Array, Image, Portrait

OVERSAMPLING: Final = 2
"""Texture pixels per frame pixel: bilinear sampling then neither blurs nor shimmers."""

_JAW: Final = ("jawOpen", "jawLeft", "jawRight")
_CHIN: Final = 0.80  # from upper lip to chin, in face units, that the table of moves is made for
_CHEEK: Final = 0.40  # from the corner of the mouth to the jaw line, likewise
_PARTED: Final = 0.05  # lips this far apart at rest show no line of their own to close along
_SMILES: Final = 0.05  # a portrait that smiles less has no folds to lose
# Inner lip landmarks are left to the closer spots along the same edges.
_UPPER_ONLY: Final = (
    49, 50, 51, 52, 53, 61, 62, 63, 65, 66, 67, "philtrum", *actions.UPPER_LIP_SPOTS,
)  # fmt: skip
_LOWER_ONLY: Final = (
    *actions.BEYOND_JAW, *range(5, 12), 55, 56, 57, 58, 59, 61, 62, 63, 65, 66, 67, "chin_boss",
    "chin_sideLeft", "chin_sideRight", *actions.LOWER_LIP_SPOTS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """One portrait at one size, ready to be drawn.

    Attributes:
        base: (h, w, 3) uint8, the frame for zero controls.
        texture: (2h, 2w, 3) uint8; the eyes are drawn into it, so it belongs to one thread.
        fields: (rows, values) float32: whole face, then upper sheet, lower sheet and head pose
            round the mouth, for every row of `drive.Drive.rows`.
    """

    base: Image
    texture: Image
    face: Anatomy
    grid: Grid
    around: Grid
    inner: Grid
    fields: Float32Array
    identity: Float32Array
    around_identity: Float32Array
    pixels: Float32Array
    mouth_pixels: Float32Array
    eyes: tuple[eyes.Eye, eyes.Eye]
    mouth: mouth.Mouth
    smile: float
    seam: float
    flesh: Tint
    skin: Tint
    wrinkles: dict[int, Float32Array]
    view_pixels: Float32Array
    folds: tuple[unfold.Fold, ...]

    def split(self, coefficients: Float32Array) -> tuple[Float32Array, ...]:
        """Forward fields of one frame: face, upper sheet, lower sheet, head pose."""
        values = coefficients @ self.fields
        whole = self.grid.rows * self.grid.columns * 2
        part = self.around.rows * self.around.columns * 2
        shape = (self.around.rows, self.around.columns, 2)
        face = values[:whole].reshape(self.grid.rows, self.grid.columns, 2)
        upper, lower, head = (
            values[whole + i * part : whole + (i + 1) * part].reshape(shape) for i in range(3)
        )
        return face, upper, lower, head


def build(portrait: Portrait, size_px: tuple[int, int]) -> Rig:
    """Measure the portrait's face and lay out its fields for frames of `size_px`.

    Raises:
        RenderError: its landmarks do not describe a face that can be animated.
    """
    framing = Framing.of(portrait, size_px)
    face = framing.face(portrait, 1)
    fine = framing.face(portrait, OVERSAMPLING)
    texture = framing.texture(portrait, OVERSAMPLING)
    width, height = size_px
    grid = _face_grid(face, width, height)
    around = _mouth_grid(face, grid, 0.45)
    inner = _mouth_grid(face, grid, 0.25)
    window = grid.window(around)
    whole, upper, lower, head = _fields(face, grid, width, height)
    stacked = np.concatenate(
        [whole.reshape(drive.ROWS, -1)]
        + [part[:, window[0], window[1]].reshape(drive.ROWS, -1) for part in (upper, lower, head)],
        axis=1,
    )
    pixels = _texture_places(grid)
    base = framing.base(texture)
    still = sampled(texture, pixels)
    base[grid.top : grid.top + grid.height, grid.left : grid.left + grid.width] = still
    smile = rest.smile(face)
    light = mouth.Light.on_face(texture, fine)
    pixel_grid = Grid(grid.left, grid.top, grid.width, grid.height, 1)
    box = _patch_box(inner, fine, texture)
    return Rig(
        base=base,
        texture=texture,
        face=face,
        grid=grid,
        around=around,
        inner=inner,
        fields=np.ascontiguousarray(stacked, np.float32),
        identity=grid.indices(),
        around_identity=around.indices(),
        pixels=pixels,
        mouth_pixels=_texture_places(inner) - f32([box[0], box[1]]),
        view_pixels=Grid(0, 0, grid.width, grid.height, 1).nodes(),
        eyes=(eyes.prepare(fine, texture, 0), eyes.prepare(fine, texture, 1)),
        mouth=mouth.prepare(fine, texture, box, light),
        smile=smile,
        seam=mouth.SEAM_DEPTH * min(rest.parting(face) / _PARTED, 1.0),
        flesh=light.tint(mouth.FLESH),
        skin=light.tint(shading.TINT),
        wrinkles=shading.prepare(face, face.to_face(pixel_grid.nodes()), smile),
        folds=unfold.prepare(fine, texture, box) if smile > _SMILES else (),
    )


def _face_grid(face: Anatomy, width: int, height: int) -> Grid:
    """The grid over everything that can move, in whole strides inside the canvas."""
    stride = max(2, round(face.unit / 26))
    polygon = face.to_pixels(masks.outline(face))
    reach = 0.78 * face.unit
    left = int(max(polygon[:, 0].min() - reach, 0))
    top = int(max(polygon[:, 1].min() - reach, 0))
    right = int(min(polygon[:, 0].max() + reach, width))
    bottom = int(min(polygon[:, 1].max() + reach, height))
    return Grid(
        left, top, max((right - left) // stride, 2), max((bottom - top) // stride, 2), stride
    )


def _mouth_grid(face: Anatomy, grid: Grid, margin: float) -> Grid:
    lower = face.points[np.r_[4:13, 48:68]]
    low, high = lower.min(axis=0), lower.max(axis=0)
    pad = margin * face.unit
    return grid.part(low[0] - pad, low[1] - pad, high[0] + pad, high[1] + pad + 0.2 * face.unit)


def _texture_places(grid: Grid) -> Float32Array:
    """Where in the texture every pixel of the grid's rectangle rests."""
    pixels = Grid(grid.left, grid.top, grid.width, grid.height, 1).nodes()
    return ((pixels + 0.5) * OVERSAMPLING - 0.5).astype(np.float32)


def _patch_box(inner: Grid, fine: Anatomy, texture: Image) -> tuple[int, int, int, int]:
    pad = int(0.3 * fine.unit)
    height, width = texture.shape[:2]
    s = OVERSAMPLING
    return (
        max(inner.left * s - pad, 0),
        max(inner.top * s - pad, 0),
        min((inner.left + inner.width) * s + pad, width),
        min((inner.top + inner.height) * s + pad, height),
    )


def _fields(
    face: Anatomy, grid: Grid, width: int, height: int
) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Whole face, upper sheet, lower sheet and pose, each (ROWS, rows, columns, 2) in pixels."""
    nodes = grid.nodes()
    at = face.to_face(nodes)
    shape = (grid.rows, grid.columns, 2)
    moves = _all_moves(face)
    edge = masks.border(nodes, width, height, face.unit)[..., None]
    skin = masks.expression(face, nodes)[..., None] * edge
    up = _spread(face, at, moves, _LOWER_ONLY) * skin
    free = _spread(face, at, moves, _UPPER_ONLY)
    low = free * skin
    wide = free * masks.lower_sheet(face, nodes)[..., None] * edge
    below, between, far, deep = _seams(face, at)
    jaw = np.zeros(drive.POSE, bool)
    jaw[[ARKIT_BLENDSHAPES.index(n) for n in _JAW]] = True
    kept = np.where(jaw[:, None, None, None], deep[None], np.float32(1.0))
    joined = (up * (1 - below) + low * below) * kept
    upper = joined + between * (up - joined)
    lower = joined + far * (wide - joined)
    head_mask = masks.pose(face, nodes) * edge[..., 0]
    turns = pose.basis(face, nodes, head_mask)
    empty = np.zeros((drive.POSE, *shape), np.float32)
    return (
        np.concatenate([joined, turns]).astype(np.float32),
        np.concatenate([upper, turns]).astype(np.float32),
        np.concatenate([lower, turns]).astype(np.float32),
        np.concatenate([empty, turns]).astype(np.float32),
    )


def _all_moves(face: Anatomy) -> Float32Array:
    """Moves of all spots for all rows but the pose, in pixels: (POSE, spots, 2) float32."""
    out = np.zeros((drive.POSE, len(actions.SPOTS), 2), np.float32)
    at = face.to_face(face.points)
    for row, name in enumerate(ARKIT_BLENDSHAPES):
        moved = actions.moves(name)
        if moved is not None:
            out[row] = moved
            actions.follow_lips(out[row], at)
            if name in _JAW:
                actions.follow_jaw(out[row])
    out[:, :] *= proportions(face)
    out[drive.RELAX], out[drive.CLOSE] = rest.relaxing_moves(face)
    out[drive.JAW_CLOSED] = _jaw_closed(out[ARKIT_BLENDSHAPES.index("jawOpen")])
    actions.follow_lips(out[drive.JAW_CLOSED], at)
    return (out @ face.axes * np.float32(face.unit)).astype(np.float32)


def proportions(face: Anatomy) -> Float32Array:
    """How much of the table's moves suits this face's lower half: (spots, 2) float32.

    A short chin drops less, and the far side of a turned head has less room to move in.
    """
    p = face.to_face(face.points)
    at = face.to_face(np.stack([face.spot(spot) for spot in actions.SPOTS]))
    chin = float(np.clip((p[8, 1] - p[62, 1]) / _CHIN, 0.6, 1.15))
    middle = (p[48, 0] + p[54, 0]) / 2
    half = max(float(p[54, 0] - p[48, 0]) / 2, 0.1)
    away = np.clip((at[:, 0] - middle) / half, -1, 1)
    room = [
        float(np.hypot(*(p[3:7] - p[48]).T).min()),
        float(np.hypot(*(p[10:14] - p[54]).T).min()),
    ]
    left, right = (np.clip(r / _CHEEK, 0.4, 1.0) for r in room)
    share = 1 + np.where(away < 0, (left - 1) * -away, (right - 1) * away)
    lower = smoothstep(at[:, 1], 0.3, 0.6)
    x = 1 + (share - 1) * lower
    y = (1 + (0.5 + 0.5 * share - 1) * lower) * (1 + (chin - 1) * lower)
    return np.stack([x, y], axis=-1).astype(np.float32)


def _jaw_closed(jaw_open: Float32Array) -> Float32Array:
    """Lips that stay together over an open jaw: the lower lip goes back up, the chin does not."""
    out = np.zeros_like(jaw_open)
    for spot in (65, 66, 67, 55, 56, 57, 58, 59, 48, 54, 60, 64):
        upper = {65: 63, 66: 62, 67: 61}.get(spot)
        back = jaw_open[upper] - jaw_open[spot] if upper else -jaw_open[spot] * 0.9
        out[spot] = back
    out[actions.SPOT_INDEX["chin_boss"]] = -0.35 * jaw_open[actions.SPOT_INDEX["chin_boss"]]
    for side in ("Left", "Right"):
        row = actions.SPOT_INDEX["marionette" + side]
        out[row] = -0.6 * jaw_open[row]
    return out


def _spread(
    face: Anatomy, at: Float32Array, moves: Float32Array, without: tuple[object, ...]
) -> Float32Array:
    rows = [i for i, spot in enumerate(actions.SPOTS) if spot not in without]
    spots = face.to_face(np.stack([face.spot(actions.SPOTS[i]) for i in rows]))
    weights = interpolator(spots, at.reshape(-1, 2))
    spread = np.einsum("ns,ksd->knd", weights, moves[:, rows], optimize=True)
    return f32(spread.reshape(len(moves), *at.shape))


def _seams(
    face: Anatomy, at: Float32Array
) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """How the sheets join, (rows, columns, 1) each.

    Returns:
        below: 0 above the line of the mouth, 1 below; a step between the corners, softer beyond.
        between: 1 where the upper sheet differs from the whole face's field: between the corners.
        far: 1 where the lower sheet does: below the line from the corners to the jaw.
        deep: how much the whole face's field follows the jaw: all down to the mouth, little below,
            where the lower sheet covers it.
    """
    p = face.to_face(face.points)
    x, y = at[..., 0], at[..., 1]
    centre = (p[60, 0] + p[64, 0]) / 2
    half = (p[64, 0] - p[60, 0]) / 2
    upper = lip_edge(p, UPPER_LIP, x)
    lower = lip_edge(p, LOWER_LIP, x)
    line = (upper + np.maximum(lower, upper)) / 2
    outside = np.maximum(np.abs(x - centre) - half, 0.0)
    width = 0.02 + 0.9 * outside
    below = smoothstep((y - line) / width, -1.0, 1.0)
    between = 1.0 - smoothstep(outside, 0.0, 0.10)
    corner = (p[60, 1] + p[64, 1]) / 2
    jaw = (p[4, 1] + p[12, 1]) / 2
    span = (p[12, 0] - p[4, 0]) / 2 - half
    slope = corner + np.clip(outside / max(span, 0.1), 0, 1.2) * (jaw - corner)
    edge = np.where(outside > 0, slope, np.minimum(lower, slope))
    far = np.where(outside > 0, smoothstep(y - slope, 0.0, 0.16), 1.0)
    blend = smoothstep(outside, 0.0, 0.10)
    far = far * blend + (1 - blend)
    chin = float(p[8, 1])
    deep = 1.0 - 0.92 * smoothstep(y, float(edge.min()) + 0.15, chin - 0.05)
    return tuple(  # type: ignore[return-value]
        value[..., None].astype(np.float32) for value in (below, between, far, deep)
    )
