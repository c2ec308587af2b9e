"""What a frame of the mesh renderer costs, and where."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from statistics import fmean, median
from typing import Any

from orchestrator.settings import StageSettings
from pipeline.encoding import encode
from pipeline.frame_cache import quantise
from pipeline.mesh.renderer import MeshPortrait, MeshRenderer
from pipeline.types import FaceControls, Image, ImageFormat
from tests.benchmarks.character import character, still, transitions, worst
from tests.benchmarks.figures import percentile
from tests.benchmarks.machine import Cores, in_process_on
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table

SETTINGS = StageSettings()

# Parts of one frame, by the functions that draw them where the renderer looks them up. What is
# none of these counts as the rest, a function that is no longer there included.
STAGES = {
    "fields": (
        "pipeline.mesh.drive:drive",
        "pipeline.mesh.rig:Rig.split",
        "pipeline.mesh.fields:Window.nodes",
    ),
    "eyes": ("pipeline.mesh.eyes:Eye.draw",),
    "folds": ("pipeline.mesh.unfold:Fold.draw",),
    "warp": (
        "pipeline.mesh.fields:Window.sampled",
        "pipeline.mesh.layers:colour_of",
    ),
    "mouth": ("pipeline.mesh.mouth:Mouth.draw",),
    "light": (
        "pipeline.mesh.shading:brightness",
        "pipeline.mesh.renderer:sampled_field",
        "pipeline.mesh.rig:Rig.wrinkled_places",
        "pipeline.mesh.layers:shaded",
    ),
}
FACES = {
    "still, idle life": still,
    "transitions": transitions,
    "everything moves": worst,
}


def run(options: Options) -> Iterator[Table]:
    """Frames on one core, stage by stage."""
    yield from in_process_on(Cores.split().measured, _tables, options)


def _tables(options: Options) -> list[Table]:
    width, height = SETTINGS.size_px
    load_s, prepare_s = [], []
    for _ in range(options.number(1, 5)):
        begun_s = time.perf_counter()
        portrait = character().load().portrait
        loaded_s = time.perf_counter()
        renderer = MeshRenderer(SETTINGS.size_px)
        prepared = renderer.prepare(portrait)
        load_s.append(loaded_s - begun_s)
        prepare_s.append(time.perf_counter() - loaded_s)
    frames = options.number(24, 900)
    table = Table(
        f"Mesh renderer, {width}x{height}, one core: ms per frame",
        ("Face", "Frames", *STAGES, "rest", "JPEG", "Total p50", "p99", "JPEG kB"),
    )
    for name, faces in FACES.items():
        controls = [quantise(face) for face in faces(frames)]
        table.add(name, frames, *_measured(renderer, prepared, controls))
    table.notes.append(
        f"Stages and JPEG (quality {SETTINGS.jpeg_quality}) are means; the total is drawing and "
        "JPEG, measured without looking at the stages."
    )
    gone = [place for places in STAGES.values() for place in places if _function(place) is None]
    if gone:
        table.notes.append(f"Counted as the rest, for they are no longer there: {', '.join(gone)}.")
    start = Table("Mesh renderer: bringing a portrait on stage", ("Step", "Seconds (median)"))
    start.add("read the portrait and its landmarks", median(load_s))
    start.add("prepare it", median(prepare_s))
    return [table, start]


def _measured(
    renderer: MeshRenderer, prepared: MeshPortrait, faces: list[FaceControls]
) -> Iterable[float]:
    for face in faces[:10]:
        _jpeg(renderer.render(prepared, face, SETTINGS.size_px))
    totals, jpegs, sizes = [], [], []
    for face in faces:
        begun_s = time.perf_counter()
        image = renderer.render(prepared, face, SETTINGS.size_px)
        drawn_s = time.perf_counter()
        data = _jpeg(image)
        ended_s = time.perf_counter()
        totals.append((ended_s - begun_s) * 1000.0)
        jpegs.append((ended_s - drawn_s) * 1000.0)
        sizes.append(len(data) / 1000.0)
    with _stages_timed() as seconds:
        begun_s = time.perf_counter()
        for face in faces:
            renderer.render(prepared, face, SETTINGS.size_px)
        drawing_s = time.perf_counter() - begun_s
    stages = [seconds[stage] * 1000.0 / len(faces) for stage in STAGES]
    rest = drawing_s * 1000.0 / len(faces) - sum(stages)
    p50, p99 = percentile(totals, 50), percentile(totals, 99)
    return *stages, rest, fmean(jpegs), p50, p99, fmean(sizes)


def _jpeg(image: Image) -> bytes:
    return encode(image, ImageFormat.JPEG, SETTINGS.jpeg_quality)


@contextlib.contextmanager
def _stages_timed() -> Iterator[dict[str, float]]:
    """Seconds by stage while the block runs; of calls inside each other the outer one counts."""
    seconds: defaultdict[str, float] = defaultdict(float)
    inside = [False]

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if inside[0]:
                return function(*args, **kwargs)
            inside[0] = True
            begun_s = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[stage] += time.perf_counter() - begun_s
                inside[0] = False

        return call

    with contextlib.ExitStack() as undo:
        for stage, places in STAGES.items():
            for place in places:
                owner, name = _found(place)
                function = _function(place)
                if function is not None:
                    setattr(owner, name, timed(stage, function))
                    undo.callback(setattr, owner, name, function)
        yield seconds


def _function(place: str) -> Any:
    owner, name = _found(place)
    return getattr(owner, name, None)


def _found(place: str) -> tuple[Any, str]:
    """`module:Class.function` as the object that holds the last name, and that name."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    try:
        owner: Any = importlib.import_module(module)
    except ImportError:
        return None, name
    for each in owners:
        owner = getattr(owner, each, None)
    return owner, name
