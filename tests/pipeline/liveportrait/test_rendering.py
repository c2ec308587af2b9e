"""From a portrait and face controls to frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipeline.errors import BadFrameError, PortraitError
from pipeline.types import FaceControls, FaceLandmarks, Portrait
from tests.fakes.liveportrait_weights import Array

torch = pytest.importorskip("torch", reason="torch is not installed")

from pipeline.liveportrait import LivePortrait  # noqa: E402
from pipeline.liveportrait.arkit import express  # noqa: E402
from pipeline.liveportrait.prepared import driven_keypoints, target_ratio  # noqa: E402
from pipeline.liveportrait.warping_module import Warped  # noqa: E402

if TYPE_CHECKING:
    from pipeline.liveportrait.networks import Networks
    from pipeline.liveportrait.prepared import PreparedPortrait

pytestmark = pytest.mark.timeout(180)


class QuickEngine:
    """Draws a flat grey that follows the keypoints; not a number for the first `faults` frames."""

    def __init__(self, faults: int = 0) -> None:
        self.faults = faults
        self.frames = 0
        self.tensors = (torch.zeros(10),)

    def prepare(self, feature: object, kp_source: torch.Tensor) -> Any:
        self.source = kp_source
        return self

    def warp(self, source: Any, kp_driving: torch.Tensor) -> Warped:
        moved = (kp_driving - source.source).abs().mean()
        return Warped(moved, moved, moved)

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        self.frames += 1
        broken = self.frames <= self.faults
        level = float("nan") if broken else 0.5 + float(features)
        return torch.full((1, 3, 512, 512), level)


@pytest.fixture
def model(networks: Networks) -> LivePortrait:
    """True small networks, F and M; W and G are quick."""
    model = LivePortrait(networks, torch.device("cpu"), torch.float32, fast=False)
    model._drawer._engines = {torch.float32: QuickEngine()}
    return model


@pytest.fixture
def portrait(golden: Mapping[str, Array]) -> Portrait:
    """The golden photo with 68 points laid out like a face."""
    return Portrait("golden", golden["e2e/in_photo"], landmarks(), "key")


def landmarks() -> FaceLandmarks:
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack((264 + 140 * np.cos(angle), 330 + 170 * np.sin(angle)), axis=1)
    eye = np.array([[-30, 0], [-10, -8], [10, -8], [30, 0], [10, 8], [-10, 8]])
    points[36:42] = np.add(eye, (204, 270))
    points[42:48] = np.add(eye, (324, 270))
    points[48], points[54], points[62], points[66] = (214, 400), (314, 400), (264, 397), (264, 403)
    points = (points - (264, 330)) / 2 + (264, 330)
    return FaceLandmarks(points.astype(np.float32), np.ones((2, 3), np.float32), "file")


@pytest.fixture
def prepared(model: LivePortrait, portrait: Portrait) -> PreparedPortrait:
    return model.prepare(portrait)


def test_prepared_from_the_references_points_it_has_the_references_motion(
    model: LivePortrait, portrait: Portrait, golden: Mapping[str, Array]
) -> None:
    """106 points frame the crop, 203 give the ratios; keypoints agree up to interpolation."""
    from pipeline.liveportrait.crop import EDITOR_SOURCE

    prepared = model.prepare(
        portrait,
        points=golden["e2e/in_lmk106"],
        ratio_points=golden["e2e/in_lmk203"],
        framing=EDITOR_SOURCE,
    )
    assert np.abs(prepared.keypoints.numpy() - golden["e2e/x_s"]).max() < 5e-3
    assert (prepared.ratios.eye_target, prepared.ratios.lip_target) == (0.44, 0.14)
    assert prepared.bytes > 8_000_000


def test_zero_controls_give_the_portraits_own_face(
    model: LivePortrait, prepared: PreparedPortrait
) -> None:
    """The resting face has exactly the source's keypoints."""
    found = driven_keypoints(model, prepared, express(FaceControls()))
    assert torch.equal(found, prepared.keypoints)


@pytest.mark.parametrize(
    "full",
    [
        FaceControls.of(mouthSmileLeft=1, mouthSmileRight=1, yaw=15.0),
        FaceControls.of(eyeBlinkLeft=1, eyeBlinkRight=1),
        FaceControls.of(eyeBlinkLeft=1),
        FaceControls.of(jawOpen=1),
    ],
)
def test_faces_leave_rest_without_a_jump(
    model: LivePortrait, prepared: PreparedPortrait, full: FaceControls
) -> None:
    """Keypoints move in proportion to small controls and never in one step."""

    def at(share: float) -> torch.Tensor:
        part = FaceControls(full.weights * share, full.pitch, full.yaw * share, full.roll)
        return driven_keypoints(model, prepared, express(part))

    path = torch.cat([at(share) for share in np.linspace(0, 1, 201)])
    steps = (path[1:] - path[:-1]).abs().amax((1, 2))
    assert float(at(1e-4).sub(prepared.keypoints).abs().max()) < 1e-3
    assert float(steps.max()) < 0.05 * max(1.0, float(steps.sum()))


