"""Stand-ins for W and G that draw at once what a test can foresee."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.liveportrait.warping_module import Warped


class FlatSource:
    """A source whose level is the mean of its feature volume."""

    def __init__(self, level: Tensor) -> None:
        self.level = level

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.level,)

    def copied(self) -> FlatSource:
        return FlatSource(self.level.clone())


class FlatEngine:
    """Draws a flat grey: the source's level, and the mean of the driven keypoints.

    Attributes:
        frames: pictures decoded.
        faults: so many of the next pictures are not numbers.
    """

    def __init__(self, faults: int = 0) -> None:
        self.frames = 0
        self.faults = faults

    def prepare(self, feature: Tensor, kp_source: Tensor) -> FlatSource:
        return FlatSource(feature.mean() + 0 * kp_source.sum())

    def warp(self, source: Any, kp_driving: Tensor) -> Warped:
        assert kp_driving.shape == (1, 21, 3)
        level = source.level + kp_driving.mean()
        return Warped(
            level.expand(1, 1, 64, 64),
            level.expand(1, 16, 64, 64, 3),
            level.expand(1, 256, 64, 64),
        )

    def decode(self, features: Tensor) -> Tensor:
        assert features.shape == (1, 256, 64, 64)
        self.frames += 1
        broken = self.frames <= self.faults
        level = torch.full((), float("nan")) if broken else features.mean()
        return level.expand(1, 3, 512, 512).clone()


class Recording:
    """Repeats work into the memory of the first run, as a graph does; fails to order."""

    def __init__(self, *, warm_up: Exception | None = None, capture: Exception | None = None):
        self.errors = {"warm_up": warm_up, "capture": capture}
        self.calls: list[str] = []

    def warm_up(self, work: Callable[[], Tensor]) -> None:
        self._called("warm_up")
        work()

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self._called("capture")
        packed = work()
        return lambda: packed.copy_(work())

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if error := self.errors[name]:
            raise error


def at(value: float) -> Tensor:
    """Keypoints that are all one number."""
    return torch.full((1, 21, 3), float(value))
