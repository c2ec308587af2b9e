"""ARKit-52 face controls to sliders and openings, by the table in `arkit.toml`. No torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from pipeline.liveportrait.controls import table
from pipeline.types import FaceControls

OPENINGS: Final = ("left_eye", "right_eye", "lips")
_ANGLES: Final = ("pitch", "yaw", "roll")


@dataclass(frozen=True, slots=True)
class Expression:
    """Face controls in LivePortrait's terms.

    Attributes:
        sliders: values of the `retarget` table, head angles in degrees included.
        left_eye, right_eye, lips: opening, -1 closed, 0 the portrait's own, 1 the largest; left
            and right are the character's.
    """

    sliders: Mapping[str, float]
    left_eye: float
    right_eye: float
    lips: float


@dataclass(frozen=True, slots=True)
class Mapped:
    """What one blendshape does at weight 1, and why that or nothing."""

    sliders: Mapping[str, float]
    openings: Mapping[str, float]
    why: str


@cache
def mapping() -> Mapping[str, Mapped]:
    """Every ARKit blendshape's entry of the table."""
    text = resources.files(__package__).joinpath("arkit.toml").read_text("utf-8")
    mapped = {}
    for name, content in tomllib.loads(text).items():
        why = content.pop("why")
        openings = {key: content.pop(key) for key in OPENINGS if key in content}
        mapped[name] = Mapped(content, openings, why)
    return mapped


def express(controls: FaceControls) -> Expression:
    """The sum of what all blendshapes do, each slider and opening limited to its range."""
    sliders: dict[str, float] = {}
    openings = dict.fromkeys(OPENINGS, 0.0)
    named = controls.as_mapping()
    angles = {angle: named.pop(angle) for angle in _ANGLES}
    for name, weight in named.items():
        entry = mapping()[name]
        for slider, value in entry.sliders.items():
            sliders[slider] = sliders.get(slider, 0.0) + weight * value
        for opening, value in entry.openings.items():
            openings[opening] += weight * value
    limits = table("retarget").sliders
    limited = {
        name: min(max(value, limits[name].minimum), limits[name].maximum)
        for name, value in sliders.items()
    }
    return Expression(
        limited | angles, **{name: min(max(v, -1.0), 1.0) for name, v in openings.items()}
    )
