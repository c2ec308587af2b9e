"""The portrait's own mouth: how far it smiles and parts its lips before anybody asks it to.

Zero controls show the portrait as it is. A portrait that smiles with its teeth showing must
nevertheless be able to look sad, so two movements are measured from it: one takes the resting
smile away, one brings the lips together. Controls that cannot be seen on a smiling mouth (frown,
press, pucker, an open jaw) ask for them; on a portrait with a closed, level mouth both are nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.mesh.actions import (
    LOWER_LIP_SPOTS,
    SPOT_INDEX,
    SPOTS,
    UPPER_LIP_SPOTS,
    follow_lips,
)
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.curves import LOWER_LIP, UPPER_LIP, lip_abscissae, lip_edge
from pipeline.types import Float32Array

_RELAXED_WIDTH: Final = 0.80  # of a resting mouth, about 50 mm
_RELAXED_LIFT: Final = 0.015  # of the corners above the middle of the closed lips
_COMPLETE: Final = 0.85  # share of the resting smile that can be taken away
_PRESSED: Final = 0.020  # closing lips overlap by this much, or light shows between them
_UPPER_LIP_FIRST: Final = 0.6  # of the upper lip's way goes with the smile
_MEETING: Final = 0.40  # where the lips meet, from the upper (0) to the lower lip (1)

_PAIRS: Final = ((61, 67), (62, 66), (63, 65))
_UPPER_OUTER: Final = {49: 61, 50: 62, 51: 62, 52: 62, 53: 63}
_LOWER_OUTER: Final = {55: 65, 56: 66, 57: 66, 58: 66, 59: 67}


def relaxing_moves(face: Anatomy) -> tuple[Float32Array, Float32Array]:
    """Moves of all spots that take the resting smile away, and that close the resting lips.

    Returns:
        Two (spots, 2) float32 arrays in face units, as `actions.moves`.
    """
    p = face.to_face(face.points)
    closing = _closing(p)
    relaxing = _relaxing(p, p + closing[:68])
    follow_lips(relaxing, p)
    # Both lips must go the same way, or they part again.
    upper = [SPOT_INDEX[s] for s in UPPER_LIP_SPOTS]
    relaxing[[SPOT_INDEX[s] for s in LOWER_LIP_SPOTS]] = relaxing[upper]
    _share_upper_lip(relaxing, closing)
    return relaxing, closing


def _share_upper_lip(relaxing: Float32Array, closing: Float32Array) -> None:
    """Let the upper lip come down over the teeth with the smile already, not only to close."""
    lip: tuple[int | str, ...] = (*_UPPER_OUTER, 61, 62, 63, "philtrum", *UPPER_LIP_SPOTS)
    rows = [SPOT_INDEX[spot] for spot in lip]
    relaxing[rows] += _UPPER_LIP_FIRST * closing[rows]
    closing[rows] *= 1 - _UPPER_LIP_FIRST


def _closing(p: Float32Array) -> Float32Array:
    moves = np.zeros((len(SPOTS), 2), np.float32)
    for up, low in _PAIRS:
        gap = max(float(p[low, 1] - p[up, 1]), 0.0)
        moves[up, 1] = _MEETING * gap
        moves[low, 1] = -(1 - _MEETING) * gap
    for outer, inner in _UPPER_OUTER.items():
        moves[outer, 1] = 0.9 * moves[inner, 1]
    for outer, inner in _LOWER_OUTER.items():
        moves[outer, 1] = 0.85 * moves[inner, 1]
    x = lip_abscissae(p)
    gaps = np.maximum(lip_edge(p, LOWER_LIP, x) - lip_edge(p, UPPER_LIP, x), 0.0)
    firm = gaps + _PRESSED * np.clip(gaps / 0.03, 0.0, 1.0)
    moves[[SPOT_INDEX[s] for s in UPPER_LIP_SPOTS], 1] = _MEETING * firm
    moves[[SPOT_INDEX[s] for s in LOWER_LIP_SPOTS], 1] = -(1 - _MEETING) * firm
    low_gap = float(moves[66, 1])
    moves[SPOT_INDEX["chin_boss"], 1] = 0.35 * low_gap
    moves[SPOT_INDEX["philtrum"], 1] = 0.4 * float(moves[62, 1])
    for side in ("Left", "Right"):
        moves[SPOT_INDEX["chin_side" + side], 1] = 0.30 * low_gap
    return moves


def _relaxing(p: Float32Array, closed: Float32Array) -> Float32Array:
    """From closed lips that still smile to closed lips at rest."""
    moves = np.zeros((len(SPOTS), 2), np.float32)
    width = float(p[54, 0] - p[48, 0])
    inward = _COMPLETE * max(width - _RELAXED_WIDTH, 0.0) / 2
    middle = closed[62]
    lift = float(middle[1] - closed[[48, 54], 1].mean()) - _RELAXED_LIFT
    for corner, sign, side in ((48, 1.0, "Right"), (54, -1.0, "Left")):
        dx, dy = sign * inward, _COMPLETE * max(lift, 0.0)
        inner = 60 if corner == 48 else 64
        moves[corner] = moves[inner] = dx, dy
        half_up, half_low = (61, 67) if corner == 48 else (63, 65)
        line = 0.5 * (closed[corner, 1] + dy) + 0.5 * float(middle[1]) + 0.1 * _RELAXED_LIFT
        half_dy = _COMPLETE * max(line - float(closed[half_up, 1]), 0.0)
        moves[half_up] = moves[half_low] = 0.5 * dx, half_dy
        near_up, far_up = (49, 50) if corner == 48 else (53, 52)
        near_low, far_low = (59, 58) if corner == 48 else (55, 56)
        moves[near_up] = 0.6 * dx, 0.50 * dy
        moves[near_low] = 0.6 * dx, 0.62 * dy
        moves[far_up] = 0.22 * dx, 0.05 * dy
        moves[far_low] = 0.25 * dx, 0.16 * dy
        for name, share_x, share_y in (
            ("fold", 0.50, 0.50), ("fold_top", 0.25, 0.25), ("cheek", 0.45, 0.50),
            ("jowl", 0.25, 0.40), ("apple", 0.15, 0.30), ("marionette", 0.55, 0.60),
            ("under_eye", 0.0, 0.12), ("ala", 0.10, 0.06), ("chin_side", 0.10, 0.10),
        ):  # fmt: skip
            moves[SPOT_INDEX[name + side]] = share_x * dx, share_y * dy
    return moves


def parting(face: Anatomy) -> float:
    """Mean distance between the portrait's lips, in face units."""
    p = face.to_face(face.points)
    return float(np.mean([max(float(p[low, 1] - p[up, 1]), 0.0) for up, low in _PAIRS]))


def smile(face: Anatomy) -> float:
    """How much the portrait smiles at rest: 0 not at all, about 1 broadly."""
    p = face.to_face(face.points)
    middle = (p[62, 1] * (1 - _MEETING)) + p[66, 1] * _MEETING
    lift = float(middle - (p[48, 1] + p[54, 1]) / 2) - _RELAXED_LIFT
    width = float(p[54, 0] - p[48, 0]) - _RELAXED_WIDTH
    return float(np.clip(4.0 * max(lift, 0.0) + 2.5 * max(width, 0.0), 0.0, 1.0))
