"""From a source and driven keypoints to pixels on the host: one path per dtype."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.liveportrait.engines import Engine, SourceState
from pipeline.types import Image

SIDE_PX: Final = 512

Packed = npt.NDArray[np.uint8]


class HostCopy(Protocol):
    """A frame on its way to the host."""

    def array(self) -> Packed:
        """The packed frame, waited for; the same array every time, nobody writes to it again."""
        ...


class FramePath(Protocol):
    """Draws frames of one engine."""

    @property
    def fallback_reason(self) -> str | None:
        """Why it is slower than it could be; None where it is not."""
        ...

    def begin(self, source: SourceState, kp_driving: Tensor) -> HostCopy:
        """Start a frame from a source of this engine and (1, 21, 3) keypoints on any device."""
        ...

    def close(self) -> None:
        """Let go of the device's memory, once nothing runs there any more."""
        ...


def painted(engine: Engine, source: Any, kp_driving: Tensor) -> Tensor:
    """A frame as one tensor of bytes, so that one copy brings all of it: see `unpacked`.

    Whether every number was finite travels with the pixels: asking would be a wait of its own.
    """
    image = engine.decode(engine.warp(source, kp_driving).out)
    finite = torch.isfinite(image).all().to(torch.uint8)
    levels = image[0].clamp(0, 1).mul_(255).to(torch.uint8).permute(1, 2, 0)
    return torch.cat((levels.reshape(-1), finite[None]))


def unpacked(packed: Packed) -> Image | None:
    """The (512, 512, 3) uint8 picture; None if it holds numbers that were not finite."""
    return packed[:-1].reshape(SIDE_PX, SIDE_PX, 3) if packed[-1] else None


class EagerPath:
    """Every operation on its own, one frame at a time: the CPU, MPS, and the plain form."""

    fallback_reason: Final = None

    def __init__(self, engine: Engine, device: torch.device) -> None:
        self._engine: Engine | None = engine
        self._device = device

    def begin(self, source: SourceState, kp_driving: Tensor) -> HostCopy:
        assert self._engine is not None
        return _Here(painted(self._engine, source, kp_driving.to(self._device)).cpu().numpy())

    def close(self) -> None:
        self._engine = None


class _Here:
    """A frame that has arrived."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    def array(self) -> Packed:
        return self._packed
