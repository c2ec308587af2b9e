"""LivePortrait on CUDA against the CPU, graphs against eager work, and what can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import OutOfMemoryError
from pipeline.types import FaceControls, FaceLandmarks, Image, Portrait
from tests.fakes.liveportrait_weights import Array

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from pipeline.liveportrait import LivePortrait  # noqa: E402
from pipeline.liveportrait import cuda_path as cuda_path_module  # noqa: E402
from pipeline.liveportrait.cuda_path import CudaPath  # noqa: E402
from pipeline.liveportrait.devices import choose_device, release  # noqa: E402
from pipeline.liveportrait.prepared import PreparedPortrait  # noqa: E402

pytestmark = [pytest.mark.requires_cuda, pytest.mark.timeout(600)]

FACES = [
    FaceControls(),
    FaceControls.of(jawOpen=1),
    FaceControls.of(mouthSmileLeft=1, mouthSmileRight=1, yaw=15.0),
    FaceControls.of(eyeBlinkLeft=1),
]
Load = Callable[..., LivePortrait]


@pytest.fixture
def load(weights_dir: Path) -> Iterator[Load]:
    """Models that are closed afterwards."""
    models: list[LivePortrait] = []

    def loaded(device: str = "cuda", dtype: str = "float32", **options: Any) -> LivePortrait:
        models.append(LivePortrait.load(weights_dir, device, dtype, **options))
        return models[-1]

    yield loaded
    for model in models:
        model.close()


@pytest.fixture
def image(golden: Mapping[str, Array]) -> Tensor:
    return torch.from_numpy(golden["in/img256"]).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def portrait(golden: Mapping[str, Array]) -> Portrait:
    return made_portrait(golden["e2e/in_photo"], "one")


@pytest.fixture
def other(golden: Mapping[str, Array]) -> Portrait:
    """Another picture with its face in the same place."""
    photo = golden["e2e/in_photo"]
    return made_portrait(np.ascontiguousarray(255 - photo), "other")


def made_portrait(photo: Image, key: str) -> Portrait:
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack((264 + 70 * np.cos(angle), 330 + 85 * np.sin(angle)), axis=1)
    eye = np.array([[-15, 0], [-5, -4], [5, -4], [15, 0], [5, 4], [-5, 4]])
    points[36:42], points[42:48] = np.add(eye, (234, 300)), np.add(eye, (294, 300))
    points[48], points[54], points[62], points[66] = (239, 365), (289, 365), (264, 363), (264, 367)
    landmarks = FaceLandmarks(points.astype(np.float32), np.ones((2, 3), np.float32), "file")
    return Portrait(key, photo, landmarks, key)


def psnr(found: Tensor, expected: Tensor) -> float:
    return float(-10 * torch.log10((found.cpu() - expected.cpu()).square().mean()))


def agree(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    found, expected = found.cpu(), expected.cpu()
    assert (found.shape, found.dtype) == (expected.shape, torch.float32)
    return bool((found - expected).norm() <= tolerance * expected.norm())


def crop(model: LivePortrait, prepared: PreparedPortrait, face: FaceControls) -> Image:
    return model.render(prepared, face, whole=False)


def differ(one: Image, other: Image) -> int:
    """The largest difference in levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def path(model: LivePortrait, dtype: torch.dtype) -> CudaPath:
    found = model._drawer.path(dtype)
    assert isinstance(found, CudaPath)
    return found


def test_this_device_is_chosen() -> None:
    """It calculates, so it is the first choice."""
    assert choose_device() == "cuda"


