"""Keypoint offsets and openings to ARKit weights: least squares over `arkit.toml`. No torch.

Each blendshape moves keypoints as its sliders do (specification 7.1). Lids and lips are opened by
networks there: where an opening is measured it says how far, else the slider that comes nearest
stands in for the network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.liveportrait.arkit import OPENINGS, express, mapping
from pipeline.liveportrait.bounded import bounded_least_squares
from pipeline.liveportrait.controls import KEYPOINTS, Sign, table
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls

Array = npt.NDArray[np.float64]

# Keypoint offsets are fitted in thousandths, about what a step of a slider is.
_UNIT: Final = 0.001
# A measured opening counts like this many of those.
_OPENING_WEIGHT: Final = 100.0
# Blendshapes that do the same share it evenly; small enough to cost no accuracy.
_EFFORT: Final = 0.1
_LEAST_WEIGHT: Final = 0.01
# Lids and lips that a measured opening moves: up to this many times what the stand-in says.
_LARGEST_STAND_IN: Final = 3.0
_TORSO: Final = 5
_ONE_EYE: Final = (11, 13)
_OTHER_EYE: Final = (15, 16)


def picked(offsets: Array) -> Array:
    """(..., 21, 3) to (..., 61) thousandths: all but how the torso moves in the picture."""
    flat = offsets.reshape(*offsets.shape[:-2], KEYPOINTS * 3) / _UNIT
    return np.delete(flat, (3 * _TORSO, 3 * _TORSO + 1), axis=-1)


def fit_controls(moved: Array, openings: Array) -> tuple[Array, float]:
    """The blendshapes that come nearest to what a face does.

    Args:
        moved: (61,) keypoint offsets as `picked` gives them.
        openings: (3,) as in `arkit.toml`, in the order of `OPENINGS`; NaN where not measured.

    Returns:
        Weights, (52,) in [0, 1]; and the share of the squared offsets that they account for, 0 to
        1, which is 1 where nothing moves.
    """
    basis = _basis()
    known = ~np.isnan(openings)
    guessed = _guessed(~known)
    free = np.stack(list(_free(openings)), axis=1)
    matrix = np.block(
        [
            [basis.moved + guessed, free],
            [_OPENING_WEIGHT * basis.openings[known], np.zeros((known.sum(), free.shape[1]))],
        ]
    )
    wanted = np.concatenate([moved, _OPENING_WEIGHT * openings[known]])
    effort = np.concatenate([basis.effort, np.full(free.shape[1], _EFFORT)])
    square = matrix.T @ matrix + np.diag(effort)
    linear = matrix.T @ wanted

    def cost(weights: Array) -> float:
        return float(weights @ square @ weights / 2.0 - linear @ weights)

    idle = np.logical_not(matrix.any(axis=0))
    found = [
        bounded_least_squares(square, linear, np.where(idle | barred, 0.0, 1.0))
        for barred in _sides(len(idle))
    ]
    best = min(found, key=cost)
    weights = best[: len(ARKIT_BLENDSHAPES)]
    weights[weights < _LEAST_WEIGHT] = 0.0
    return weights, _share(moved, _shown(weights) + guessed @ weights + free @ best[len(weights) :])


def opening_size(opening: str) -> float:
    """How far keypoints go from rest to fully open or closed, thousandths."""
    return float(max(np.linalg.norm(_stand_in(opening, value)) for value in (-1.0, 1.0)))


@dataclass(frozen=True, slots=True, eq=False)
class _Basis:
    """What each blendshape does at weight 1.

    Attributes:
        moved: (61, 52) keypoint offsets by its sliders, thousandths.
        openings: (3, 52).
        effort: (52,) what its weight costs: those that do nothing but open or close a little pay
            more, so that lids close with `eyeBlink`.
        sides: for each slider with coefficients that depend on its sign, (52,) the side to which
            a blendshape pushes it: -1, 0 or 1.
    """

    moved: Array
    openings: Array
    effort: Array
    sides: tuple[Array, ...]


@cache
def _basis() -> _Basis:
    sliders = table("retarget").sliders
    entries = [mapping()[name] for name in ARKIT_BLENDSHAPES]
    openings = np.array([[each.openings.get(k, 0.0) for each in entries] for k in OPENINGS])
    partial = np.array([not each.sliders and bool(each.openings) for each in entries])
    strength = np.where(partial, np.abs(openings).max(0), 1.0)
    signed = [
        name
        for name, slider in sliders.items()
        if any(entry.sign is not Sign.ANY for entry in slider.entries)
    ]
    return _Basis(
        moved=np.stack(
            [picked(table("retarget").offsets(each.sliders).delta) for each in entries], axis=1
        ),
        openings=openings,
        effort=_EFFORT / np.square(strength),
        sides=tuple(np.sign([each.sliders.get(name, 0.0) for each in entries]) for name in signed),
    )


def _guessed(unknown: npt.NDArray[np.bool_]) -> Array:
    """(61, 52): what opening and closing moves, where it is not measured.

    Lips that press together need no stand-in: sliders do that.
    """
    basis = _basis()
    guessed = np.zeros_like(basis.moved)
    for k in np.flatnonzero(unknown):
        for column, value in enumerate(basis.openings[k]):
            if value > 0.0 or (value < 0.0 and OPENINGS[k] != "lips"):
                guessed[:, column] += _stand_in(OPENINGS[k], value)
    return guessed


def _free(openings: Array) -> Iterator[Array]:
    """(61,) each: what a measured opening may move by itself, in any amount up to the largest.

    Which keypoints are which eye's differs by face, so that either pair may be either eye's.
    """
    lids = np.nan_to_num(openings[:2])
    both = 2.0 * _stand_in("left_eye", float(lids[np.argmax(np.abs(lids))]))
    for eye in (_ONE_EYE, _OTHER_EYE):
        chosen = np.zeros((KEYPOINTS, 3))
        chosen[list(eye)] = _UNIT
        yield _LARGEST_STAND_IN * both * picked(chosen)
    yield _LARGEST_STAND_IN * _stand_in("lips", float(np.nan_to_num(openings[2])))


def _stand_in(opening: str, value: float) -> Array:
    """(61,) the slider that comes nearest to an opening; for an eye, half of what moves both."""
    if opening == "lips":
        sliders, name, factor = table("retarget"), "lip_variation_three", 1.0
    else:
        sliders, name, factor = table("expression_editor"), "blink", 0.5
        # That slider is wide open where the mapping is.
        widest = mapping()["eyeWideLeft"].openings["left_eye"]
        value = value / widest if value > 0.0 else value
    limits = sliders.sliders[name]
    reach = limits.maximum if value > 0.0 else -limits.minimum
    return factor * picked(sliders.offsets({name: value * reach}).delta)


def _sides(columns: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Which columns to leave out so that no slider is pushed to both sides, for each choice.

    On one side a slider's effect is linear, and nothing is lost: to take back a push, push less.
    """
    sides = _basis().sides
    for choice in itertools.product((-1.0, 1.0), repeat=len(sides)):
        barred = np.zeros(columns, bool)
        for pushed, side in zip(sides, choice, strict=True):
            barred[: len(pushed)] |= pushed == -side
        yield barred


def _shown(weights: Array) -> Array:
    """(61,): what the renderer's sliders make of weights, limits included."""
    sliders = express(FaceControls.clamped(weights)).sliders
    return picked(table("retarget").offsets(sliders).delta)


def _share(moved: Array, shown: Array) -> float:
    whole = float(np.square(moved).sum())
    if whole == 0.0:
        return 1.0
    return max(0.0, 1.0 - float(np.square(moved - shown).sum()) / whole)
