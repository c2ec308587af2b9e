"""Recorded frames as face controls: what comes back of a known face, and what never does."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.liveportrait.arkit import Expression, express
from pipeline.liveportrait.controls import table
from pipeline.liveportrait.neutral_lips import LIP_ARRAY
from pipeline.liveportrait.recorded import RecordedFace, RecordedMotion
from pipeline.liveportrait.templates import MotionTemplate
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls
from tests.fakes.motions import EYE_RATIO, LIP_RATIO, recorded, with_offsets

STILL = FaceControls()


def seen(face: FaceControls, *, ratios: bool = True) -> RecordedFace:
    """What a motion from rest to a face is taken for."""
    return RecordedMotion(recorded(STILL, face, ratios=ratios)).face(1)


def moved(**sliders: float) -> RecordedFace:
    """The same for sliders of the expression editor."""
    offsets = table("expression_editor").offsets(sliders).delta.astype(np.float32)
    return RecordedMotion(with_offsets(offsets)).face(1)


def openings(expression: Expression) -> tuple[float, float, float]:
    return expression.left_eye, expression.right_eye, expression.lips


@pytest.mark.parametrize(
    "controls",
    [
        {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "jawOpen": 0.5, "eyeBlinkLeft": 0.7},
        {"browDownLeft": 0.6, "browDownRight": 0.6, "eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5},
        {"eyeLookInLeft": 0.6, "eyeLookOutRight": 0.6, "eyeBlinkRight": 1.0},
        {"eyeWideLeft": 0.9, "eyeWideRight": 0.4, "jawOpen": 1.0, "browInnerUp": 1.0,
         "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0},
        {"mouthFrownLeft": 0.7, "mouthFrownRight": 0.7, "eyeLookDownLeft": 0.4,
         "eyeLookDownRight": 0.4},
    ],
)  # fmt: skip
def test_a_face_comes_back_from_its_recording(controls: dict[str, float]) -> None:
    """Controls that something in the mapping tells apart return as they were, the head too."""
    found = seen(FaceControls.of(**controls, pitch=-5.0, yaw=12.0, roll=3.0))
    wanted = FaceControls.of(**controls)
    assert found.controls.weights == pytest.approx(wanted.weights, abs=0.06)
    head = (found.controls.pitch, found.controls.yaw, found.controls.roll)
    assert head == pytest.approx((-5.0, 12.0, 3.0), abs=0.01)
    assert found.explained > 0.999


weights = st.lists(
    st.tuples(st.sampled_from(ARKIT_BLENDSHAPES), st.floats(0.0, 1.0)), max_size=8
).map(dict)


@settings(deadline=None, max_examples=60)
@given(weights)
def test_any_face_is_explained_and_opens_as_far(named: dict[str, float]) -> None:
    """Whatever was on: the found controls move keypoints and open lids and lips the same way."""
    face = FaceControls.of(**named)
    found = seen(face)
    assert 0.0 <= found.controls.weights.min() <= found.controls.weights.max() <= 1.0
    offsets = table("retarget").offsets(express(face).sliders).delta
    assume(np.abs(offsets).max() > 4e-3)  # less is a twitch, of which the fit keeps a part
    assert found.explained > 0.97
    before, after = openings(express(face)), openings(express(found.controls))
    assert after == pytest.approx(before, abs=0.03)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(-6.0, 3.0), st.booleans(), st.integers(1, 3))
def test_any_motion_gives_controls_in_range(
    seed: int, size: float, ratios: bool, frames: int
) -> None:
    """Noise of any size, matrices that are no rotations, ratios outside their range."""
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        values = rng.normal(size=(frames, *shape)) * 10.0**size
        return np.clip(values, -1000.0, 1000.0).astype(np.float32)

    template = MotionTemplate(
        25, noise(1), noise(3, 3), noise(21, 3), noise(3),
        *((noise(2), noise(1)) if ratios else ()),
    )  # fmt: skip
    motion = RecordedMotion(template)
    assert 0 <= motion.peak < frames
    found = motion.face(frames - 1)
    assert 0.0 <= found.controls.weights.min() <= found.controls.weights.max() <= 1.0
    assert 0.0 <= found.explained <= 1.0
    assert max(abs(found.controls.pitch), abs(found.controls.yaw), abs(found.controls.roll)) <= 45


def test_the_first_frame_is_the_face_at_rest() -> None:
    """It differs from itself in nothing."""
    found = RecordedMotion(recorded(STILL, FaceControls.of(jawOpen=1.0, yaw=9.0))).face(0)
    assert not found.controls.weights.any()
    assert found.controls.yaw == pytest.approx(0.0, abs=1e-4)
    assert found.explained == 1.0


def test_ratios_tell_the_eyes_apart() -> None:
    """The eye at the image's left is the character's right one; keypoints stay as they are."""
    eyes = [[EYE_RATIO, EYE_RATIO], [0.0, EYE_RATIO]]
    found = RecordedMotion(with_offsets(np.zeros((21, 3), np.float32), eyes)).face(1)
    assert found.controls["eyeBlinkRight"] > 0.95
    assert found.controls["eyeBlinkLeft"] == 0.0


def test_lids_that_ratios_explain_are_no_gaze() -> None:
    """A recorded blink moves the lids' keypoints too: that does not make the eyes look down."""
    blink = table("expression_editor").offsets({"blink": -14.0}).delta.astype(np.float32)
    eyes = [[EYE_RATIO, EYE_RATIO], [0.0, 0.0]]
    found = RecordedMotion(with_offsets(blink, eyes)).face(1)
    assert found.controls["eyeBlinkLeft"] > 0.95
    assert found.controls["eyeLookDownLeft"] < 0.05
    assert found.explained > 0.9


