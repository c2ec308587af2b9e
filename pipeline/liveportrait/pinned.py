"""Frames from CUDA to the host through two page-locked buffers, beside the next frame's work."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from pipeline.liveportrait.frame_path import Packed

_BUFFERS = 2


class PinnedCopies:
    """Copies tensors of one shape to the host on a stream of its own.

    A frame is first put aside on the device, so that the next one may overwrite what it was drawn
    into. Whoever asks for a third frame before the first was fetched waits for the first, which
    then keeps its pixels in an array of its own.

    Args:
        like: a tensor of the frames' shape, type and device.
    """

    def __init__(self, like: Tensor) -> None:
        self._stream = torch.cuda.Stream(like.device)  # type: ignore[no-untyped-call]
        self._buffers = deque(_Buffer(like) for _ in range(_BUFFERS))

    def send(self, packed: Tensor) -> PinnedCopy:
        """Start copying what the current stream has in a tensor after the work it was given."""
        buffer = self._buffers[0]
        self._buffers.rotate(-1)
        buffer.vacate()
        current = torch.cuda.current_stream(packed.device)
        buffer.aside.copy_(packed, non_blocking=True)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            buffer.host.copy_(buffer.aside, non_blocking=True)
        buffer.arrived.record(self._stream)
        buffer.tenant = PinnedCopy(buffer)
        return buffer.tenant

    def close(self) -> None:
        """Fetch what is under way; frames handed out stay good."""
        for buffer in self._buffers:
            buffer.vacate()


class PinnedCopy:
    """A frame in a buffer, until it is fetched or the buffer is needed."""

    def __init__(self, buffer: _Buffer) -> None:
        self._buffer: _Buffer | None = buffer
        self._packed: Packed | None = None

    def array(self) -> Packed:
        """The frame, once it has arrived; copied out of the buffer the first time."""
        if self._packed is None:
            assert self._buffer is not None
            self._buffer.arrived.synchronize()
            self._packed = np.array(self._buffer.host.numpy())
            self._buffer.tenant = None
            self._buffer = None
        return self._packed


class _Buffer:
    """Room for one frame on the device and on the host."""

    def __init__(self, like: Tensor) -> None:
        self.aside = torch.empty_like(like)
        self.host = _page_locked(like)
        # Blocking: the waiting thread sleeps instead of spinning on a core.
        self.arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self.tenant: PinnedCopy | None = None

    def vacate(self) -> None:
        """Have the frame that is in here copied out; then both halves are free."""
        if self.tenant is not None:
            self.tenant.array()


def _page_locked(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
