"""Slider tables as data: named values to keypoint offsets and angles (specification 7).

`controls.json` holds two tables: `retarget`, the retargeting editor's, and `expression_editor`,
the AdvancedLivePortrait node's. Their sliders look alike but are composed differently; see
`editing`. This module needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

KEYPOINTS: Final = 21
_ANGLES: Final = ("pitch", "yaw", "roll")


class Sign(StrEnum):
    """For which values of a slider an entry counts; zero moves nothing anyway."""

    ANY = "any"
    POSITIVE = "positive"
    NEGATIVE = "negative"

    def admits(self, value: float) -> bool:
        return self is Sign.ANY or (value > 0.0) == (self is Sign.POSITIVE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a table: `delta[keypoint, axis] += coefficient * value`."""

    keypoint: int
    axis: int
    coefficient: float
    sign: Sign


@dataclass(frozen=True, slots=True)
class Slider:
    """One control.

    Attributes:
        name: its key in the table.
        minimum, maximum, neutral: its range, and the value that changes nothing; None where the
            neutral value is the source's own.
        entries: what it adds to keypoints.
        angles: degrees per unit that it adds to pitch, yaw and roll.
        adds_to: units per unit that it adds to other sliders before those are applied.
    """

    name: str
    minimum: float
    maximum: float
    neutral: float | None
    entries: tuple[Entry, ...]
    angles: Mapping[str, float]
    adds_to: Mapping[str, float]

    @classmethod
    def from_json(cls, name: str, content: Mapping[str, Any]) -> Self:
        angles = content.get("angles", {name: 1.0} if name in _ANGLES else {})
        neutral = content.get("neutral", 0.0)
        return cls(
            name=name,
            minimum=content["min"],
            maximum=content["max"],
            neutral=None if isinstance(neutral, str) else neutral,
            entries=tuple(Entry(k, a, c, Sign(s)) for k, a, c, s in content.get("entries", ())),
            angles=angles,
            adds_to=content.get("adds_to", {}),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Offsets:
    """What sliders add to a face.

    Attributes:
        delta: (21, 3) float64 keypoint offsets.
        pitch, yaw, roll: degrees.
    """

    delta: npt.NDArray[np.float64]
    pitch: float
    yaw: float
    roll: float


@dataclass(frozen=True, slots=True)
class ControlTable:
    """The sliders of one editor, in the order in which they are applied."""

    sliders: Mapping[str, Slider]
    order: tuple[str, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        sliders = {n: Slider.from_json(n, c) for n, c in content["controls"].items()}
        return cls(sliders, tuple(content["order"]))

    def offsets(self, values: Mapping[str, float]) -> Offsets:
        """The sum over all sliders with entries or angles; absent ones are neutral.

        Values are not limited to the sliders' ranges.

        Raises:
            KeyError: a name is not a slider of this table.
        """
        effective = dict(values)
        for name, value in values.items():
            for other, factor in self.sliders[name].adds_to.items():
                effective[other] = effective.get(other, 0.0) + factor * value
        delta = np.zeros((KEYPOINTS, 3))
        for name in self.order:
            self._add(delta, self.sliders[name], effective.get(name, 0.0))
        angles = dict.fromkeys(_ANGLES, 0.0)
        for name, value in effective.items():
            for angle, factor in self.sliders[name].angles.items():
                angles[angle] += factor * value
        return Offsets(delta, **angles)

    @staticmethod
    def _add(delta: npt.NDArray[np.float64], slider: Slider, value: float) -> None:
        for entry in slider.entries:
            if value and entry.sign.admits(value):
                delta[entry.keypoint, entry.axis] += entry.coefficient * value


@cache
def table(name: str) -> ControlTable:
    """`retarget` (specification 7.1) or `expression_editor` (7.2)."""
    content = json.loads(resources.files(__package__).joinpath("controls.json").read_text("utf-8"))
    return ControlTable.from_json(content[name])
