"""Face controls to the coefficients of one portrait's rig, and to the state of its eyes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.mesh import pose
from pipeline.mesh.eyes import EyeState
from pipeline.types import ARKIT_BLENDSHAPES, ARKIT_INDEX, FaceControls, Float32Array

RELAX: Final = len(ARKIT_BLENDSHAPES)
CLOSE: Final = RELAX + 1
JAW_CLOSED: Final = RELAX + 2
POSE: Final = RELAX + 3
ROWS: Final = POSE + pose.COEFFICIENTS
"""Rows of a rig: the 52 controls, resting smile away, lips together, lips together over an open
jaw, and the head pose."""

# How strongly a control asks for the resting smile to go (first) and the lips to meet (second).
_ASKS: Final = {
    "mouthFrownLeft": (1.6, 1.3), "mouthFrownRight": (1.6, 1.3),
    "mouthPressLeft": (0.8, 1.5), "mouthPressRight": (0.8, 1.5),
    "mouthClose": (0.5, 3.0), "mouthPucker": (2.0, 2.4), "mouthFunnel": (2.0, 0.4),
    "mouthRollLower": (0.8, 1.2), "mouthRollUpper": (0.8, 1.2),
    "mouthShrugLower": (1.4, 1.6), "mouthShrugUpper": (0.8, 0.8),
    "mouthStretchLeft": (0.7, 0.0), "mouthStretchRight": (0.7, 0.0),
    "mouthUpperUpLeft": (0.5, 0.0), "mouthUpperUpRight": (0.5, 0.0),
    "noseSneerLeft": (0.5, 0.0), "noseSneerRight": (0.5, 0.0),
    "jawOpen": (2.6, 0.0), "cheekPuff": (1.5, 2.5),
    "jawLeft": (0.6, 0.3), "jawRight": (0.6, 0.3), "mouthLeft": (0.8, 0.6),
    "mouthRight": (0.8, 0.6), "browDownLeft": (0.3, 0.3), "browDownRight": (0.3, 0.3),
}  # fmt: skip
# What keeps the smile, and what keeps the lips apart.
_KEEPS_SMILE: Final = ("mouthSmileLeft", "mouthSmileRight")
_KEEPS_OPEN: Final = (
    "mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthFunnel",
)  # fmt: skip

# The corners of the mouth are pulled by many; together they stretch skin only so far.
_MOST_PULL: Final = 1.4

_GAZE_X: Final = 0.085
_GAZE_UP: Final = 0.055
_GAZE_DOWN: Final = 0.065


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """One frame's worth of instructions.

    Attributes:
        rows: (ROWS,) float32, weights of the rig's fields.
        eyes: the eye at the image's left first.
        mouth: 0 when no control touches the mouth, rising with what they ask.
        jaw: how far it is open (0..1), and aside (-1..1, positive to the character's left).
    """

    rows: Float32Array
    eyes: tuple[EyeState, EyeState]
    mouth: float
    jaw: tuple[float, float]


def drive(controls: FaceControls, smile: float) -> Drive:
    """Translate controls for a portrait that smiles by `smile` (0..1) at rest."""
    w = controls.weights
    rows = np.zeros(ROWS, np.float32)
    rows[:RELAX] = w
    for side in ("Left", "Right"):
        # A face that smiles already has less way to go.
        rows[ARKIT_INDEX["mouthSmile" + side]] *= 1.0 - 0.45 * smile
    rows[_PULLS] *= min(1.0, _MOST_PULL / max(float(_PULL_SHARES @ rows[_PULLS]), 1e-6))
    asks = np.tensordot(_ASK_MATRIX, w, axes=1)
    kept = 1.0 - 0.9 * _saturated(0.9 * _sum(w, _KEEPS_SMILE))
    apart = 1.0 - _saturated(1.2 * _sum(w, _KEEPS_OPEN))
    rows[RELAX] = kept * _saturated(float(asks[0]))
    rows[CLOSE] = kept * apart * _saturated(float(asks[1]))
    for name in ("mouthPucker", "mouthFunnel"):  # taking a smile away narrows the mouth already
        rows[ARKIT_INDEX[name]] *= 1.0 - 0.4 * smile * float(rows[RELAX])
    rows[JAW_CLOSED] = controls["jawOpen"] * controls["mouthClose"]
    rows[POSE:] = pose.coefficients(controls)
    mouth = float(np.abs(rows[_MOUTH_ROWS]).sum())
    return Drive(
        rows=rows,
        eyes=(_eye(controls, "Right", -1.0), _eye(controls, "Left", 1.0)),
        mouth=mouth,
        jaw=(controls["jawOpen"], controls["jawLeft"] - controls["jawRight"]),
    )


def _eye(controls: FaceControls, side: str, outwards: float) -> EyeState:
    def of(name: str) -> float:
        return controls[name + side]

    blink, wide, squint = of("eyeBlink"), of("eyeWide"), of("eyeSquint")
    down, up = of("eyeLookDown"), of("eyeLookUp")
    open_ = 1.0 - blink
    held = 0.20 * squint + 0.06 * of("cheekSquint") + 0.36 * down + 0.10 * of("browDown")
    held -= (0.34 * wide + 0.12 * up) * (1.0 - 0.5 * squint)
    upper = held * open_ + blink
    raised = 0.34 * squint + 0.20 * of("cheekSquint") + 0.07 * of("mouthSmile")
    lower = _limited(raised * (1.0 - 0.6 * blink) + 0.10 * blink - 0.05 * wide + 0.04 * up)
    x = outwards * _GAZE_X * (of("eyeLookOut") - of("eyeLookIn"))
    y = _GAZE_DOWN * down - _GAZE_UP * up
    return EyeState(min(upper, 1.0), lower, (x, y))


def _limited(share: float) -> float:
    return min(share, 0.6)


def _saturated(x: float) -> float:
    """0 at 0, rising at most as fast as x, towards 1."""
    return math.tanh(max(x, 0.0))


def _sum(weights: Float32Array, names: tuple[str, ...]) -> float:
    return float(sum(weights[ARKIT_INDEX[name]] for name in names))


_PULLS: Final = np.array(
    [
        i
        for i, n in enumerate(ARKIT_BLENDSHAPES)
        if n.startswith(
            ("mouthSmile", "mouthFrown", "mouthStretch", "mouthDimple", "mouthPucker",
             "mouthFunnel", "mouthLeft", "mouthRight")
        )
    ]
)  # fmt: skip
_PULL_SHARES: Final = np.array(
    [1.0 if ARKIT_BLENDSHAPES[i] in ("mouthPucker", "mouthFunnel") else 0.5 for i in _PULLS],
    np.float32,
)
_ASK_MATRIX: Final = np.zeros((2, RELAX), np.float32)
for _name, _pair in _ASKS.items():
    _ASK_MATRIX[:, ARKIT_INDEX[_name]] = _pair
_MOUTH_ROWS: Final = np.array(
    [
        i
        for i, n in enumerate(ARKIT_BLENDSHAPES)
        if n.startswith(("mouth", "jaw", "cheekPuff", "noseSneer"))
    ]
    + [RELAX, CLOSE, JAW_CLOSED]
)
