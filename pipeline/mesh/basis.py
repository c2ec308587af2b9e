"""The fields of one face: how every control moves its skin, and how its sheets join.

The whole face's field, the upper sheet's and the lower sheet's differ only between the lips and
below them: a mouth is a slit in the skin, and each sheet goes on smoothly beyond it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pipeline.mesh import actions, drive, masks, pose, rest
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, smoothstep
from pipeline.mesh.curves import LOWER_LIP, UPPER_LIP, lip_edge
from pipeline.mesh.fields import Grid, interpolator
from pipeline.types import ARKIT_BLENDSHAPES, Float32Array

_JAW: Final = ("jawOpen", "jawLeft", "jawRight")
_CHIN: Final = 0.80  # from upper lip to chin, in face units, that the table of moves is made for
_CHEEK: Final = 0.40  # from the corner of the mouth to the jaw line, likewise
# Inner lip landmarks are left to the closer spots along the same edges.
_UPPER_ONLY: Final = (
    49, 50, 51, 52, 53, 61, 62, 63, 65, 66, 67, "philtrum", *actions.UPPER_LIP_SPOTS,
)  # fmt: skip
_LOWER_ONLY: Final = (
    *actions.BEYOND_JAW, *range(5, 12), 55, 56, 57, 58, 59, 61, 62, 63, 65, 66, 67, "chin_boss",
    "chin_sideLeft", "chin_sideRight", *actions.LOWER_LIP_SPOTS,
)  # fmt: skip


class Fields(NamedTuple):
    """Forward fields of every row of `drive.Drive.rows`, (ROWS, rows, columns, 2) in pixels."""

    face: Float32Array
    upper: Float32Array
    lower: Float32Array
    skull: Float32Array


def fields(face: Anatomy, grid: Grid, size_px: tuple[int, int]) -> Fields:
    """Lay out all fields of a face over the nodes of a grid on a canvas of that size."""
    nodes = grid.nodes()
    at = face.to_face(nodes)
    moves = _all_moves(face)
    edge = masks.border(nodes, *size_px, face.unit)[..., None]
    skin = masks.expression(face, nodes)[..., None] * edge
    up = _spread(face, at, moves, _LOWER_ONLY) * skin
    free = _spread(face, at, moves, _UPPER_ONLY)
    low = free * skin
    wide = free * masks.lower_sheet(face, nodes)[..., None] * edge
    seams = _seams(face, at)
    is_jaw = np.isin(np.arange(drive.POSE), [ARKIT_BLENDSHAPES.index(name) for name in _JAW])
    kept = np.where(is_jaw[:, None, None, None], seams.deep[None], np.float32(1.0))
    joined = (up * (1 - seams.below) + low * seams.below) * kept
    upper = joined + seams.between * (up - joined)
    lower = joined + seams.far * (wide - joined)
    turns = pose.basis(face, nodes, masks.pose(face, nodes) * edge[..., 0])
    still = np.zeros_like(joined)
    return Fields(*(f32(np.concatenate([part, turns])) for part in (joined, upper, lower, still)))


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
    out *= _proportions(face)
    out[drive.RELAX], out[drive.CLOSE] = rest.relaxing_moves(face)
    out[drive.JAW_CLOSED] = _jaw_closed(out[ARKIT_BLENDSHAPES.index("jawOpen")])
    actions.follow_lips(out[drive.JAW_CLOSED], at)
    return (out @ face.axes * np.float32(face.unit)).astype(np.float32)


def _proportions(face: Anatomy) -> Float32Array:
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


class _Seams(NamedTuple):
    """How the sheets join, (rows, columns, 1) float32 each.

    Attributes:
        below: 0 above the line of the mouth, 1 below; a step between the corners, softer beyond.
        between: 1 where the upper sheet differs from the whole face's field: between the corners,
            as far down as the mouth can open.
        far: 1 where the lower sheet does: below the line from the corners to the jaw.
        deep: how much the whole face's field follows the jaw: all down to the mouth, little below,
            where the lower sheet covers it.
    """

    below: Float32Array
    between: Float32Array
    far: Float32Array
    deep: Float32Array


def _seams(face: Anatomy, at: Float32Array) -> _Seams:
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
    chin = float(p[8, 1])
    between = 1.0 - smoothstep(outside, 0.0, 0.10)
    between = between * (1.0 - smoothstep(y, chin - 0.30, chin - 0.10))
    corner = (p[60, 1] + p[64, 1]) / 2
    jaw = (p[4, 1] + p[12, 1]) / 2
    span = (p[12, 0] - p[4, 0]) / 2 - half
    slope = corner + np.clip(outside / max(span, 0.1), 0, 1.2) * (jaw - corner)
    edge = np.where(outside > 0, slope, np.minimum(lower, slope))
    far = np.where(outside > 0, smoothstep(y - slope, 0.0, 0.16), 1.0)
    blend = smoothstep(outside, 0.0, 0.10)
    far = far * blend + (1 - blend)
    deep = 1.0 - 0.92 * smoothstep(y, float(edge.min()) + 0.15, chin - 0.05)
    return _Seams(*(f32(value[..., None]) for value in (below, between, far, deep)))