@pytest.mark.parametrize("fast", [True, False])
def test_float32_agrees_with_the_cpu(
    load: Load, image: Tensor, golden: Mapping[str, Array], fast: bool
) -> None:
    """Every network to 1e-4, TF32 or not in the rest of the process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        gpu, cpu = load(fast=fast), load("cpu")
        motion, expected = gpu.extract_motion(image), cpu.extract_motion(image)
        for name in ("pitch", "yaw", "roll", "t", "exp", "scale", "kp"):
            assert agree(getattr(motion, name), getattr(expected, name)), name
            assert getattr(motion, name).is_cuda
        x_s = cpu.transform_keypoints(expected)
        assert agree(gpu.transform_keypoints(expected), x_s, 1e-5)
        volume = cpu.extract_appearance(image)
        assert agree(gpu.extract_appearance(image), volume)
        x_d = torch.from_numpy(golden["x_d"])
        assert agree(gpu.stitch(x_s, x_d), cpu.stitch(x_s, x_d), 1e-5)
        warped = gpu.warp(volume, kp_source=x_s, kp_driving=x_d)
        reference = cpu.warp(volume, kp_source=x_s, kp_driving=x_d)
        for name, part in warped._asdict().items():
            assert agree(part, getattr(reference, name)), name
        picture, drawn = gpu.decode(reference.out), cpu.decode(reference.out)
        assert float((picture.cpu() - drawn).abs().mean()) < 1e-5
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_within_forty_decibels(
    load: Load, image: Tensor, golden: Mapping[str, Array], dtype: str, fast: bool
) -> None:
    """Geometry is float32's, the picture is near enough."""
    full, half = load(), load(dtype=dtype, fast=fast)
    x_s = full.transform_keypoints(full.extract_motion(image))
    volume, x_d = full.extract_appearance(image), torch.from_numpy(golden["x_d"])
    expected = full.warp(volume, kp_source=x_s, kp_driving=x_d)
    found = half.warp(volume, kp_source=x_s, kp_driving=x_d)
    assert float((found.deformation - expected.deformation).abs().max()) < 1e-3
    assert psnr(half.decode(found.out), full.decode(expected.out)) >= 40


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_replayed_frames_are_eager_frames(
    load: Load,
    portrait: Portrait,
    other: Portrait,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
) -> None:
    """Over several faces, going back and forth between two portraits."""
    graph = load(dtype=dtype)
    one, two = graph.prepare(portrait), graph.prepare(other)
    scenes = [(which, face) for face in FACES for which in (one, two, one)]
    replayed = [crop(graph, which, face) for which, face in scenes]
    assert graph.fallback_reasons == ()

    def refuse(self: object, work: object) -> None:
        raise RuntimeError("no capture today")

    monkeypatch.setattr(cuda_path_module.GraphCapture, "capture", refuse)
    eager = load(dtype=dtype)
    drawn = [
        crop(eager, eager.prepare(portrait if which is one else other), face)
        for which, face in scenes
    ]
    assert eager.fallback_reasons == ("CUDA graph: no capture today",)
    for found, expected in zip(replayed, drawn, strict=True):
        assert differ(found, expected) <= 1
    assert differ(replayed[0], replayed[1]) > 10


def test_frames_are_the_cpus(load: Load, portrait: Portrait) -> None:
    """The whole way from a portrait and controls, in float32."""
    gpu, cpu = load(), load("cpu")
    on_gpu, on_cpu = gpu.prepare(portrait), cpu.prepare(portrait)
    for face in FACES[:2]:
        found, expected = gpu.render(on_gpu, face), cpu.render(on_cpu, face)
        assert differ(found, expected) <= 2
        assert np.abs(found.astype(int) - expected).mean() < 0.05


def test_the_same_frame_twice_is_the_same_bytes(load: Load, portrait: Portrait) -> None:
    """And nobody writes to it again."""
    model = load(dtype="float16")
    prepared = model.prepare(portrait)
    first = crop(model, prepared, FACES[1])
    kept = first.copy()
    others = [crop(model, prepared, face) for face in FACES]
    assert (first == kept).all()
    assert (crop(model, prepared, FACES[1]) == kept).all()
    assert differ(others[0], kept) > 0


def test_frames_in_flight_keep_apart(load: Load, portrait: Portrait) -> None:
    """Begun one after another, fetched in any order, more of them than buffers."""
    model = load(dtype="float16")
    prepared = model.prepare(portrait)
    expected = [crop(model, prepared, face) for face in FACES]
    pending = [model.begin(prepared, face, whole=False) for face in FACES]
    found = [each.picture() for each in reversed(pending)]
    for one, same in zip(reversed(found), expected, strict=True):
        assert (one == same).all()


