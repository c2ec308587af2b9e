"""What VMC messages (Virtual Motion Capture Protocol) make of a face; no I/O, no clock.

Understood are blendshapes (`/VMC/Ext/Blend/Val`, which count from `/VMC/Ext/Blend/Apply` on) and
the rotations of the bones `Neck` and `Head` (`/VMC/Ext/Bone/Pos`, at once). Everything else that
a performer sends is passed over, as the protocol asks receivers to.

Names are ARKit's (PerfectSync), and VRM's preset expressions by the table in `vmc.toml`, in any
case; what a model has beside these is passed over.

Rotations are quaternions relative to the parent bone in Unity's frame: x to the character's right,
y up, z out of the face, left-handed. There a positive turn about x looks down, about y turns the
nose to the character's right, which is the left edge of the image, and about z tilts the top of
the head to the character's left: the signs of `FaceControls`. A bone at rest must have the identity
rotation, as VRM 0 models and VRM 1's control rig have it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Final

from adapters import osc
from pipeline.types import ARKIT_BLENDSHAPES, ARKIT_INDEX, HEAD_LIMIT_DEG, DirectControls

FORGET_S: Final = 1.0
"""Silence after which earlier values no longer count; direct controls lapse as fast."""

_LEAST_NORM: Final = 0.1  # of a quaternion; rotations have 1
_SHOWN_CHARACTERS: Final = 120

_Quaternion = tuple[float, float, float, float]  # x, y, z, w
# Performers send all the fifty bones of a body: reading them would take longer than the face does.
_TURNED: Final = re.compile(rb"\0(?:neck|head)\0", re.IGNORECASE)
_UPRIGHT: Final[_Quaternion] = (0.0, 0.0, 0.0, 1.0)


class VmcError(ValueError):
    """A VMC message is not what the protocol says; nothing has changed."""


@cache
def shapes() -> Mapping[str, Mapping[str, float]]:
    """Every name that is understood, in lower case: ARKit blendshapes at value 1."""
    known: dict[str, Mapping[str, float]] = {
        name.lower(): {name: 1.0} for name in ARKIT_BLENDSHAPES
    }
    text = resources.files(__package__).joinpath("vmc.toml").read_text("utf-8")
    for preset in tomllib.loads(text).values():
        controls = preset.get("controls", {})
        assert ARKIT_INDEX.keys() >= controls.keys()
        known.update((name.lower(), controls) for name in preset["names"])
    return known


class Marionette:
    """The face that a performer's messages describe; of several performers, all together.

    Args:
        weight: strength over what the emotions give, in [0, 1].
    """

    def __init__(self, weight: float = 1.0) -> None:
        self._weight = weight
        self._shapes = shapes()
        self._values: dict[str, float] = {}
        self._applied: dict[str, float] = {}
        self._valued_s = -math.inf
        self._neck: _Quaternion = _UPRIGHT
        self._head: dict[str, float] = {}
        self._turned_s = -math.inf

    def hear(self, messages: list[bytes], now_s: float) -> DirectControls | None:
        """Take the messages of one datagram, all or none.

        Args:
            messages: OSC messages, not read yet.
            now_s: monotonic seconds.

        Returns:
            What the face should be like from now on; None where nothing has come that counts yet.

        Raises:
            OscError, VmcError: one of the messages is wrong.
        """
        steps = [step for message in messages if (step := self._read(message)) is not None]
        if not steps:
            return None
        self._forget(now_s)
        counts = [step(now_s) for step in steps]
        if not any(counts):
            return None
        return DirectControls(weights=self._applied, head=self._head, weight=self._weight)

    def _read(self, message: bytes) -> Callable[[float], bool] | None:
        """What to do about a message, which says whether it counts at once; None for nothing."""
        match osc.address(message):
            case b"/VMC/Ext/Blend/Val":
                arguments = osc.arguments(message)
                name = _name(arguments)
                if name not in self._shapes:
                    return None
                value = _value(arguments)
                return lambda now_s: self._set(name, value, now_s)
            case b"/VMC/Ext/Blend/Apply":
                return self._apply
            case b"/VMC/Ext/Bone/Pos" if _TURNED.search(message):
                arguments = osc.arguments(message)
                bone = _name(arguments)
                if bone in ("neck", "head"):
                    rotation = _rotation(arguments)
                    turn = self._turn_neck if bone == "neck" else self._turn_head
                    return lambda now_s: turn(rotation, now_s)
        return None

    def _set(self, name: str, value: float, now_s: float) -> bool:
        self._values[name] = value
        self._valued_s = now_s
        return False

    def _apply(self, now_s: float) -> bool:
        applied: dict[str, float] = {}
        for name, value in self._values.items():
            for control, share in self._shapes[name].items():
                applied[control] = min(1.0, applied.get(control, 0.0) + share * value)
        self._applied = applied
        self._valued_s = now_s
        return True

    def _turn_neck(self, rotation: _Quaternion, now_s: float) -> bool:
        self._neck = rotation
        self._turned_s = now_s
        return False

    def _turn_head(self, rotation: _Quaternion, now_s: float) -> bool:
        self._head = angles(_product(self._neck, rotation))
        self._turned_s = now_s
        return True

    def _forget(self, now_s: float) -> None:
        if now_s - self._valued_s > FORGET_S:
            self._values.clear()
            self._applied = {}
        if now_s - self._turned_s > FORGET_S:
            self._neck = _UPRIGHT
            self._head = {}


def angles(rotation: tuple[float, float, float, float]) -> dict[str, float]:
    """Head angles in degrees, within their limits, of a unit quaternion (x, y, z, w).

    Turned as Unity does: first the roll, then the pitch, then the yaw.
    """
    x, y, z, w = rotation
    turned = {
        "pitch": math.asin(min(1.0, max(-1.0, 2.0 * (w * x - y * z)))),
        "yaw": math.atan2(2.0 * (x * z + w * y), 1.0 - 2.0 * (x * x + y * y)),
        "roll": math.atan2(2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z)),
    }
    limit = HEAD_LIMIT_DEG
    return {name: min(limit, max(-limit, math.degrees(each))) for name, each in turned.items()}


def _product(parent: _Quaternion, child: _Quaternion) -> _Quaternion:
    px, py, pz, pw = parent
    cx, cy, cz, cw = child
    return (
        pw * cx + px * cw + py * cz - pz * cy,
        pw * cy - px * cz + py * cw + pz * cx,
        pw * cz + px * cy - py * cx + pz * cw,
        pw * cw - px * cx - py * cy - pz * cz,
    )


def _name(arguments: list[osc.Argument]) -> str:
    match arguments:
        case [str() as name, *_]:
            return name.lower()
    raise VmcError(f"a blendshape or bone starts with its name, not {_shown(arguments)}")


def _value(arguments: list[osc.Argument]) -> float:
    match arguments:
        case [_, int() | float() as value, *_] if not math.isnan(value):
            return min(1.0, max(0.0, float(value)))
    raise VmcError(f"a blendshape is a name and a number, not {_shown(arguments)}")


def _rotation(arguments: list[osc.Argument]) -> _Quaternion:
    given = arguments[4:8]
    if len(given) == 4 and all(isinstance(part, int | float) for part in given):
        x, y, z, w = (float(part) for part in given)
        norm = math.hypot(x, y, z, w)
        if _LEAST_NORM <= norm < math.inf:
            return x / norm, y / norm, z / norm, w / norm
    raise VmcError(
        "a bone is a name, a position (x, y, z) and a rotation that is a quaternion (x, y, z, w), "
        f"not {_shown(arguments)}"
    )


def _shown(arguments: list[osc.Argument]) -> str:
    text = ascii(arguments)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
