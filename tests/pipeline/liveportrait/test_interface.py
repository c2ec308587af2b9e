"""What callers may hand in, batches, warming up, closing, and memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipeline.errors import AvatarError, ConfigError, RenderError
from pipeline.types import FaceControls, FaceLandmarks, Portrait
from tests.fakes.liveportrait_weights import Array

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from pipeline.liveportrait import LivePortrait, Motion  # noqa: E402
from pipeline.liveportrait.engines import FastEngine, memory  # noqa: E402
from pipeline.liveportrait.errors import ArgumentError  # noqa: E402
from tests.fakes.liveportrait_engine import FlatEngine  # noqa: E402

if TYPE_CHECKING:
    from pipeline.liveportrait.networks import Networks

pytestmark = pytest.mark.timeout(180)

CPU = torch.device("cpu")


@pytest.fixture
def model(networks: Networks) -> LivePortrait:
    """True small networks, F and M; W and G draw flat."""
    model = LivePortrait(networks, CPU, torch.float32, fast=False)
    model._drawer._engines = {torch.float32: FlatEngine()}
    return model


@pytest.fixture
def images(golden: Mapping[str, Array]) -> Tensor:
    """Two different pictures."""
    one = torch.from_numpy(golden["in/img256"]).permute(2, 0, 1)[None].float() / 255
    return torch.cat((one, one.flip(3)))


def keypoints(batch: int = 2) -> Tensor:
    return torch.randn(batch, 21, 3, generator=torch.Generator().manual_seed(batch)) * 0.3


def agree(found: Tensor, expected: Tensor) -> bool:
    assert (found.shape, found.dtype) == (expected.shape, torch.float32)
    return bool((found - expected).norm() <= 1e-5 * expected.norm())


def test_motions_of_a_batch_are_those_of_its_pictures(model: LivePortrait, images: Tensor) -> None:
    """So are the keypoints that follow from them."""
    both = model.extract_motion(images)
    singles = [model.extract_motion(image[None]) for image in images]
    for name in ("pitch", "yaw", "roll", "t", "exp", "scale", "kp"):
        assert agree(getattr(both, name), torch.cat([getattr(m, name) for m in singles])), name
    expected = torch.cat([model.transform_keypoints(motion) for motion in singles])
    assert agree(model.transform_keypoints(both), expected)


def test_volumes_of_a_batch_are_those_of_its_pictures(model: LivePortrait, images: Tensor) -> None:
    """Whatever strides and precision they come in."""
    both = model.extract_appearance(images)
    strided = images.double().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    singles = [model.extract_appearance(image[None]) for image in strided]
    assert agree(both, torch.cat(singles))


def test_small_networks_take_batches(model: LivePortrait) -> None:
    """Stitching and retargeting, in float64 too."""
    source, driving = keypoints(), keypoints().flip(0).double()
    eyes, lips = torch.rand(2, 3), torch.rand(2, 2)
    for both, single in (
        (model.stitch(source, driving), lambda i: model.stitch(source[i], driving[i])),
        (model.retarget_eyes(source, eyes), lambda i: model.retarget_eyes(source[i], eyes[i])),
        (model.retarget_lips(source, lips), lambda i: model.retarget_lips(source[i], lips[i])),
    ):
        expected = torch.cat([single(slice(i, i + 1)) for i in range(2)])
        assert agree(both, expected)


def test_warping_and_decoding_keep_a_batch_together(model: LivePortrait) -> None:
    """Every volume meets its own keypoints."""
    volumes = torch.stack([torch.full((32, 16, 64, 64), level) for level in (0.125, 0.5)])
    driving = torch.stack([torch.full((21, 3), moved) for moved in (0.0, 0.25)])
    warped = model.warp(volumes, kp_source=keypoints(), kp_driving=driving)
    assert warped.out.shape == (2, 256, 64, 64)
    assert warped.deformation.shape == (2, 16, 64, 64, 3)
    pictures = model.decode(warped.out.double())
    assert pictures.shape == (2, 3, 512, 512)
    assert pictures[:, 0, 0, 0].tolist() == [0.125, 0.75]


MOTION = Motion(
    *(torch.zeros(2, 1) for _ in range(3)),
    t=torch.zeros(2, 3),
    exp=torch.zeros(2, 21, 3),
    scale=torch.ones(2, 1),
    kp=torch.zeros(2, 21, 2),
)


@pytest.mark.parametrize(
    ("call", "name", "says"),
    [
        (lambda m: m.extract_motion(torch.zeros(3, 256, 256)), "image", "(B, 3, 256, 256)"),
        (lambda m: m.extract_motion(torch.zeros(0, 3, 256, 256)), "image", "B >= 1"),
        (lambda m: m.extract_motion(np.zeros((1, 3, 256, 256))), "image", "ndarray"),
        (
            lambda m: m.extract_appearance(torch.zeros(1, 3, 256, 256, dtype=torch.uint8)),
            "image",
            "uint8",
        ),
        (lambda m: m.transform_keypoints(MOTION), "motion.kp", "(2, 21, 2)"),
        (lambda m: m.transform_keypoints({"kp": 1}), "motion", "dict"),
        (lambda m: m.stitch(torch.zeros(1, 63), keypoints(1)), "kp_source", "(B, 21, 3)"),
        (lambda m: m.stitch(keypoints(2), keypoints(1)), "kp_driving", "batch of 2"),
        (lambda m: m.retarget_eyes(keypoints(1), torch.zeros(1, 2)), "ratios", "(B, 3)"),
        (lambda m: m.retarget_lips(keypoints(1), torch.zeros(2)), "ratios", "(2,)"),
        (
            lambda m: m.warp(
                torch.zeros(1, 32, 16, 64, 64), kp_source=keypoints(1), kp_driving=keypoints(2)
            ),
            "kp_driving",
            "batch of 1",
        ),
        (
            lambda m: m.warp(torch.zeros(1, 512, 64, 64), kp_source=0, kp_driving=0),
            "feature",
            "(B, 32, 16, 64, 64)",
        ),
        (lambda m: m.decode(torch.zeros(1, 256, 32, 32)), "features", "(1, 256, 32, 32)"),
        (lambda m: m.decode(torch.tensor(0.5)), "features", "()"),
    ],
)
def test_a_wrong_argument_is_named(model: LivePortrait, call: Any, name: str, says: str) -> None:
    """With what it should have been and what it was; callers may catch it as ValueError too."""
    with pytest.raises(ArgumentError) as error:
        call(model)
    assert error.value.name == name
    assert says in str(error.value)
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, AvatarError)


def test_warming_up_draws_a_frame_and_leaves_no_trace(model: LivePortrait) -> None:
    """Nothing is counted, and what was made serves the first real frame."""
    model.warmup()
    engine = model._engine
    assert isinstance(engine, FlatEngine)
    assert engine.frames == 1
    assert model.overflows == 0
    path = model._drawer.path(torch.float32)
    model.warmup()
    assert model._drawer.path(torch.float32) is path


def test_a_frame_can_be_begun_before_the_last_was_fetched(
    model: LivePortrait, portrait: Portrait
) -> None:
    """Each has its own picture."""
    prepared = model.prepare(portrait)
    faces = [FaceControls(), FaceControls.of(jawOpen=1), FaceControls.of(yaw=20.0)]
    pending = [model.begin(prepared, face, whole=False) for face in faces]
    found = [each.picture() for each in pending]
    for face, picture in zip(faces, found, strict=True):
        assert (picture == model.render(prepared, face, whole=False)).all()


@pytest.fixture
def portrait(golden: Mapping[str, Array]) -> Portrait:
    """The golden photo, its landmarks on two circles."""
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack((264 + 70 * np.cos(angle), 330 + 85 * np.sin(angle)), axis=1)
    points[36:48] += np.repeat([[-20, -90], [20, -90]], 6, axis=0) / np.array([1, 3])
    landmarks = FaceLandmarks(points.astype(np.float32), np.ones((2, 3), np.float32), "file")
    return Portrait("golden", golden["e2e/in_photo"], landmarks, "key")


def test_a_prepared_portrait_counts_what_it_holds_once(
    model: LivePortrait, portrait: Portrait
) -> None:
    """Preparing includes the engine's share; a wider type's share is counted when it comes."""
    prepared = model.prepare(portrait)
    assert set(prepared.sources) == {torch.float32}
    before = prepared.bytes
    model._drawer._engines[torch.bfloat16] = FlatEngine()
    model._drawer.source(prepared, torch.bfloat16)
    assert prepared.bytes - before == 4
    assert prepared.bytes > prepared.feature.nbytes + portrait.image.nbytes


def test_memory_counts_storages() -> None:
    """A view keeps all of what it looks at; two of one storage count once."""
    whole = torch.zeros(100)
    assert memory([whole, whole[:10]]) == 400
    assert memory([whole[:10]]) == 400
    assert memory([whole, torch.zeros(5, dtype=torch.float64)]) == 440
    assert memory([]) == 0


def test_closing_lets_go_of_the_weights(networks: Networks) -> None:
    """Once, or more often; afterwards every call says so."""
    model = LivePortrait(networks, CPU, torch.float32, fast=True)
    engine = model._engine
    assert isinstance(engine, FastEngine)
    held = [
        weakref.ref(each)
        for each in (
            engine,
            engine._generator._fc.weight,
            engine._warping._mask.weight,
            model._small._stitching,
        )
    ]
    model._drawer.path(torch.float32)
    del engine
    gc.collect()
    assert all(each() is not None for each in held)
    model.close()
    assert [each() for each in held] == [None] * len(held)
    model.close()
    for call in (model.warmup, lambda: model.decode(torch.zeros(1, 256, 64, 64))):
        with pytest.raises(RenderError, match="closed"):
            call()


def test_closing_on_a_lost_device(networks: Networks) -> None:
    """It cannot be waited for; everything is let go of all the same, once and quietly."""

    class Lost:
        fallback_reason = None

        def close(self) -> None:
            closed.append(self)
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    closed: list[Lost] = []
    model = LivePortrait(networks, CPU, torch.float32, fast=False)
    model._drawer._paths = {torch.float32: Lost(), torch.float16: Lost()}  # type: ignore[dict-item]
    model.close()
    model.close()
    assert len(closed) == 2
    assert not model._drawer._engines


def test_float32_keeps_no_second_copy_of_the_weights(networks: Networks) -> None:
    """A half does, for the wider types that an overflow may ask for."""
    half = LivePortrait(networks, CPU, torch.bfloat16, fast=False)
    assert half._drawer._maker._networks is networks  # type: ignore[union-attr]
    full = LivePortrait(networks, CPU, torch.float32, fast=False)
    assert full._drawer._maker._networks is None  # type: ignore[union-attr]


def test_a_share_that_is_none_stops_before_anything_is_read(tmp_path: Any) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match="memory_share"):
        LivePortrait.load(tmp_path, memory_share=2.0)
