"""A second of drawing with the mesh renderer: whether this machine keeps up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import quantiles
from typing import Final

from orchestrator.doctor.machine import usable_cores
from orchestrator.doctor.patient import Patient
from orchestrator.doctor.report import Diagnosis
from orchestrator.expression.emotions import EmotionTable
from orchestrator.look import Look
from orchestrator.motion import read_motion
from orchestrator.tables import character_store, emotions_file, everybody
from pipeline.encoding import encode
from pipeline.mesh.renderer import MeshRenderer
from pipeline.types import ImageFormat

SECONDS: Final = 1.0
STEPS: Final = 8
# The stream wants part of the period for itself, and more than one frame may be asked for.
SHARE: Final = 0.6


def look(patient: Patient) -> Iterator[Diagnosis]:
    """Draw and encode what the stage would show, in its size, for a second."""
    settings = patient.known
    stage = settings.stage
    emotions = EmotionTable.load(emotions_file(settings, patient.config), motions=read_motion)
    book = everybody(settings, patient.config, emotions, character_store(settings))
    character = book.get(stage.character)
    shown = Look(emotions, character.gains, character.rest)
    faces = [shown.face(label, (i + 1) / STEPS) for label in emotions.labels for i in range(STEPS)]
    renderer = MeshRenderer(None)
    began_s = time.perf_counter()
    prepared = renderer.prepare(character.load().portrait)
    renderer.render(prepared, faces[0], stage.size_px)
    prepared_s = time.perf_counter() - began_s
    took_ms: list[float] = []
    end_s = time.perf_counter() + SECONDS
    while time.perf_counter() < end_s or len(took_ms) < 2:
        began_s = time.perf_counter()
        image = renderer.render(prepared, faces[len(took_ms) % len(faces)], stage.size_px)
        encode(image, ImageFormat.JPEG, stage.jpeg_quality)
        took_ms.append((time.perf_counter() - began_s) * 1000.0)
    renderer.close()
    cuts = quantiles(took_ms, n=100, method="inclusive")
    text = (
        f"{stage.width}x{stage.height} on the mesh renderer: p50 {cuts[49]:.1f} ms, p99 "
        f"{cuts[98]:.1f} ms for {len(took_ms)} frames; first frame after {prepared_s:.2f} s"
    )
    period_ms = 1000.0 / stage.fps
    yield _judge(text, cuts[49], period_ms)


def _judge(text: str, median_ms: float, period_ms: float) -> Diagnosis:
    budget = f"; {period_ms:.1f} ms are a frame's"
    if median_ms > period_ms:
        advice = "too slow for stage.fps: lower it or the size, or give the daemon more processor"
        return Diagnosis("FAIL", "mesh", text + budget, advice)
    if median_ms > SHARE * period_ms:
        cores = usable_cores()
        advice = f"it just keeps up; {cores:g} cores are shared with what else runs here"
        return Diagnosis("note", "mesh", text + budget, advice)
    return Diagnosis("ok", "mesh", text + budget)
