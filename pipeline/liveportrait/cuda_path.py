"""The fast path on CUDA: one graph per dtype, from keypoints to packed pixels."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Protocol

import structlog
import torch
from torch import Tensor

from pipeline.errors import DeviceLostError
from pipeline.liveportrait.devices import running_on, translated
from pipeline.liveportrait.engines import Engine, SourceState
from pipeline.liveportrait.frame_path import HostCopy, painted
from pipeline.liveportrait.keypoints import KEYPOINTS
from pipeline.liveportrait.pinned import PinnedCopies

log = structlog.get_logger()

# Enough for every library to have allocated, and for cuDNN to have chosen its kernels.
_WARM_UPS = 3

Work = Callable[[], Tensor]


class Capture(Protocol):
    """Turns work on fixed buffers into something that repeats it."""

    def warm_up(self, work: Work) -> None:
        """Run it as it is, a few times."""
        ...

    def capture(self, work: Work) -> Work:
        """Record it; the result repeats it into the same memory.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        ...


class CudaPath:
    """Draws an engine's frames by replaying a CUDA graph, captured at the first one.

    The graph reads a source and keypoints from fixed buffers; a source is copied in (16 MB on the
    device) when the portrait changes. Where capture fails, the same work runs eagerly.
    """

    def __init__(self, engine: Engine, device: torch.device) -> None:
        self._engine: Engine | None = engine
        self._device = device
        self._frame: StaticFrame | None = None
        self._copies: PinnedCopies | None = None

    @property
    def fallback_reason(self) -> str | None:
        """Why frames are drawn without a graph."""
        return None if self._frame is None else self._frame.fallback_reason

    def begin(self, source: SourceState, kp_driving: Tensor) -> HostCopy:
        """Start a frame; returns as soon as the device knows what to do."""
        assert self._engine is not None
        with running_on(self._device, fixed_shapes=True):
            if self._frame is None:
                capture = GraphCapture(self._device)
                self._frame = StaticFrame(self._engine, source, capture, self._device)
            packed = self._frame.draw(source, kp_driving)
            if self._copies is None:
                self._copies = PinnedCopies(packed)
            return self._copies.send(packed)

    def close(self) -> None:
        copies, self._copies = self._copies, None
        try:
            if copies is not None:
                copies.close()
                torch.cuda.synchronize(self._device)
        finally:
            self._engine = self._frame = None


class StaticFrame:
    """An engine's work on fixed buffers.

    Args:
        source: any source of the engine, for the buffers' shapes.

    Attributes:
        fallback_reason: why the work is not replayed; None while it is, or was not tried.
    """

    def __init__(
        self, engine: Engine, source: SourceState, capture: Capture, device: torch.device
    ) -> None:
        self._source = source.copied()
        self._holds: weakref.ref[SourceState] = weakref.ref(source)
        self._keypoints = torch.zeros(1, KEYPOINTS, 3, device=device)
        self._work: Work = lambda: painted(engine, self._source, self._keypoints)
        self._capture = capture
        self._repeat: Work | None = None
        self.fallback_reason: str | None = None

    def draw(self, source: SourceState, kp_driving: Tensor) -> Tensor:
        """The packed frame, in memory that the next call overwrites."""
        if self._holds() is not source:
            for held, given in zip(self._source.tensors, source.tensors, strict=True):
                held.copy_(given)
            self._holds = weakref.ref(source)
        if kp_driving.device.type == "cpu" and self._keypoints.device.type == "cuda":
            # From memory that is not page-locked the copy would wait for the frame before.
            kp_driving = kp_driving.pin_memory()
        self._keypoints.copy_(kp_driving, non_blocking=True)
        if self._repeat is None:
            self._capture.warm_up(self._work)
            self._repeat = self._captured()
        return self._repeat()

    def _captured(self) -> Work:
        try:
            return self._capture.capture(self._work)
        except RuntimeError as error:
            if isinstance(translated(error), DeviceLostError):
                raise
            self.fallback_reason = f"CUDA graph: {str(error).partition(chr(10))[0]}"
            log.warning("cuda_graph_unusable", reason=self.fallback_reason)
            return self._work


class GraphCapture:
    """Capture as CUDA graphs do it: on a side stream, after a warm-up on the same one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, work: Work) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                work()
        current.wait_stream(self._stream)

    def capture(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # The outer block brings the caller's stream back where ending the capture raises. Other
        # threads may go on using the device meanwhile.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self._device)),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            packed = work()

        def repeat() -> Tensor:
            graph.replay()
            return packed

        return repeat
