"""ARKit controls in LivePortrait's terms."""

from __future__ import annotations

import pytest

from pipeline.liveportrait.arkit import express, mapping
from pipeline.liveportrait.controls import table
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls


def test_every_blendshape_has_a_mapping_or_a_reason() -> None:
    """All 52 are in the table, say why, and name sliders that there are."""
    assert set(mapping()) == set(ARKIT_BLENDSHAPES)
    for name, entry in mapping().items():
        assert entry.why, name
        assert set(entry.sliders) <= set(table("retarget").sliders), name
        empty = not entry.sliders and not entry.openings
        assert empty == entry.why.startswith("none:"), name


def test_no_blendshape_leaves_a_sliders_range_even_with_its_twin() -> None:
    """Left and right at weight 1 together stay within the range."""
    for name in ARKIT_BLENDSHAPES:
        twin = name.replace("Left", "Right")
        entries = [mapping()[name], *([mapping()[twin]] if twin != name else [])]
        for slider, limits in table("retarget").sliders.items():
            total = sum(entry.sliders.get(slider, 0.0) for entry in entries)
            assert limits.neutral or limits.minimum <= total <= limits.maximum, (name, slider)


def test_zero_controls_express_nothing() -> None:
    """A resting face moves no slider and no opening."""
    found = express(FaceControls())
    assert not any(found.sliders.values())
    assert (found.left_eye, found.right_eye, found.lips) == (0.0, 0.0, 0.0)


def test_sums_are_limited() -> None:
    """Everything at once stays within every slider's range."""
    found = express(FaceControls.of(**dict.fromkeys(ARKIT_BLENDSHAPES, 1.0), yaw=40.0))
    for slider, value in found.sliders.items():
        limits = table("retarget").sliders[slider]
        assert slider == "yaw" or limits.minimum <= value <= limits.maximum
    assert found.sliders["yaw"] == 40.0
    assert -1.0 <= found.left_eye <= 1.0


@pytest.mark.parametrize(
    ("blendshape", "keypoint", "axis", "sign"),
    [
        ("eyeLookOutLeft", 11, 0, 1),
        ("eyeLookOutRight", 11, 0, -1),
        ("eyeLookUpLeft", 11, 1, -1),
        ("eyeLookDownRight", 15, 1, 1),
        ("mouthSmileLeft", 14, 1, -1),
        ("mouthFrownLeft", 14, 1, 1),
        ("mouthLowerDownLeft", 19, 1, 1),
        ("mouthPressRight", 19, 1, -1),
        ("jawLeft", 19, 0, 1),
    ],
)
def test_blendshapes_move_keypoints_the_right_way(
    blendshape: str, keypoint: int, axis: int, sign: int
) -> None:
    """x points to the picture's right, which is the character's left; y points down."""
    sliders = express(FaceControls.of(**{blendshape: 1.0})).sliders
    assert sign * table("retarget").offsets(sliders).delta[keypoint, axis] > 0
