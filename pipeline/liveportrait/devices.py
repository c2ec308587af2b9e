"""Torch's devices: which one serves, how much memory it may take, and what its errors mean."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
import torch
from torch.nn import functional

from pipeline.errors import ConfigError, DeviceLostError, OutOfMemoryError

log = structlog.get_logger()

# What torch, CUDA's libraries and the allocators say when memory runs out.
_OUT_OF_MEMORY: Final = (
    "out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "can't allocate memory",
    "not enough memory",
)
# What they say of a context that nothing but a new process can replace.
_LOST: Final = (
    "CUDA error:",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA driver error:",
    "CUDA unknown error",
    "GPU is lost",
    "fallen off the bus",
    "Unable to determine the device handle",
)
# CUDA's errors that leave the context as it was: the call was wrong, not the device.
_HARMLESS: Final = (
    "invalid argument",
    "invalid configuration argument",
    "invalid resource handle",
    "invalid device ordinal",
    "no kernel image is available",
    "operation not supported",
    "stream is capturing",
    "previous error during capture",
    "CUBLAS_STATUS_INVALID_VALUE",
    "CUBLAS_STATUS_NOT_SUPPORTED",
    "CUBLAS_STATUS_ARCH_MISMATCH",
)


def choose_device(works: Callable[[str], bool] | None = None) -> str | None:
    """`cuda`, else `mps`, whichever torch has and can really calculate on; else None.

    Args:
        works: tells whether a device calculates; a small trial if not given.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    trial = works or calculates
    return next((device for device, found in there.items() if found and trial(device)), None)


def calculates(device: str) -> bool:
    """Whether a small convolution on a device gives what the CPU gives; logs why not."""
    picture = torch.linspace(-1.0, 1.0, 3 * 8 * 8).reshape(1, 3, 8, 8)
    kernel = torch.linspace(1.0, -1.0, 4 * 3 * 3 * 3).reshape(4, 3, 3, 3)
    expected = functional.conv2d(picture, kernel, padding=1)
    try:
        found = functional.conv2d(picture.to(device), kernel.to(device), padding=1).cpu()
    except (RuntimeError, AssertionError) as error:  # torch says the latter of a missing backend
        log.warning("device_unusable", device=device, reason=_first_line(error))
        return False
    if torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
        return True
    log.warning("device_unusable", device=device, reason="it calculates wrongly")
    return False


def device_named(name: str) -> torch.device:
    """The device of a name: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        ConfigError: it is none of these, or not here.
    """
    kind, _, number = name.partition(":")
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = {"cpu": 1, "cuda": cuda, "mps": int(torch.backends.mps.is_available())}
    if kind not in here or not (number or "0").isdecimal():
        raise ConfigError("device", f"{name!r} is not cpu, cuda, cuda:NUMBER or mps")
    if int(number or 0) >= here[kind]:
        raise ConfigError("device", f"torch {torch.__version__} finds no {name} device here")
    return torch.device(name)


def limit_memory(device: torch.device | str, share: float) -> None:
    """Let this process take at most a share of a device's memory; more is OutOfMemoryError.

    CUDA and MPS only: a CPU has no such limit, and is left as it is.

    Args:
        share: in (0, 1].

    Raises:
        ConfigError: a share that is none.
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError("memory_share", f"expected a number in (0, 1], found {share!r}")
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(float(share), device.index)
    elif device.type == "mps":
        torch.mps.set_per_process_memory_fraction(float(share))


def release(device: torch.device | str) -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    kind = torch.device(device).type
    if kind == "cuda" and _has_cuda_context():
        torch.cuda.empty_cache()
    elif kind == "mps":
        torch.mps.empty_cache()


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn torch's errors about memory and lost devices into the product's; also a decorator.

    Raises:
        OutOfMemoryError: the device is out of memory. What the failed work held is let go of.
        DeviceLostError: its context is gone for good.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        meaning = translated(error)
        if meaning is None:
            raise
        if isinstance(meaning, OutOfMemoryError):
            # The traceback's frames hold the tensors of the frame that did not fit.
            traceback.clear_frames(error.__traceback__)
            if _has_cuda_context():
                torch.cuda.empty_cache()
        raise meaning from error


def translated(error: BaseException) -> OutOfMemoryError | DeviceLostError | None:
    """What an exception says about the device; None if nothing."""
    text = _first_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return OutOfMemoryError(text or type(error).__name__)
    if not isinstance(error, RuntimeError):
        return None
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return OutOfMemoryError(text)
    if any(sign in text for sign in _HARMLESS):
        return None
    if isinstance(error, torch.AcceleratorError) or any(sign in text for sign in _LOST):
        return DeviceLostError(text)
    return None


@contextmanager
def running_on(device: torch.device, *, fixed_shapes: bool = False) -> Iterator[None]:
    """Calculate on a device; all flags come back as they were.

    On CUDA float32 is float32, not TF32, and the same numbers give the same results every time.

    Args:
        fixed_shapes: let cuDNN try its kernels once per shape and keep the fastest.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    benchmark, deterministic = cudnn.benchmark, cudnn.deterministic
    conv_precision = cudnn.conv.fp32_precision
    # torch keeps the matmul's under two names and raises in the matmul when they disagree;
    # this call sets both.
    older, newer = torch.get_float32_matmul_precision(), matmul.fp32_precision
    try:
        torch.set_float32_matmul_precision("highest")
        cudnn.conv.fp32_precision = "ieee"
        cudnn.benchmark, cudnn.deterministic = benchmark or fixed_shapes, True
        with torch.cuda.device(device):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
        cudnn.conv.fp32_precision = conv_precision
        torch.set_float32_matmul_precision(older)
        if matmul.fp32_precision != newer:
            matmul.fp32_precision = newer


def _first_line(error: BaseException) -> str:
    """CUDA's further lines name errors that did not happen."""
    return next(iter(str(error).splitlines()), "")


def _has_cuda_context() -> bool:
    """Whether this process has used CUDA; asking more would start it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
