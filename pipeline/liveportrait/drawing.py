"""Drawing faces of prepared portraits, in a wider type where half precision overflows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Final, Protocol

import torch
from torch import Tensor

from pipeline.errors import BadFrameError
from pipeline.framing import Framing
from pipeline.liveportrait.crop import PasteBack
from pipeline.liveportrait.engines import Engine, SourceState
from pipeline.liveportrait.frame_path import FramePath, HostCopy, unpacked
from pipeline.liveportrait.prepared import PreparedPortrait
from pipeline.types import Image

_MOST_OVERFLOWS: Final = 3


class Maker(Protocol):
    """Makes engines of a model."""

    def engine(self, dtype: torch.dtype) -> Engine: ...
    def path(self, engine: Engine) -> FramePath: ...


class Drawer:
    """W and G in every type that a portrait needs, each made when the first frame asks for it.

    Attributes:
        overflows: frames that were drawn again because half precision overflowed.
    """

    def __init__(
        self,
        maker: Maker,
        device: torch.device,
    ) -> None:
        self._maker: Maker | None = maker
        self._device = device
        self._engines: dict[torch.dtype, Engine] = {}
        self._paths: dict[torch.dtype, FramePath] = {}
        self.overflows = 0

    def engine(self, dtype: torch.dtype) -> Engine:
        """W and G in a type."""
        if dtype not in self._engines:
            assert self._maker is not None
            self._engines[dtype] = self._maker.engine(dtype)
        return self._engines[dtype]

    def path(self, dtype: torch.dtype) -> FramePath:
        """From a source of that engine to pixels."""
        if dtype not in self._paths:
            assert self._maker is not None
            self._paths[dtype] = self._maker.path(self.engine(dtype))
        return self._paths[dtype]

    def source(self, prepared: PreparedPortrait, dtype: torch.dtype) -> SourceState:
        """What the engine of a type keeps of a portrait."""
        if dtype not in prepared.sources:
            keypoints = prepared.keypoints.to(self._device)
            prepared.sources[dtype] = self.engine(dtype).prepare(prepared.feature, keypoints)
        return prepared.sources[dtype]

    def begin(self, prepared: PreparedPortrait, kp_driving: Tensor) -> Drawing:
        """Start drawing a face from (1, 21, 3) keypoints."""
        dtype = prepared.dtype
        return Drawing(self, prepared, kp_driving, dtype, self._start(prepared, kp_driving, dtype))

    def in_float32(self, prepared: PreparedPortrait, kp_driving: Tensor) -> Image | None:
        """The same face in float32; None if not even that gives finite numbers."""
        return unpacked(self._start(prepared, kp_driving, torch.float32).array())

    def count_overflow(self, prepared: PreparedPortrait) -> None:
        """After three overflows a portrait leaves float16 for bfloat16, bfloat16 for float32."""
        self.overflows += 1
        prepared.overflows += 1
        if prepared.overflows % _MOST_OVERFLOWS == 0:
            prepared.dtype = _wider(prepared.dtype, self._device)

    @property
    def fallback_reasons(self) -> tuple[str, ...]:
        """Why frames are drawn slower than they could be, where they are."""
        every = (*self._engines.values(), *self._paths.values())
        reasons = (getattr(each, "fallback_reason", None) for each in every)
        return tuple(reason for reason in reasons if reason)

    def close(self) -> None:
        """Let go of weights, buffers and graphs."""
        paths = list(self._paths.values())
        self._paths.clear()
        self._engines.clear()
        self._maker = None
        with ExitStack() as stack:  # every one, whatever a lost device says to another
            for path in paths:
                stack.callback(path.close)

    def _start(
        self, prepared: PreparedPortrait, kp_driving: Tensor, dtype: torch.dtype
    ) -> HostCopy:
        return self.path(dtype).begin(self.source(prepared, dtype), kp_driving)


class Drawing:
    """A face that is being drawn."""

    def __init__(
        self,
        drawer: Drawer,
        prepared: PreparedPortrait,
        kp_driving: Tensor,
        dtype: torch.dtype,
        copy: HostCopy,
    ) -> None:
        self._drawer, self._prepared, self._kp_driving = drawer, prepared, kp_driving
        self._dtype, self._copy = dtype, copy

    def levels(self) -> Image:
        """(512, 512, 3) uint8, waited for; drawn again in float32 where its type overflowed.

        Raises:
            BadFrameError: not even float32 gave finite numbers.
        """
        picture = unpacked(self._copy.array())
        if picture is None and self._dtype != torch.float32:
            picture = self._drawer.in_float32(self._prepared, self._kp_driving)
            if picture is not None:
                self._drawer.count_overflow(self._prepared)
        if picture is None:
            raise BadFrameError("the drawn face holds numbers that are not finite")
        return picture


class Pending:
    """A frame that is being drawn."""

    def __init__(
        self,
        drawing: Drawing,
        working: Callable[[], AbstractContextManager[None]],
        paste: PasteBack | None,
        framing: Framing | None,
    ) -> None:
        self._drawing, self._working = drawing, working
        self._paste, self._framing = paste, framing

    def picture(self) -> Image:
        """(height, width, 3) uint8 RGB, waited for; raises what `LivePortrait.render` does."""
        with self._working():
            drawn = self._drawing.levels()
        picture = drawn if self._paste is None else self._paste(drawn)
        return picture if self._framing is None else self._framing.cut(picture)


def _wider(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    if dtype == torch.float16 and (
        device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        return torch.bfloat16
    return torch.float32
