"""Time on the host and on a device, and what the device can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn.functional import conv2d

from pipeline.liveportrait.devices import running_on

T = TypeVar("T")


class Clock:
    """Milliseconds of work on one device.

    A device that works on by itself is waited for before and after, so that nothing of what came
    before is counted, and everything of what is measured. Where all work is one thread's, it is
    the processor's time that is taken: what other programs do meanwhile passes for nothing.

    Attributes:
        kind: of the device: `cpu`, `cuda`, `mps`.
        alone: the processor's time is taken.
    """

    def __init__(self, device: str) -> None:
        self.kind = torch.device(device).type
        self.alone = self.kind == "cpu" and torch.get_num_threads() == 1
        self._device = device
        self._now_s = time.process_time if self.alone else time.perf_counter

    def wait(self) -> None:
        """Until the device has nothing more to do."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self._device)
        elif self.kind == "mps":
            torch.mps.synchronize()

    def on_host(self, work: Callable[[], T]) -> tuple[T, float]:
        """What passes on the host until the work and all it gave to the device is done."""
        self.wait()
        begun_s = self._now_s()
        result = work()
        self.wait()
        return result, (self._now_s() - begun_s) * 1000.0

    def on_device(self, work: Callable[[], T]) -> tuple[T, float]:
        """What passes on the device, by its own events where it has them."""
        if self.kind != "cuda":
            return self.on_host(work)
        with torch.cuda.device(self._device):
            begin, end = (_event() for _ in range(2))
            self.wait()
            begin.record()
            result = work()
            end.record()
            end.synchronize()
            return result, begin.elapsed_time(end)


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)


def matrix_peak(clock: Clock, device: str, dtype: str, *, side: int, times: int) -> float:
    """GFLOP/s of a large matrix product or a wide convolution, the best of a few.

    Args:
        side: of the matrices, which are square; the convolution has side / 4 channels.
    """
    kind = getattr(torch, dtype)
    channels, nhwc = side // 4, torch.channels_last
    a = torch.randn(side, side, device=device).to(kind)
    x = torch.randn(1, channels, 64, 64, device=device).to(kind).contiguous(memory_format=nhwc)
    kernel = torch.randn(channels, channels, 3, 3, device=device).to(kind)
    kernel = kernel.contiguous(memory_format=nhwc)

    def best(work: Callable[[], object], flop: float) -> float:
        work()
        return flop / min(clock.on_device(work)[1] for _ in range(times)) / 1e6

    # float32 as the model runs it, not TF32.
    with torch.inference_mode(), running_on(torch.device(device), fixed_shapes=True):
        product = best(lambda: a @ a, 2.0 * side**3)
        convolution = best(lambda: conv2d(x, kernel, padding=1), 2.0 * 64 * 64 * 9 * channels**2)
    return max(product, convolution)
