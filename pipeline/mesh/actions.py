"""What every control does to the face: moved spots, in face units.

One table, written for the character's left half (the image's right), x outwards, y down. The
right half is its mirror image. Sizes follow the action units of the Facial Action Coding System
(Ekman, Friesen and Hager 2002) that each ARKit blendshape stands for, at full strength: lip
corners travel about 7 mm in AU 12, brows about 8 mm in AU 1+2, the chin about 21 mm in AU 26-27
(63 mm to the unit). Eyelids, gaze and the inside of the mouth are drawn by `eyes` and `mouth`.

`eyeLook*`, `eyeBlink*`, `eyeWide*` are absent here but for the skin they drag along: their work
is done on the eye's own layers. `tongueOut` shows nothing: a photo has no tongue to put out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pipeline.mesh.anatomy import MIRRORED, SIDES
from pipeline.mesh.curves import LIP_SPOTS, LOWER_LIP, UPPER_LIP, along, lip_abscissae
from pipeline.types import Float32Array

Moves = Mapping[int | str, tuple[float, float]]

# One-sided controls: `name` + Left or Right.
SIDED: Final[Mapping[str, Moves]] = {
    "eyeBlink": {43: (0, 0.012), 44: (0, 0.012), "under_eye": (0, -0.012), 25: (0, 0.006)},
    "eyeSquint": {
        "under_eye": (0, -0.035), "apple": (0, -0.015), 46: (0, -0.02), 47: (0, -0.02),
        45: (0.012, 0), 25: (0, 0.012), 26: (0, 0.012), 24: (0, 0.01),
    },
    "eyeWide": {43: (0, -0.012), 44: (0, -0.012), 24: (0, -0.012), 25: (0, -0.012)},
    "mouthSmile": {
        54: (0.10, -0.105), 64: (0.092, -0.097), 53: (0.058, -0.052), 55: (0.06, -0.055),
        52: (0.02, -0.010), 56: (0.025, -0.012), 63: (0.038, -0.030), 65: (0.038, -0.030),
        51: (0, 0.004), 62: (0, 0.004), 66: (0, 0.004), 57: (0, 0.004),
        "fold": (0.055, -0.06), "fold_top": (0.022, -0.035), "apple": (0.022, -0.062),
        "under_eye": (0, -0.030), "cheek": (0.05, -0.05), "jowl": (0.03, -0.03),
        "marionette": (0.04, -0.035), "ala": (0.014, -0.012), 35: (0.010, -0.006),
        46: (0, -0.010), 47: (0, -0.008),
    },
    "mouthFrown": {
        54: (-0.012, 0.095), 64: (-0.012, 0.088), 53: (-0.008, 0.045), 55: (-0.004, 0.062),
        52: (0, 0.006), 56: (0, 0.008), 63: (-0.006, 0.034), 65: (-0.006, 0.034),
        57: (0, -0.006), 66: (0, -0.005), 62: (0, -0.005), "chin_boss": (0, -0.012),
        "fold": (0, 0.030), "cheek": (0, 0.030), "marionette": (0.004, 0.055),
        "jowl": (0, 0.030), "chin_side": (0, 0.015),
    },
    "mouthDimple": {
        54: (0.055, -0.008), 64: (0.050, -0.008), 53: (0.028, 0.002), 55: (0.028, -0.008),
        63: (0.018, 0), 65: (0.018, 0), "fold": (0.03, -0.012), "cheek": (0.02, -0.012),
        "marionette": (0.025, -0.005),
    },
    "mouthStretch": {
        54: (0.105, 0.078), 64: (0.096, 0.074), 53: (0.06, 0.036), 55: (0.06, 0.070),
        52: (0.022, 0.004), 56: (0.022, 0.024), 63: (0.04, 0.026), 65: (0.04, 0.048),
        57: (0, 0.008), 66: (0, 0.006), "cheek": (0.045, 0.012), "jowl": (0.05, 0.03),
        "marionette": (0.06, 0.035), "fold": (0.04, 0.005), "chin_side": (0.02, 0.015),
    },
    "mouthPress": {
        54: (-0.004, 0.002), 53: (0, 0.014), 52: (0, 0.018), 51: (0, 0.010),
        55: (0, -0.020), 56: (0, -0.026), 57: (0, -0.014), "chin_boss": (0, -0.010),
        "philtrum": (0, 0.006), "marionette": (0.006, 0),
    },
    "mouthLowerDown": {
        65: (0.012, 0.068), 66: (0, 0.034), 55: (0.012, 0.050), 56: (0.008, 0.062),
        57: (0, 0.034), 54: (0.01, 0.012), 64: (0.01, 0.012), "marionette": (0.01, 0.035),
        "chin_side": (0, 0.025), "chin_boss": (0, 0.010),
    },
    "mouthUpperUp": {
        63: (0.006, -0.062), 62: (0, -0.034), 53: (0.004, -0.042), 52: (0.004, -0.060),
        51: (0, -0.032), 54: (0, -0.012), 64: (0, -0.012), "fold": (0.012, -0.035),
        "fold_top": (0.014, -0.040), "ala": (0.010, -0.022), 35: (0.008, -0.016),
        "philtrum": (0, -0.018), 34: (0, -0.008), "apple": (0, -0.025),
    },
    "browDown": {
        22: (-0.045, 0.105), 23: (-0.034, 0.098), 24: (-0.020, 0.072), 25: (-0.008, 0.040),
        26: (0, 0.018), "glabella": (0, 0.038), "forehead_in": (-0.02, 0.055),
        "forehead_mid": (-0.008, 0.040), "forehead_out": (0, 0.020), "forehead": (0, 0.018),
        "brow_lid_in": (-0.012, 0.055), 43: (0, 0.012), 44: (0, 0.006), 27: (0, 0.008),
    },
    "browOuterUp": {
        26: (0.006, -0.085), 25: (0.004, -0.120), 24: (0, -0.112), 23: (0, -0.058),
        22: (0, -0.012), "forehead_out": (0, -0.070), "forehead_mid": (0, -0.072),
        "forehead_in": (0, -0.03), "forehead_top": (0, -0.022), "temple": (0, -0.030),
    },
    "cheekSquint": {
        "apple": (0.012, -0.065), "under_eye": (0, -0.050), "cheek": (0.012, -0.030),
        "fold_top": (0.008, -0.022), "fold": (0.010, -0.022), 46: (0, -0.024), 47: (0, -0.020),
        45: (0.006, -0.004), 26: (0, 0.008), "temple": (0.01, -0.01),
    },
    "noseSneer": {
        "ala": (0.020, -0.060), 35: (0.014, -0.038), 34: (0.004, -0.020), 33: (0, -0.008),
        30: (0, -0.008), "fold_top": (0.024, -0.062), "fold": (0.018, -0.038),
        "philtrum": (0, -0.016), 52: (0.004, -0.034), 53: (0.004, -0.030), 51: (0, -0.014),
        63: (0.004, -0.026), 62: (0, -0.012), "apple": (0.004, -0.035),
        "under_eye": (0, -0.026), 22: (-0.014, 0.030), 23: (-0.006, 0.020),
        "glabella": (0, 0.012), "brow_lid_in": (-0.006, 0.016), 47: (0, -0.012),
    },
}  # fmt: skip

# Two-sided controls: both halves move; spots on the midline are listed once.
SYMMETRIC: Final[Mapping[str, Moves]] = {
    "browInnerUp": {
        22: (-0.022, -0.125), 23: (-0.012, -0.100), 24: (-0.004, -0.048), 25: (0, -0.012),
        26: (0, 0.004), "glabella": (0, -0.085), "forehead_in": (-0.008, -0.082),
        "forehead_mid": (0, -0.035), "forehead": (0, -0.055), "forehead_top": (0, -0.012),
        "brow_lid_in": (-0.004, -0.040), 27: (0, -0.012),
    },
    "jawOpen": {
        8: (0, 0.336), 9: (-0.004, 0.323), 10: (-0.010, 0.281), 11: (-0.016, 0.21),
        12: (-0.018, 0.126), 13: (-0.012, 0.055), 14: (-0.004, 0.017),
        57: (0, 0.315), 56: (-0.012, 0.307), 55: (-0.044, 0.239), 66: (0, 0.307),
        65: (-0.038, 0.26), 54: (-0.072, 0.105), 64: (-0.072, 0.105),
        53: (-0.036, 0.017), 52: (-0.010, -0.003), 51: (0, -0.007), 63: (-0.024, -0.002),
        62: (0, -0.007), "chin_boss": (0, 0.328), "chin_side": (-0.012, 0.294),
        "marionette": (-0.040, 0.181), "jowl": (-0.030, 0.147), "cheek": (-0.020, 0.05),
        "fold": (-0.024, 0.032),
    },
    "jawForward": {
        8: (0, 0.022), 9: (0.006, 0.020), 10: (0.010, 0.016), "chin_boss": (0, 0.014),
        57: (0, 0.010), 66: (0, -0.008), 65: (0.004, -0.006), "chin_side": (0.010, 0.010),
    },
    "mouthFunnel": {
        54: (-0.120, 0.006), 64: (-0.120, 0.006), 53: (-0.056, -0.036), 55: (-0.056, 0.040),
        52: (-0.012, -0.045), 56: (-0.018, 0.052), 51: (0, -0.040), 57: (0, 0.052),
        63: (-0.030, -0.032), 65: (-0.030, 0.036), 62: (0, -0.032), 66: (0, 0.040),
        "fold": (-0.06, 0), "cheek": (-0.065, 0), "marionette": (-0.085, 0.01),
        "philtrum": (0, -0.020), "chin_boss": (0, 0.012), "jowl": (-0.045, 0),
    },
    "mouthPucker": {
        54: (-0.165, 0.004), 64: (-0.160, 0.004), 53: (-0.092, -0.018), 55: (-0.092, 0.018),
        52: (-0.032, -0.026), 56: (-0.042, 0.028), 51: (0, -0.022), 57: (0, 0.026),
        63: (-0.070, -0.002), 65: (-0.070, 0.002), "fold": (-0.085, 0), "cheek": (-0.085, 0),
        "marionette": (-0.11, 0), "jowl": (-0.06, 0), "philtrum": (0, -0.008),
        "chin_side": (-0.025, 0), "fold_top": (-0.02, 0),
    },
    "mouthRollLower": {
        55: (0, -0.030), 56: (0, -0.050), 57: (0, -0.052), 65: (0, -0.004), 66: (0, -0.004),
        "chin_boss": (0, -0.018),
    },
    "mouthRollUpper": {
        53: (0, 0.022), 52: (0, 0.038), 51: (0, 0.036), 63: (0, 0.004), 62: (0, 0.004),
        "philtrum": (0, 0.014),
    },
    "mouthShrugLower": {
        57: (0, -0.045), 56: (0, -0.040), 55: (0, -0.022), 66: (0, -0.040), 65: (0, -0.030),
        62: (0, -0.030), 63: (0, -0.022), 51: (0, -0.020), 52: (0, -0.018), 53: (0, -0.008),
        54: (0, 0.012), 64: (0, 0.010), "chin_boss": (0, -0.060), "chin_side": (0, -0.030),
        8: (0, -0.018), 9: (0, -0.010), "philtrum": (0, -0.008),
    },
    "mouthShrugUpper": {
        51: (0, -0.032), 52: (0, -0.030), 53: (0, -0.014), 62: (0, -0.026), 63: (0, -0.018),
        66: (0, -0.022), 65: (0, -0.014), 57: (0, -0.014), "philtrum": (0, -0.022),
    },
    "cheekPuff": {
        "cheek": (0.075, 0.004), "jowl": (0.070, 0.020), "fold": (0.040, 0), "apple": (0.02, 0.008),
        "marionette": (0.03, 0.01), 12: (0.040, 0), 13: (0.035, 0), 11: (0.025, 0.008),
        54: (-0.015, 0), 64: (-0.015, 0),
    },
}  # fmt: skip

# Sideways controls: everything goes the same way, towards the character's left.
SIDEWAYS: Final[Mapping[str, Mapping[int | str, tuple[float, float]]]] = {
    "jaw": {
        8: (0.115, 0), 9: (0.110, -0.004), 10: (0.090, -0.006), 11: (0.060, 0), 12: (0.030, 0),
        7: (0.110, 0.004), 6: (0.095, 0.006), 5: (0.065, 0), 4: (0.030, 0),
        "chin_boss": (0.112, 0), "chin_sideLeft": (0.100, 0), "chin_sideRight": (0.100, 0),
        57: (0.090, 0), 56: (0.085, 0), 58: (0.085, 0), 55: (0.060, 0), 59: (0.060, 0),
        66: (0.085, 0), 65: (0.065, 0), 67: (0.065, 0), 54: (0.035, 0), 48: (0.035, 0),
        64: (0.035, 0), 60: (0.035, 0), "marionetteLeft": (0.060, 0),
        "marionetteRight": (0.060, 0), "jowlLeft": (0.04, 0), "jowlRight": (0.04, 0),
        62: (0.012, 0), 51: (0.008, 0), 63: (0.012, 0), 61: (0.012, 0),
    },
    "mouth": {
        48: (0.115, -0.004), 54: (0.105, 0), 60: (0.115, -0.004), 64: (0.105, 0),
        49: (0.115, 0), 53: (0.110, 0), 50: (0.110, 0), 52: (0.110, 0), 51: (0.105, 0),
        55: (0.105, 0), 59: (0.110, 0), 56: (0.105, 0), 58: (0.105, 0), 57: (0.105, 0),
        61: (0.112, 0), 62: (0.110, 0), 63: (0.110, 0), 65: (0.108, 0), 66: (0.108, 0),
        67: (0.110, 0), "philtrum": (0.045, 0), "foldLeft": (0.045, 0), "foldRight": (0.06, 0),
        "cheekLeft": (0.035, 0), "cheekRight": (0.05, 0), "marionetteLeft": (0.075, 0),
        "marionetteRight": (0.085, 0), "chin_boss": (0.03, 0), "jowlLeft": (0.03, 0),
        "jowlRight": (0.04, 0), 33: (0.01, 0), 30: (0.008, 0),
    },
}  # fmt: skip

_SOFT_SIDED = (
    "under_eye", "apple", "cheek", "jowl", "ala", "fold_top", "fold", "marionette", "chin_side",
    "brow_lid_in", "forehead_in", "forehead_mid", "forehead_out", "forehead_top", "temple",
)  # fmt: skip
_SOFT_MIDDLE = ("glabella", "forehead", "philtrum", "chin_boss")
UPPER_LIP_SPOTS: Final = tuple(f"upper_lip{k}" for k in range(LIP_SPOTS))
BEYOND_JAW: Final = tuple(f"beyond{i}" for i in range(3, 14))
"""Spots outside the jaw line, one beside each landmark: the lower sheet ends there, and its edge
must not lag behind."""
LOWER_LIP_SPOTS: Final = tuple(f"lower_lip{k}" for k in range(LIP_SPOTS))
SPOTS: Final[tuple[int | str, ...]] = (
    *range(68),
    *(name + side for name in _SOFT_SIDED for side in SIDES),
    *_SOFT_MIDDLE,
    *UPPER_LIP_SPOTS,
    *LOWER_LIP_SPOTS,
    *BEYOND_JAW,
)
"""Every spot that a control can move; rows of the arrays below. Spots along the inner edges of
the lips follow the landmarks there, see `follow_lips`."""
SPOT_INDEX: Final[Mapping[int | str, int]] = {spot: row for row, spot in enumerate(SPOTS)}


def moves(control: str) -> Float32Array | None:
    """How far `control` at 1 moves each spot: (spots, 2) float32 in face units, image axes.

    None for controls that move no skin by themselves.
    """
    for side in SIDES:
        name = control.removesuffix(side)
        if name != control and name in SIDED:
            return _half(SIDED[name], side)
        if name != control and name in SIDEWAYS:
            return _sideways(SIDEWAYS[name], side)
    if control in SYMMETRIC:
        return _both(SYMMETRIC[control])
    return None


def _row(spot: int | str, side: str) -> int:
    """Row of a spot written for the left half, on `side`."""
    if isinstance(spot, int):
        return SPOT_INDEX[spot if side == "Left" else MIRRORED[spot]]
    return SPOT_INDEX[spot if spot in SPOT_INDEX else spot + side]


def _half(table: Moves, side: str) -> Float32Array:
    out = np.zeros((len(SPOTS), 2), np.float32)
    sign = 1.0 if side == "Left" else -1.0
    for spot, (dx, dy) in table.items():
        out[_row(spot, side)] = sign * dx, dy
    return out


def _both(table: Moves) -> Float32Array:
    left, right = _half(table, "Left"), _half(table, "Right")
    middle = (left != 0.0) & (right != 0.0) & (np.abs(left) == np.abs(right))
    both: Float32Array = np.where(middle, (left + right) / 2, left + right).astype(np.float32)
    return both


def _sideways(table: Moves, side: str) -> Float32Array:
    out = np.zeros((len(SPOTS), 2), np.float32)
    for spot, (dx, dy) in table.items():
        if side == "Left":
            out[SPOT_INDEX[spot]] = dx, dy
        elif isinstance(spot, int):
            out[SPOT_INDEX[MIRRORED[spot]]] = -dx, dy
        else:
            out[SPOT_INDEX[_other_side(spot)]] = -dx, dy
    return out


def _other_side(spot: str) -> str:
    if spot.endswith("Left"):
        return spot.removesuffix("Left") + "Right"
    if spot.endswith("Right"):
        return spot.removesuffix("Right") + "Left"
    return spot


def follow_lips(moved: Float32Array, at: Float32Array) -> None:
    """Let the spots along the lips' inner edges move as the landmarks beside them, in place.

    Args:
        moved: (spots, 2) float32 in face units.
        at: (68, 2) float32, the portrait's landmarks in face units.
    """
    x = lip_abscissae(at)
    for spots, lip in ((UPPER_LIP_SPOTS, UPPER_LIP), (LOWER_LIP_SPOTS, LOWER_LIP)):
        rows = [SPOT_INDEX[spot] for spot in spots]
        for axis in (0, 1):
            moved[rows, axis] = along(x, at[list(lip), 0], moved[list(lip), axis])


def follow_jaw(moved: Float32Array) -> None:
    """Let the spots outside the jaw line move as the landmarks on it, in place: (spots, 2)."""
    for spot in BEYOND_JAW:
        moved[SPOT_INDEX[spot]] = moved[int(spot.removeprefix("beyond"))]
