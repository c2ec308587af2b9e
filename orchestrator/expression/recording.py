"""Recorded motion as the emotion table sees it; who reads the files is no matter of the core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.types import FaceControls


class RecordedFace(Protocol):
    """One frame of a recorded motion; `explained` is the share of it that the controls show."""

    @property
    def controls(self) -> FaceControls: ...
    @property
    def explained(self) -> float: ...


class RecordedMotion(Protocol):
    """A motion that has been recorded; its `peak` is the frame furthest from the first."""

    @property
    def peak(self) -> int: ...
    def __len__(self) -> int: ...
    def face(self, frame: int) -> RecordedFace: ...


MotionReader = Callable[[Path], RecordedMotion]
"""Reads a motion file; raises ConfigError or OSError."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Where an emotion's face was taken from.

    Attributes:
        file: the motion file. frame: counted from 0.
        explained: share of the recorded face that the controls show, 0 to 1.
    """

    file: Path
    frame: int
    explained: float
