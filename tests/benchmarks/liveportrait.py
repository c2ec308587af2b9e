"""LivePortrait: plain eager networks against the fast form, stage by stage.

Synthetic weights: the arithmetic is the same whatever the numbers are. Also runs by itself:
`python -m tests.benchmarks.liveportrait [--device cuda] [--frames N]`.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.functional import conv2d

from pipeline.encoding import encode
from pipeline.liveportrait import LivePortrait
from pipeline.liveportrait.warping_module import Warped
from pipeline.types import ImageFormat
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.fakes.liveportrait_weights import golden, write_checkpoints

# W + G per frame: specification 11 for the plain form; 12.3 without its item c for the fast one.
PLAIN_GFLOP = 1233.6
FAST_GFLOP = 996.1
JPEG_QUALITY = 90
STAGES = ("prepare", "stitch", "warp", "decode", "to host", "encode")


@dataclass(frozen=True, slots=True)
class Form:
    """One row of the table."""

    fast: bool
    dtype: str

    def __str__(self) -> str:
        how = "fast" if self.fast else "plain eager"
        autocast = "" if self.fast or self.dtype == "float32" else ", autocast"
        return f"{how} {self.dtype}{autocast}"

    @property
    def gflop(self) -> float:
        """Arithmetic of one frame."""
        return FAST_GFLOP if self.fast else PLAIN_GFLOP


def run(options: Options) -> Iterator[Table]:
    """Both forms on the CPU, and on CUDA where there is one."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), seed=1)
        for device in devices:
            most = 30 if device == "cuda" else 3
            yield measured(Path(folder), device, options.number(1, most))


def measured(weights_dir: Path, device: str, frames: int) -> Table:
    """The table of one device."""
    half = "float16" if device == "cuda" else "bfloat16"
    forms = [Form(fast, dtype) for fast in (False, True) for dtype in ("float32", half)]
    table = Table(
        f"LivePortrait on {described(device)}: ms, median of {frames}",
        ("Form", *STAGES, "Frame", "against plain", "GFLOP", "GFLOP/s", "of peak", "First", "MB"),
    )
    peaks = {dtype: matrix_peak(device, dtype) for dtype in ("float32", half)}
    plain: dict[str, float] = {}
    for form in forms:
        _quiet(device)
        stages, first_ms, megabytes = _stages(weights_dir, device, form, frames)
        frame_ms = sum(stages[1:])
        plain.setdefault(form.dtype, frame_ms)
        rate = form.gflop / (stages[2] + stages[3]) * 1000.0
        against = " / ".join(f"{plain[d] / frame_ms:.2f}x" for d in dict.fromkeys(
            ("float32", form.dtype)
        ))  # fmt: skip
        table.add(
            str(form), *stages, frame_ms, against, form.gflop, rate,
            f"{rate / peaks[form.dtype]:.0%}", first_ms, megabytes,
        )  # fmt: skip
    table.notes.append(
        "'Frame' leaves out 'prepare', which is once per portrait; 'against plain' is against "
        "plain eager float32, then against plain in the same dtype. 'First' is loading the "
        "networks, preparing and drawing the first frame, checkpoints in the page cache. The peak "
        "is the better of a matrix product and a 3x3 convolution of 512 channels: "
        + ", ".join(f"{dtype} {peak / 1000:.2f} TFLOP/s" for dtype, peak in peaks.items())
        + f". Torch {torch.__version__}, {torch.get_num_threads()} threads."
    )
    return table


def described(device: str) -> str:
    """The device's name."""
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


def matrix_peak(device: str, dtype: str) -> float:
    """GFLOP/s of a large matrix product or a wide convolution, the best of a few."""
    side = 4096 if device == "cuda" else 2048
    kind = getattr(torch, dtype)
    a = torch.randn(side, side, device=device).to(kind)
    nhwc = torch.channels_last
    x = torch.randn(1, 512, 64, 64, device=device).to(kind).contiguous(memory_format=nhwc)
    kernel = torch.randn(512, 512, 3, 3, device=device).to(kind).contiguous(memory_format=nhwc)

    def best(work: Callable[[], object], flop: float) -> float:
        def waited() -> None:
            work()
            _wait(device)

        waited()
        return flop / min(_seconds(waited) for _ in range(5)) / 1e9

    with torch.inference_mode():
        return max(
            best(lambda: a @ a, 2.0 * side**3),
            best(lambda: conv2d(x, kernel, padding=1), 2.0 * 64 * 64 * 9 * 512**2),
        )


def _stages(
    weights_dir: Path, device: str, form: Form, frames: int
) -> tuple[list[float], float, float]:
    """Milliseconds by stage, of the first frame with everything before it, and megabytes."""
    begun_s = time.perf_counter()
    model = LivePortrait.load(weights_dir, device=device, dtype=form.dtype, fast=form.fast)
    data = golden()
    image = torch.from_numpy(data["in/img256"]).permute(2, 0, 1)[None].float() / 255
    x_d = torch.from_numpy(data["x_d"]).to(device)
    with torch.inference_mode():
        times: dict[str, list[float]] = {stage: [] for stage in STAGES}
        first_ms = 0.0
        for index in range(frames + 1):
            _frame(model, image, x_d, times, device)
            if index == 0:
                first_ms = (time.perf_counter() - begun_s) * 1000.0
                times = {stage: [] for stage in STAGES}
    return [median(times[stage]) for stage in STAGES], first_ms, _megabytes(device)


def _frame(
    model: LivePortrait,
    image: torch.Tensor,
    x_d: torch.Tensor,
    times: dict[str, list[float]],
    device: str,
) -> None:
    engine = model._engine

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        begun_s = time.perf_counter()
        result = work()
        _wait(device)
        times[stage].append((time.perf_counter() - begun_s) * 1000.0)
        return result

    def prepare() -> tuple[torch.Tensor, object]:
        x_s = model.transform_keypoints(model.extract_motion(image))
        return x_s, engine.prepare(model.extract_appearance(image), x_s)

    x_s, source = timed("prepare", prepare)
    kp_driving = timed("stitch", lambda: model.stitch(x_s, x_d))
    warped: Warped = timed("warp", lambda: engine.warp(source, kp_driving))
    picture = timed("decode", lambda: engine.decode(warped.out))
    levels = timed(
        "to host",
        lambda: np.ascontiguousarray(
            picture[0].mul(255).to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
        ),
    )
    timed("encode", lambda: encode(levels, ImageFormat.JPEG, JPEG_QUALITY))


def _seconds(work: Callable[[], None]) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _quiet(device: str) -> None:
    """Let go of the form before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _megabytes(device: str) -> float:
    """Peak of the device's memory, or of the process, which only ever grows, on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Print one device's table."""
    parser = argparse.ArgumentParser(description="LivePortrait, plain against fast.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), seed=1)
        table = measured(Path(folder), options.device, options.frames)
    sys.stdout.write(f"{table.markdown()}\n")


if __name__ == "__main__":
    main()
