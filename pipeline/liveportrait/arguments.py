"""Tensors that callers hand in, checked before anything is calculated."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from pipeline.liveportrait.errors import ArgumentError
from pipeline.liveportrait.keypoints import KEYPOINTS, Motion

# Shapes without the batch.
IMAGE: Final = (3, 256, 256)
VOLUME: Final = (32, 16, 64, 64)
FEATURES: Final = (256, 64, 64)
KEYPOINTS_SHAPE: Final = (KEYPOINTS, 3)
_MOTION: Final[dict[str, tuple[int, ...]]] = {
    "pitch": (1,), "yaw": (1,), "roll": (1,), "t": (3,), "exp": KEYPOINTS_SHAPE, "scale": (1,),
    "kp": KEYPOINTS_SHAPE,
}  # fmt: skip


def taken(name: str, value: object, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A caller's tensor in float32 on a device; its strides may be any.

    Args:
        name: the argument, for the error.
        shape: without the batch, which is 1 or more.

    Raises:
        ArgumentError: it is no tensor of floating-point numbers, or of another shape.
    """
    if not isinstance(value, Tensor):
        raise ArgumentError(name, _expected(shape), type(value).__name__)
    if tuple(value.shape[1:]) != shape or value.dim() != len(shape) + 1 or len(value) == 0:
        raise ArgumentError(name, _expected(shape), f"shape {_written(tuple(value.shape))}")
    if not value.is_floating_point():
        raise ArgumentError(name, _expected(shape), f"{value.dtype} numbers")
    return value.to(device, torch.float32)


def taken_motion(motion: object, device: torch.device) -> Motion:
    """A caller's motion, every part as `taken`."""
    if not isinstance(motion, Motion):
        raise ArgumentError("motion", "a Motion", type(motion).__name__)
    parts = {
        name: taken(f"motion.{name}", getattr(motion, name), shape, device)
        for name, shape in _MOTION.items()
    }
    of_one_batch(**parts)
    return Motion(**parts)


def of_one_batch(**arguments: Tensor) -> None:
    """Raises ArgumentError if arguments that belong together are not equally many."""
    (first, leader), *others = arguments.items()
    for name, tensor in others:
        if len(tensor) != len(leader):
            raise ArgumentError(name, f"a batch of {len(leader)} as in {first}", f"{len(tensor)}")


def _expected(shape: tuple[int, ...]) -> str:
    return f"a floating-point tensor ({', '.join(('B', *map(str, shape)))}) with B >= 1"


def _written(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
