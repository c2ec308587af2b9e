"""Crop geometry, network input and paste-back against the golden picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from pipeline.landmark_sets import ANCHORS
from pipeline.liveportrait import crop
from pipeline.liveportrait.crop import Crop, PasteBack
from tests.fakes.liveportrait_weights import Array

# OpenCV 4 interpolates with 1/32-pixel tables, 5 nearly exactly: pictures may differ by 3 levels.
LEVELS = 3


def differs(found: Array, expected: Array) -> int:
    """Largest difference in levels."""
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


@pytest.mark.parametrize(
    ("framing", "points", "expected"),
    [
        (crop.EDITOR_SOURCE, "lmk106", "M_o2c"),
        (crop.SOURCE, "lmk106", "M_o2c_scale2.3"),
        (crop.LANDMARKS_INPUT, "lmk106", "landmark_crop_M_o2c"),
    ],
)
def test_crop_matrices_are_the_references(
    golden: Mapping[str, Array], framing: crop.Framing, points: str, expected: str
) -> None:
    """Every entry agrees to a thousandth of a pixel."""
    found = Crop.around(golden[f"e2e/in_{points}"], framing)
    assert np.abs(found.to_crop - golden[f"e2e/{expected}"]).max() < 1e-3


def test_crop_and_network_input_are_the_references(golden: Mapping[str, Array]) -> None:
    """The 512 crop, the 224 crop and the 256 input within interpolation's levels."""
    photo, points = golden["e2e/in_photo"], golden["e2e/in_lmk106"]
    source = Crop.around(points, crop.EDITOR_SOURCE)
    assert np.abs(source.to_image - golden["e2e/M_c2o"]).max() < 1e-3
    cut = source.cut(photo)
    assert differs(cut[::2, ::2], golden["e2e/crop512_s2"]) <= LEVELS
    small = np.round(crop.network_input(cut)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    assert differs(small, golden["e2e/crop256"]) <= 1
    landmarks = Crop.around(points, crop.LANDMARKS_INPUT).cut(photo)
    assert differs(landmarks[::2, ::2], golden["e2e/landmark_crop224_s2"]) <= LEVELS


def test_paste_back_touches_only_what_the_mask_covers(golden: Mapping[str, Array]) -> None:
    """The mask lies where the reference's does; outside it the picture is the picture."""
    photo = golden["e2e/in_photo"]
    source = Crop.around(golden["e2e/in_lmk106"], crop.EDITOR_SOURCE)
    mask = crop._warped(crop.mask_template(), source.to_image, (photo.shape[1], photo.shape[0]))
    assert differs(mask[::2, ::2], golden["e2e/mask_u8_s2"]) <= LEVELS
    pasted = PasteBack(photo, source)(np.full((512, 512, 3), 255, np.uint8))
    assert (pasted[mask == 0] == photo[mask == 0]).all()
    assert (pasted[mask == 255] >= 254).all()


def test_pasting_the_crop_itself_changes_next_to_nothing(golden: Mapping[str, Array]) -> None:
    """Cut and paste is the identity up to interpolation."""
    y, x = np.mgrid[0:640, 0:528]
    photo = np.stack((x // 3, y // 3, (x + y) // 5), axis=-1).astype(np.uint8)
    source = Crop.around(golden["e2e/in_lmk106"], crop.SOURCE)
    assert differs(PasteBack(photo, source)(source.cut(photo)), photo) <= LEVELS


def test_crops_from_all_landmark_sets_frame_the_face_upright() -> None:
    """68, 106 and 203 points of a turned face give a crop in which it stands."""
    rng = np.random.default_rng(1)
    for count in (68, 106, 203):
        points = rng.uniform(100, 200, (count, 2))
        anchors = ANCHORS[count]
        points[list(anchors.left_eye)] = (150, 130)
        points[list(anchors.right_eye)] = (150, 170)
        points[list(anchors.mouth)] = (120, 150)  # looking down means towards smaller x
        found = Crop.around(points, crop.SOURCE)
        eyes = found.to_crop @ (150, 150, 1)
        mouth = found.to_crop @ (120, 150, 1)
        assert eyes[0] == pytest.approx(mouth[0], abs=1e-2)
        assert mouth[1] > eyes[1]
        back = found.points_in_image([eyes[:2]])
        assert back[0] == pytest.approx((150, 150), abs=1e-2)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.zeros((106, 3)), np.ones((106, 2))])
def test_unusable_points_are_refused(points: Array) -> None:
    """A wrong count, a wrong shape, or points that fall together."""
    with pytest.raises(ValueError, match="points"):
        Crop.around(points, crop.SOURCE)


def test_large_images_are_limited_and_even() -> None:
    """The larger side becomes 1280, both sides even; small images only lose odd edges."""
    assert crop.limit_size(np.zeros((2000, 1501, 3), np.uint8)).shape == (1280, 960, 3)
    assert crop.limit_size(np.zeros((101, 77, 3), np.uint8)).shape == (100, 76, 3)
    assert crop.limit_size(np.zeros((101, 77, 3), np.uint8), 16).shape == (96, 64, 3)
