"""The first frame and the memory of one form, in a process that has done nothing else."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import psutil  # type: ignore[import-untyped]

from tests.benchmarks.liveportrait.forms import Form
from tests.benchmarks.liveportrait.source import Source

T = TypeVar("T")

_MB = 1e6


@dataclass(frozen=True, slots=True)
class First:
    """Seconds and megabytes of one process.

    Seconds are those that pass, where nothing else is said.

    Attributes:
        import_s: torch and the package. load_s: reading the weights and making the networks.
        prepare_s, draw_s: the first portrait, and its first frame with its JPEG.
        warm_prepare_s, warm_draw_s: the same a second time.
        cold_processor_s: the processor's time, of all threads, for everything up to the first
            frame; it says more than what passes where other programs run.
        rss_mb, peak_rss_mb: resident memory after all that, and at most.
        device_mb: most that torch had allocated on a GPU; None on a CPU.
        prepared_mb: what the prepared portrait holds.
    """

    import_s: float
    load_s: float
    prepare_s: float
    draw_s: float
    warm_prepare_s: float
    warm_draw_s: float
    cold_processor_s: float
    rss_mb: float
    peak_rss_mb: float
    device_mb: float | None
    prepared_mb: float

    @property
    def cold_s(self) -> float:
        """From a running Python to the first frame."""
        return self.import_s + self.load_s + self.prepare_s + self.draw_s


def first(source: Source, form: Form) -> First:
    """Measure a form in a process of its own, its checkpoints not in memory at first."""
    source.forget_files()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_first, source, form).result()


def _first(source: Source, form: Form) -> First:
    begun_s, processor_s = time.perf_counter(), time.process_time()
    from pipeline.types import FaceControls
    from tests.benchmarks.liveportrait import subject as imported
    from tests.benchmarks.liveportrait.clock import Clock

    source.settle()
    imported_s = time.perf_counter()
    clock = Clock(source.device)
    face = FaceControls.of(jawOpen=0.5, mouthSmileLeft=0.5)
    steps: list[float] = []

    def timed(work: Callable[[], T]) -> T:
        clock.wait()
        begun_s = time.perf_counter()
        result = work()
        clock.wait()
        steps.append(time.perf_counter() - begun_s)
        return result

    subject = timed(lambda: source.load(form))
    cold_processor_s = 0.0
    for _ in range(2):
        timed(subject.prepare)
        timed(lambda: imported.jpeg(subject.begin(face).picture()))
        cold_processor_s = cold_processor_s or time.process_time() - processor_s
    return First(
        imported_s - begun_s,
        *steps,
        cold_processor_s=cold_processor_s,
        rss_mb=psutil.Process().memory_info().rss / _MB,
        peak_rss_mb=_peak_rss_mb(),
        device_mb=_device_mb(source.device),
        prepared_mb=subject.prepared_bytes / _MB,
    )


def _peak_rss_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


def _device_mb(device: str) -> float | None:
    import torch

    if torch.device(device).type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / _MB
