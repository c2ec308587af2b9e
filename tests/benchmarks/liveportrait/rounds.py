"""Every form in turn, round after round, so that a busy moment falls on all of them alike."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.types import FaceControls
from tests.benchmarks.liveportrait.clock import Clock
from tests.benchmarks.liveportrait.forms import Form
from tests.benchmarks.liveportrait.subject import ON_DEVICE, PREPARE, Subject, jpeg


@dataclass(slots=True)
class Figures:
    """What was seen of one form.

    Attributes:
        frames: milliseconds from controls to JPEG, one per round, as the clock takes them.
        elapsed: the same as they pass for whoever waits.
        stages: milliseconds by stage, one per round.
        gflop: arithmetic by stage, matrix products and convolutions.
    """

    frames: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gflop: dict[str, float] = field(default_factory=dict)


def counted(subject: Subject, face: FaceControls) -> dict[str, float]:
    """GFLOP by stage, of a portrait and a frame that also warm everything up."""
    gflop: dict[str, float] = {}

    def counting(stage: str, work: Callable[[], Any]) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = work()
        gflop[stage] = counter.get_total_flops() / 1e9
        return result

    counting(PREPARE, subject.prepare)
    subject.staged(face, counting, replayed=False)
    return gflop


def measured(
    subjects: Mapping[Form, Subject],
    faces: Sequence[FaceControls],
    clock: Clock,
    progress: Callable[[str], None],
) -> dict[Form, Figures]:
    """As many rounds as there are faces but the first, which warms up.

    Every other round goes through the forms in reverse, so that none always follows the same.
    """
    figures = {}
    for form, subject in subjects.items():
        progress(f"warming up: {form}")
        figures[form] = Figures(gflop=counted(subject, faces[0]))
        if clock.kind != "cpu":  # graphs, chosen kernels; a CPU has nothing left to warm up
            _round(subject, faces[0], clock, Figures())
    order = list(subjects)
    for number, face in enumerate(faces[1:], 1):
        progress(f"round {number} of {len(faces) - 1}")
        for form in order:
            _round(subjects[form], face, clock, figures[form])
        order.reverse()
    return figures


def _round(subject: Subject, face: FaceControls, clock: Clock, figures: Figures) -> None:
    def timed(stage: str, work: Callable[[], Any]) -> Any:
        measure = clock.on_device if stage in ON_DEVICE else clock.on_host
        result, spent_ms = measure(work)
        figures.stages[stage].append(spent_ms)
        return result

    timed(PREPARE, lambda: subject.prepare(keep=False))
    begun_s = time.perf_counter()
    _, frame_ms = clock.on_host(lambda: jpeg(subject.begin(face).picture()))
    figures.elapsed.append((time.perf_counter() - begun_s) * 1000.0)
    figures.frames.append(frame_ms)
    subject.staged(face, timed)


def throughput(subject: Subject, faces: Sequence[FaceControls], clock: Clock) -> float:
    """Frames per second as the daemon draws them: each begun before the last one is fetched,
    JPEG on another thread."""
    clock.wait()
    with ThreadPoolExecutor(1) as encoder:
        jpegs = []
        begun_s = time.perf_counter()
        pending = subject.begin(faces[0])
        for face in faces[1:]:
            following = subject.begin(face)
            jpegs.append(encoder.submit(jpeg, pending.picture()))
            pending = following
        jpegs.append(encoder.submit(jpeg, pending.picture()))
        for each in jpegs:
            each.result()
        return len(faces) / (time.perf_counter() - begun_s)


def device_name(device: str) -> str:
    """What calculates."""
    if torch.device(device).type != "cuda":
        return "the CPU" if device == "cpu" else device
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
