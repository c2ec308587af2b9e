"""Which device serves, its memory, and what torch's errors mean."""

from __future__ import annotations

import weakref

import pytest

from pipeline.errors import ConfigError, DeviceLostError, OutOfMemoryError

torch = pytest.importorskip("torch", reason="torch is not installed")

from pipeline.liveportrait import devices  # noqa: E402

# What follows the first line of CUDA's errors; it speaks of assertions that did not happen.
ADVICE = (
    "\nSearch for `cudaErrorX' in https://docs.nvidia.com/cuda/cuda-runtime-api/ for more "
    "information.\nCUDA kernel errors might be asynchronously reported at some other API call, so "
    "the stacktrace below might be incorrect.\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)

OUT_OF_MEMORY = [
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB"
    ),
    torch.AcceleratorError("CUDA error: out of memory" + ADVICE),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.62 GB, max allowed: 18.13 GB)."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 1125899906842624 bytes. Error code 12 (Cannot allocate memory)"
    ),
    MemoryError(),
]
LOST = [
    *(
        kind("CUDA error: " + text + ADVICE)
        for kind in (torch.AcceleratorError, RuntimeError)
        for text in (
            "an illegal memory access was encountered",
            "an illegal instruction was encountered",
            "misaligned address",
            "device-side assert triggered",
            "unspecified launch failure",
            "uncorrectable ECC error encountered",
            "uncorrectable NVLink error detected during the execution",
            "the launch timed out and was terminated",
            "unknown error",
            "CUDA-capable device(s) is/are busy or unavailable",
            "CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`",
        )
    ),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA driver error: unknown error"),
    RuntimeError("Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost."),
    RuntimeError("GPU 0 has fallen off the bus"),
]
OTHER = [
    RuntimeError("CUDA error: invalid argument" + ADVICE),
    torch.AcceleratorError("CUDA error: no kernel image is available for execution" + ADVICE),
    torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing" + ADVICE),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
    RuntimeError("Given groups=1, weight of size [4, 3, 3, 3], expected input to have 3 channels"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_running_out_of_memory_has_one_name(error: Exception) -> None:
    """Allocators and libraries each say it in their own words."""
    with pytest.raises(OutOfMemoryError) as found, devices.device_errors():
        raise error
    assert found.value.__cause__ is error
    assert str(found.value)


@pytest.mark.parametrize("error", LOST, ids=lambda error: str(error)[:60])
def test_a_lost_context_has_one_name(error: Exception) -> None:
    """Trying again in this process cannot help."""
    with pytest.raises(DeviceLostError) as found, devices.device_errors():
        raise error
    assert not found.value.retryable
    assert str(found.value) == str(error).splitlines()[0]


@pytest.mark.parametrize("error", OTHER, ids=lambda error: str(error)[:40])
def test_other_errors_pass_unchanged(error: Exception) -> None:
    """A wrong call is not a lost device, and what is no torch error is none of its business."""
    with pytest.raises(type(error)) as found, devices.device_errors():
        raise error
    assert found.value is error


def test_a_real_allocation_that_cannot_be_served_is_translated() -> None:
    """The allocator's own words, as a decorator."""

    @devices.device_errors()
    def greedy() -> None:
        torch.empty(1 << 50)

    for _ in range(2):  # a decorator serves more than one call
        with pytest.raises(OutOfMemoryError):
            greedy()


def test_what_the_failed_work_held_is_let_go_of() -> None:
    """An error that is kept for a log does not keep the tensors of the frame that did not fit."""
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(OutOfMemoryError) as kept, devices.device_errors():
        work()
    assert held[0]() is None
    assert kept.value.__cause__ is not None


def test_the_first_device_that_calculates_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda before mps, and neither if a trial fails."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose_device(lambda device: True) == "cuda"
    assert devices.choose_device(lambda device: device == "mps") == "mps"
    assert devices.choose_device(lambda device: False) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose_device(lambda device: True) == "mps"


def test_a_device_must_really_calculate() -> None:
    """The trial passes on a CPU, and fails on a backend that holds no numbers or is not there."""
    assert devices.calculates("cpu")
    assert not devices.calculates("meta")


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_of_memory_is_above_zero_and_at_most_one(share: float) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match="memory_share"):
        devices.limit_memory("cpu", share)


def test_a_cpu_has_no_limit_to_set() -> None:
    """Nothing happens, nor does releasing what a CPU holds need a GPU."""
    devices.limit_memory("cpu", 0.5)
    devices.release("cpu")


def test_the_share_goes_to_the_device_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch takes an index, or None for the current device."""
    asked: list[tuple[float, int | None]] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *given: asked.append(given)
    )
    devices.limit_memory("cuda:1", 0.5)
    devices.limit_memory("cuda", 1)
    assert asked == [(0.5, 1), (1.0, None)]


@pytest.mark.parametrize("fails", [False, True])
def test_flags_are_ours_only_while_we_calculate(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """TF32 is off and kernels are tried out inside; afterwards all is as others set it."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.inference_mode(False))
    older = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        before = flags()
        assert before[0] == "tf32"
        try:
            with devices.running_on(torch.device("cuda"), fixed_shapes=True):
                assert flags() == ("ieee", "ieee", "highest", True, True)
                if fails:
                    raise KeyError
        except KeyError:
            pass
        assert flags() == before
    finally:
        torch.set_float32_matmul_precision(older)


def flags() -> tuple[str, str, str, bool, bool]:
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
