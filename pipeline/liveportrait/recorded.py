"""Recorded motion as controls that any renderer can show (specification 6.3, 9). No torch.

A frame's face is how it differs from the first one: its expression as ARKit weights that come
nearest to it, with lids and lips as far open as its ratios say, and its head as it turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from pipeline.liveportrait.arkit import OPENINGS
from pipeline.liveportrait.control_fit import fit_controls, opening_size, picked
from pipeline.liveportrait.controls import table
from pipeline.liveportrait.neutral_lips import LIP_ARRAY
from pipeline.liveportrait.templates import MotionTemplate
from pipeline.types import FaceControls

_Array = npt.NDArray[np.float64]


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
        opened = np.nan_to_num(self._openings) * [opening_size(each) for each in OPENINGS]
        return int(np.argmax(np.square(self._moved).sum(1) + np.square(opened).sum(1)))

    def face(self, frame: int) -> RecordedFace:
        """The face of one frame.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= frame < len(self):
            raise IndexError(f"expected a frame from 0 to {len(self) - 1}, got {frame}")
        weights, explained = fit_controls(self._moved[frame], self._openings[frame])
        pitch, yaw, roll = _angles(self._turn(frame))
        return RecordedFace(FaceControls.clamped(weights, pitch, yaw, roll), explained)

    @cached_property
    def _moved(self) -> _Array:
        """(N, 61) thousandths: expression offsets against the first frame's, less the torso's.

        A template of a single picture has no first frame: the closed-mouth reference stands in,
        as it does when a picture drives (specification 6.3).
        """
        exp = self.template.exp.astype(np.float64)
        first = exp[0] if len(exp) > 1 else LIP_ARRAY
        return picked(exp - first)

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