def test_a_jaw_that_ratios_explain_is_no_more_than_they_say() -> None:
    """Far moved keypoints with little opening: a lower lip, not a wide open mouth."""
    lips = [[LIP_RATIO], [LIP_RATIO + 0.3 * (0.8 - LIP_RATIO)]]
    jaw = table("expression_editor").offsets({"aaa": 40.0}).delta.astype(np.float32)
    found = RecordedMotion(with_offsets(jaw, lips=lips)).face(1)
    assert express(found.controls).lips == pytest.approx(0.3, abs=0.02)
    assert found.explained > 0.95


@pytest.mark.parametrize(
    ("sliders", "blendshape", "least"),
    [
        ({"blink": -20.0}, "eyeBlinkLeft", 0.8),
        ({"blink": -20.0}, "eyeBlinkRight", 0.8),
        ({"blink": 4.0}, "eyeWideLeft", 0.6),
        ({"aaa": 90.0}, "jawOpen", 0.6),
        ({"aaa": -25.0}, "mouthRollLower", 0.15),
        ({"smile": 1.3}, "mouthSmileLeft", 0.9),
        ({"eyebrow": 15.0}, "browInnerUp", 0.4),
        ({"eyebrow": -10.0}, "browDownRight", 0.3),
        ({"pupil_x": 12.0}, "eyeLookOutLeft", 0.4),
        ({"pupil_x": -12.0}, "eyeLookOutRight", 0.4),
    ],
)
def test_without_ratios_keypoints_tell_it(
    sliders: dict[str, float], blendshape: str, least: float
) -> None:
    """Three of the eight released templates have no ratios: lids and jaw are seen all the same."""
    found = moved(**sliders)
    assert found.controls[blendshape] >= least
    assert found.explained > 0.9


def test_what_no_control_moves_is_not_explained() -> None:
    """Keypoints that no table touches count against it; the torso counts for nothing."""
    offsets = np.zeros((21, 3), np.float32)
    offsets[5, :2] = 0.3
    torso = RecordedMotion(with_offsets(offsets)).face(1)
    assert (torso.controls.weights.any(), torso.explained) == (False, 1.0)
    offsets[0] = 0.02
    found = RecordedMotion(with_offsets(offsets)).face(1)
    assert found.explained == pytest.approx(0.0, abs=1e-6)


def test_no_slider_is_pushed_to_both_sides() -> None:
    """Brows that go up and together at once are one of the two: the sliders' signs are kept."""
    offsets = np.zeros((21, 3), np.float32)
    offsets[1], offsets[2] = (0.008, 0.012, 0.0), (-0.008, -0.012, 0.0)
    named = RecordedMotion(with_offsets(offsets)).face(1).controls.as_mapping()
    up = {"browInnerUp", "browOuterUpLeft", "browOuterUpRight"} & named.keys()
    down = {"browDownLeft", "browDownRight", "noseSneerLeft", "noseSneerRight"} & named.keys()
    assert bool(up) != bool(down)


def test_the_peak_is_the_frame_furthest_from_the_first() -> None:
    """By keypoints; by ratios where only those move; the first where nothing does."""
    smiles = [FaceControls.of(mouthSmileLeft=w, mouthSmileRight=w) for w in (0.0, 0.4, 0.9, 0.2)]
    assert RecordedMotion(recorded(*smiles)).peak == 2
    blinks = [FaceControls.of(eyeBlinkLeft=w, eyeBlinkRight=w) for w in (0.0, 0.9, 0.3)]
    assert RecordedMotion(recorded(*blinks)).peak == 1
    assert RecordedMotion(recorded(STILL, STILL)).peak == 0


def test_a_single_picture_is_told_from_the_closed_mouth_reference() -> None:
    """As when a picture drives: there is no first frame (specification 6.3), nor first ratios."""
    still = recorded(STILL)
    smile = table("retarget").offsets({"smile": 0.9}).delta
    closed = table("expression_editor").offsets({"blink": -20.0}).delta
    exp = (LIP_ARRAY + smile + closed)[None].astype(np.float32)
    single = MotionTemplate(25, still.scale, still.rotation, exp, still.t, still.eyes, still.lips)
    found = RecordedMotion(single).face(0)
    assert found.controls["mouthSmileLeft"] == pytest.approx(0.9 / 1.3, abs=0.02)
    assert found.controls["eyeBlinkLeft"] > 0.8
    assert found.controls.yaw == pytest.approx(0.0, abs=1e-4)


def test_a_frame_that_is_not_there_is_an_error() -> None:
    """Frames count from 0, and never from the end."""
    motion = RecordedMotion(recorded(STILL, STILL))
    for frame in (-1, 2):
        with pytest.raises(IndexError, match="from 0 to 1"):
            motion.face(frame)


def test_reading_a_motion_needs_no_torch() -> None:
    """The daemon reads motion files on machines that have none."""
    code = "import sys, orchestrator.motion; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
