"""Datagrams as a VMC performer sends them, made by python-osc."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import build_msg

Argument = int | float | str


def message(address: str, *arguments: Argument) -> bytes:
    """One OSC message."""
    dgram: bytes = build_msg(address, list(arguments)).dgram
    return dgram


def value(name: str, amount: float) -> bytes:
    """`/VMC/Ext/Blend/Val`."""
    return message("/VMC/Ext/Blend/Val", name, amount)


APPLY = message("/VMC/Ext/Blend/Apply")


def bone(name: str, axis: str = "x", degrees: float = 0.0) -> bytes:
    """`/VMC/Ext/Bone/Pos` of a bone that is turned about one axis."""
    half = math.radians(degrees) / 2.0
    x, y, z = (math.sin(half) * (axis == each) for each in "xyz")
    return message("/VMC/Ext/Bone/Pos", name, 0.0, 1.5, 0.0, x, y, z, math.cos(half))


def bundle(*messages: bytes) -> bytes:
    """One OSC bundle of them."""
    return raw_bundle(OscBundleBuilder(IMMEDIATELY).build().dgram, messages)


def raw_bundle(head: bytes, elements: Iterable[bytes]) -> bytes:
    """A bundle of any bytes, each with its size."""
    return head + b"".join(len(each).to_bytes(4, "big") + each for each in elements)


def frame(values: dict[str, float]) -> bytes:
    """A bundle with these blendshapes, applied."""
    return bundle(*(value(name, amount) for name, amount in values.items()), APPLY)