def test_an_overflow_in_the_graph_is_drawn_in_float32(load: Load, portrait: Portrait) -> None:
    """Weights of the last convolution so large that float16 overflows in every frame."""
    model = load(dtype="float16")
    prepared = model.prepare(portrait)
    full = load()
    expected = crop(full, full.prepare(portrait), FACES[1])
    image = model._engine._generator._image  # type: ignore[attr-defined]
    with torch.inference_mode():
        image.weight.fill_(6e4)
    for count in (1, 2, 3):
        assert differ(crop(model, prepared, FACES[1]), expected) <= 1
        assert model.overflows == count
    assert model.fallback_reasons == ()
    assert prepared.dtype == torch.bfloat16
    assert differ(crop(model, prepared, FACES[1]), expected) <= 40
    assert model.overflows == 3


def test_a_full_device_says_so_and_recovers(load: Load, portrait: Portrait) -> None:
    """Under a cap that the first frame exceeds; once it is lifted the same model draws."""
    model = load(dtype="float16")
    total = torch.cuda.get_device_properties(0).total_memory
    prepared = model.prepare(portrait)
    release("cuda")
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**21) / total)
    try:
        for _ in range(2):
            with pytest.raises(OutOfMemoryError):
                crop(model, prepared, FACES[1])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    frame = crop(model, prepared, FACES[1])
    assert model.fallback_reasons == ()
    assert (frame == crop(model, prepared, FACES[1])).all()


def test_loading_under_a_share_that_is_too_small(weights_dir: Path) -> None:
    """The cap is in force before the first weight."""
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        with pytest.raises(OutOfMemoryError):
            LivePortrait.load(weights_dir, "cuda", memory_share=2**26 / total)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_closing_gives_the_memory_back(load: Load, portrait: Portrait) -> None:
    """Weights, buffers and graphs; prepared portraits are the caller's."""
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    model = load(dtype="float16")
    model.warmup()
    crop(model, model.prepare(portrait), FACES[1])
    assert torch.cuda.memory_allocated() - before[0] > 300e6
    model.close()
    # What cuBLAS keeps for itself, 32 MiB for a stream, stays.
    assert torch.cuda.memory_allocated() - before[0] < 150e6
    assert torch.cuda.memory_reserved() - before[1] < 200e6


def test_a_prepared_portrait_counts_its_device_memory(load: Load, portrait: Portrait) -> None:
    """As the allocator does, rounded up to its blocks."""
    model = load(dtype="float16")
    model.prepare(portrait)
    release("cuda")
    before = torch.cuda.memory_allocated()
    prepared = model.prepare(portrait)
    release("cuda")
    held = torch.cuda.memory_allocated() - before
    on_host = prepared.paste.bytes + portrait.image.nbytes + prepared.keypoints.nbytes
    assert abs(prepared.bytes - on_host - held) < 0.05 * held


def test_warmed_up_the_first_frame_is_as_fast_as_later_ones(load: Load, portrait: Portrait) -> None:
    """The graph is captured by then, and no frame captures it again."""
    model = load(dtype="float16")
    model.warmup()
    captured = path(model, torch.float16)._frame
    assert captured is not None
    repeat = captured._repeat
    prepared = model.prepare(portrait)
    for face in FACES:
        crop(model, prepared, face)
    assert path(model, torch.float16)._frame is captured
    assert captured._repeat is repeat


def test_compiled_frames_are_uncompiled_frames(load: Load, portrait: Portrait) -> None:
    """Or the reason is told and they are drawn all the same."""
    model, compiled = load(dtype="float16"), load(dtype="float16", compile=True)
    expected = crop(model, model.prepare(portrait), FACES[1])
    found = crop(compiled, compiled.prepare(portrait), FACES[1])
    assert differ(found, expected) <= 12
    assert all("torch.compile" in reason for reason in compiled.fallback_reasons)
