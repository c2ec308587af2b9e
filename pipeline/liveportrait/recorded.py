"""Recorded motion as face controls, which any renderer can show (specification 6.3, 7 and 9).

A frame's face is how it differs from the first one. What its keypoints do is fitted by blendshapes
between 0 and 1, each of which moves keypoints as the table in `arkit.toml` says; the head's turn is
taken as it is. Lids and lips are opened by networks there, not by sliders: where the motion has
measured ratios these say how far, else the sliders that come nearest stand in. No torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.liveportrait.arkit import OPENINGS, express, mapping
from pipeline.liveportrait.bounded import bounded_least_squares
from pipeline.liveportrait.controls import KEYPOINTS, Sign, table
from pipeline.liveportrait.neutral_lips import LIP_ARRAY
from pipeline.liveportrait.templates import MotionTemplate
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls

_Array = npt.NDArray[np.float64]

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


@dataclass(frozen=True, slots=True, eq=False)
class RecordedFace:
    """One frame of a motion as face controls.

    Attributes:
        controls: the face relative to the first frame.
        explained: share of its keypoints' squared offsets that the controls account for, 0 to 1;
            1 where nothing moves.
    """

    controls: FaceControls
    explained: float


@dataclass(frozen=True, eq=False)
class RecordedMotion:
    """A motion whose frames can be seen as faces."""

    template: MotionTemplate

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `MotionTemplate.save` has written.

        Raises:
            ConfigError: it is something else.
            OSError: the file cannot be read.
        """
        return cls(MotionTemplate.load(path))

    def __len__(self) -> int:
        return len(self.template)

    @cached_property
    def peak(self) -> int:
        """The frame whose face is furthest from the first one."""
        sizes = [np.linalg.norm(_stand_in(each, 1.0)) for each in OPENINGS]
        opened = np.nan_to_num(self._openings) * sizes
        return int(np.argmax(np.square(self._moved).sum(1) + np.square(opened).sum(1)))

    def face(self, frame: int) -> RecordedFace:
        """The face of one frame.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= frame < len(self):
            raise IndexError(f"expected a frame from 0 to {len(self) - 1}, got {frame}")
        moved, openings = self._moved[frame], self._openings[frame]
        weights, stood_in = _fitted(moved, openings)
        pitch, yaw, roll = _angles(self._turn(frame))
        controls = FaceControls.clamped(weights, pitch, yaw, roll)
        shown = _picked(table("retarget").offsets(express(controls).sliders).delta) + stood_in
        return RecordedFace(controls, _share(moved, shown))

    @cached_property
    def _moved(self) -> _Array:
        """(N, 61) thousandths: expression offsets against the first frame's, less the torso's.

        A template of a single picture has no first frame: the closed-mouth reference stands in,
        as it does when a picture drives (specification 6.3).
        """
        exp = self.template.exp.astype(np.float64)
        first = exp[0] if len(exp) > 1 else LIP_ARRAY
        return _picked(exp - first)

    @cached_property
    def _openings(self) -> _Array:
        """(N, 3) as in `arkit.toml`, in the order of `OPENINGS`; NaN where none is measured.

        The eye at the image's left is the character's right one. A single picture has nothing
        that its ratios could be told from.
        """
        found = np.full((len(self), len(OPENINGS)), np.nan)
        if len(self) == 1:
            return found
        if self.template.eyes is not None:
            found[:, :2] = _opened(self.template.eyes[:, ::-1], "eye_ratio")
        if self.template.lips is not None:
            found[:, 2:] = _opened(self.template.lips, "lip_ratio")
        return found

    def _turn(self, frame: int) -> _Array:
        """(3, 3) for row vectors: R_i R_0^T, each the rotation nearest to what was recorded."""
        first, this = (_rotation(self.template.rotation[i]) for i in (0, frame))
        return this @ first.T


# --- what a motion shows ------------------------------------------------------------------


def _picked(offsets: _Array) -> _Array:
    """(..., 21, 3) to (..., 61) thousandths: all but how the torso moves in the picture."""
    flat = offsets.reshape(*offsets.shape[:-2], KEYPOINTS * 3) / _UNIT
    return np.delete(flat, (3 * _TORSO, 3 * _TORSO + 1), axis=-1)


def _opened(ratios: npt.NDArray[np.float32], slider: str) -> _Array:
    """Ratios to openings: -1 closed, 0 as in the first frame, 1 the largest ratio."""
    largest = table("retarget").sliders[slider].maximum
    measured = np.clip(ratios.astype(np.float64), 0.0, largest)
    own = measured[:1]
    room = np.where(measured < own, own, largest - own)
    room[room == 0.0] = 1.0
    return (measured - own) / room


def _rotation(recorded: npt.NDArray[np.float32]) -> _Array:
    """The nearest rotation: recorded ones are rounded to half precision."""
    u, _, vt = np.linalg.svd(recorded.astype(np.float64))
    nearest: _Array = u @ np.diag((1.0, 1.0, np.linalg.det(u @ vt))) @ vt
    return nearest


def _angles(turn: _Array) -> tuple[float, float, float]:
    """Pitch, yaw and roll in degrees of (Rz Ry Rx)^T (specification 4)."""
    pitch = math.atan2(turn[1, 2], turn[2, 2])
    yaw = math.asin(min(max(-turn[0, 2], -1.0), 1.0))
    roll = math.atan2(turn[0, 1], turn[0, 0])
    return math.degrees(pitch), math.degrees(yaw), math.degrees(roll)


def _share(moved: _Array, shown: _Array) -> float:
    whole = float(np.square(moved).sum())
    if whole == 0.0:
        return 1.0
    return max(0.0, 1.0 - float(np.square(moved - shown).sum()) / whole)


# --- the fit ------------------------------------------------------------------------------


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

    moved: _Array
    openings: _Array
    effort: _Array
    sides: tuple[_Array, ...]


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
            [_picked(table("retarget").offsets(each.sliders).delta) for each in entries], axis=1
        ),
        openings=openings,
        effort=_EFFORT / np.square(strength),
        sides=tuple(np.sign([each.sliders.get(name, 0.0) for each in entries]) for name in signed),
    )


def _fitted(moved: _Array, openings: _Array) -> tuple[_Array, _Array]:
    """Weights (52,) in [0, 1], and what lids and lips add to keypoints (61,), by networks there."""
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

    def cost(weights: _Array) -> float:
        return float(weights @ square @ weights / 2.0 - linear @ weights)

    idle = np.logical_not(matrix.any(axis=0))
    found = [
        bounded_least_squares(square, linear, np.where(idle | barred, 0.0, 1.0))
        for barred in _sides(len(idle))
    ]
    best = min(found, key=cost)
    weights = best[: len(ARKIT_BLENDSHAPES)]
    weights[weights < _LEAST_WEIGHT] = 0.0
    return weights, guessed @ weights + free @ best[len(weights) :]


def _guessed(unknown: npt.NDArray[np.bool_]) -> _Array:
    """(61, 52): what opening and closing moves, where it is not measured.

    Lips that press together need no stand-in: sliders do that.
    """
    basis = _basis()
    guessed = np.zeros_like(basis.moved)
    for k in np.flatnonzero(unknown):
        for column, value in enumerate(basis.openings[k]):
            if value > 0.0 or OPENINGS[k] != "lips":
                guessed[:, column] += _stand_in(OPENINGS[k], value)
    return guessed


def _free(openings: _Array) -> Iterator[_Array]:
    """(61,) each: what a measured opening may move by itself, in any amount up to the largest.

    Which keypoints are which eye's differs by face, so that either pair may be either eye's.
    """
    lids = np.nan_to_num(openings[:2])
    both = 2.0 * _stand_in("left_eye", float(lids[np.argmax(np.abs(lids))]))
    for eye in (_ONE_EYE, _OTHER_EYE):
        chosen = np.zeros((KEYPOINTS, 3))
        chosen[list(eye)] = _UNIT
        yield _LARGEST_STAND_IN * both * _picked(chosen)
    yield _LARGEST_STAND_IN * _stand_in("lips", float(np.nan_to_num(openings[2])))


def _stand_in(opening: str, value: float) -> _Array:
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
    return factor * _picked(sliders.offsets({name: value * reach}).delta)


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
