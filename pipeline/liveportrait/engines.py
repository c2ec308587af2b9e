"""W and G as a pair, in the plain or the fast form, in one dtype."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.liveportrait.fast_generator import FastGenerator
from pipeline.liveportrait.fast_warping import FastWarping
from pipeline.liveportrait.spade_generator import SpadeGenerator
from pipeline.liveportrait.warping_module import Warped, WarpingModule


class SourceState(Protocol):
    """What an engine keeps of a source; opaque outside but for its tensors."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, always in the same order and shapes."""
        ...

    def copied(self) -> Any:
        """The same in memory of its own."""
        ...


class Engine(Protocol):
    """From a feature volume and keypoints to a picture; all arguments and results float32."""

    def prepare(self, feature: Tensor, kp_source: Tensor) -> SourceState:
        """Do what depends on the source alone: (1, 32, 16, 64, 64) and (1, 21, 3)."""
        ...

    def warp(self, source: Any, kp_driving: Tensor) -> Warped:
        """Drive a source of this engine with (1, 21, 3) keypoints."""
        ...

    def decode(self, features: Tensor) -> Tensor:
        """(1, 256, 64, 64) features to the (1, 3, 512, 512) picture in [0, 1]."""
        ...


def memory(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors hold, shared ones once, views as what they keep alive."""
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class _PlainSource:
    feature: Tensor
    keypoints: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.feature, self.keypoints

    def copied(self) -> _PlainSource:
        return _PlainSource(self.feature.clone(), self.keypoints.clone())


@dataclass(frozen=True, slots=True, eq=False)
class PlainEngine:
    """The plain networks; half precision is autocast's."""

    warping: WarpingModule
    generator: SpadeGenerator
    dtype: torch.dtype
    device: torch.device

    def prepare(self, feature: Tensor, kp_source: Tensor) -> SourceState:
        return _PlainSource(feature, kp_source)

    def warp(self, source: Any, kp_driving: Tensor) -> Warped:
        with self._precision():
            warped = self.warping(source.feature, kp_source=source.keypoints, kp_driving=kp_driving)
        return Warped(*(t.float() for t in warped))

    def decode(self, features: Tensor) -> Tensor:
        with self._precision():
            image: Tensor = self.generator(features)
        return image.float()

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


class FastEngine:
    """The same results with less work; see `fast_warping` and `fast_generator`."""

    def __init__(
        self,
        warping: WarpingModule,
        generator: SpadeGenerator,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._warping = FastWarping(warping, dtype, device)
        self._generator = FastGenerator(generator, dtype, device)

    def prepare(self, feature: Tensor, kp_source: Tensor) -> SourceState:
        return self._warping.prepare(feature, kp_source)

    def warp(self, source: Any, kp_driving: Tensor) -> Warped:
        return self._warping(source, kp_driving)

    def decode(self, features: Tensor) -> Tensor:
        return self._generator(features)