def test_large_faces_are_stitched_as_specified(
    model: LivePortrait, prepared: PreparedPortrait
) -> None:
    """Away from rest, the correction is the stitching network's and nothing else."""
    from pipeline.liveportrait.editing import retargeted
    from pipeline.liveportrait.keypoints import without_depth

    controls = FaceControls.of(mouthSmileLeft=1, mouthSmileRight=1, yaw=10.0)
    x_d = retargeted(prepared.motion, {"smile": 1.3, "yaw": 10.0})
    x_d = x_d - (prepared.motion.t - without_depth(prepared.motion.t))[:, None]
    expected = model.stitch(prepared.keypoints, x_d)
    found = driven_keypoints(model, prepared, express(controls))
    assert float((found - expected).abs().max()) < 1e-6


def test_one_eye_closes_alone(model: LivePortrait, prepared: PreparedPortrait) -> None:
    """A wink moves one eye's keypoints as a blink does, the other eye's hardly at all."""
    from pipeline.liveportrait.prepared import _lids

    both = _lids(model, prepared, express(FaceControls.of(eyeBlinkLeft=1, eyeBlinkRight=1)))
    left = _lids(model, prepared, express(FaceControls.of(eyeBlinkLeft=1)))
    one_is_left = bool(prepared.keypoints[0, 11, 0] > prepared.keypoints[0, 15, 0])
    closed, still = ([11, 13], [15, 16]) if one_is_left else ([15, 16], [11, 13])
    assert torch.equal(left[:, closed], both[:, closed])
    assert not left[:, still].any()


def test_openings_reach_closed_own_and_largest() -> None:
    """The ends of an opening are ratio 0 and 0.8; an eye open wider than that stays so."""
    assert target_ratio(0.3, -1.0) == 0.0
    assert target_ratio(0.3, 0.0) == 0.3
    assert target_ratio(0.3, 1.0) == pytest.approx(0.8)
    assert target_ratio(0.9, 1.0) == 0.9


def test_frames_come_whole_cropped_and_in_any_size(
    model: LivePortrait, prepared: PreparedPortrait
) -> None:
    """The portrait with the face pasted in, the crop alone, or either scaled."""
    controls = FaceControls.of(jawOpen=1)
    whole = model.render(prepared, controls)
    assert whole.shape == prepared.portrait.image.shape
    assert whole.dtype == np.uint8
    assert (whole[0, 0] == prepared.portrait.image[0, 0]).all()
    assert model.render(prepared, controls, whole=False).shape == (512, 512, 3)
    assert model.render(prepared, controls, (300, 400)).shape == (400, 300, 3)
    assert model.render(prepared, controls, (64, 64), whole=False).shape == (64, 64, 3)


def test_overflows_are_drawn_again_and_the_portrait_moves_to_a_wider_type(
    model: LivePortrait, prepared: PreparedPortrait
) -> None:
    """Each overflow is counted and still gives a frame; the third changes the type for good."""
    half = QuickEngine(faults=100)
    model._drawer._engines[torch.float16] = half
    model._drawer._engines[torch.bfloat16] = QuickEngine()
    prepared.dtype = torch.float16
    for count in (1, 2, 3):
        frame = model.render(prepared, FaceControls(), whole=False)
        assert frame[0, 0, 0] == 127
        assert model.overflows == count
    assert prepared.dtype == torch.bfloat16
    model.render(prepared, FaceControls())
    assert (half.frames, model.overflows) == (3, 3)


def test_a_frame_that_float32_cannot_draw_is_an_error(
    model: LivePortrait, prepared: PreparedPortrait
) -> None:
    """There is nothing wider to try."""
    model._drawer._engines[torch.float32] = QuickEngine(faults=1)
    with pytest.raises(BadFrameError):
        model.render(prepared, FaceControls())


def test_landmarks_that_frame_no_face_are_refused(model: LivePortrait, portrait: Portrait) -> None:
    """The error belongs to the portrait."""
    with pytest.raises(PortraitError, match="points"):
        model.prepare(portrait, points=np.ones((106, 2)))
