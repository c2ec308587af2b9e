"""The slider tables and their composition against 74 settings of the reference editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.liveportrait.controls import table
from pipeline.liveportrait.ratios import OpenRatios
from tests.fakes.liveportrait_weights import Array

torch = pytest.importorskip("torch", reason="torch is not installed")

pytestmark = pytest.mark.timeout(180)  # the first of a run makes the weights

if TYPE_CHECKING:
    from pipeline.liveportrait.keypoints import Motion
    from pipeline.liveportrait.networks import Networks


@pytest.fixture(scope="module")
def motion(golden: Mapping[str, Array]) -> Motion:
    """The motion of the golden picture."""
    from pipeline.liveportrait.keypoints import Motion

    names = ("pitch", "yaw", "roll", "t", "exp", "scale", "kp")
    return Motion(**{name: torch.from_numpy(golden[f"e2e/M/{name}"]) for name in names})


@pytest.fixture(scope="module")
def ratios(golden: Mapping[str, Array]) -> OpenRatios:
    """How far the golden picture's eyes and lips are open."""
    return OpenRatios.of(golden["e2e/in_lmk203"])


def settings(golden: Mapping[str, Array], editor: str) -> list[dict[str, float]]:
    """The reference's settings as slider values; the retargeting targets may be -1."""
    names = [str(name) for name in golden[f"{editor}/names"]]
    return [dict(zip(names, map(float, row), strict=True)) for row in golden[f"{editor}/params"]]


def retargeted(
    networks: Networks, motion: Motion, ratios: OpenRatios, values: Mapping[str, float]
) -> torch.Tensor:
    """Sliders, then the eye and lip networks where a target is given."""
    from pipeline.liveportrait.editing import retargeted as edited
    from pipeline.liveportrait.keypoints import transform_keypoints

    x_s = transform_keypoints(motion).flatten(1)
    x_d = edited(motion, {k: v for k, v in values.items() if not k.endswith("_ratio")})
    with torch.inference_mode():
        if values["eye_ratio"] not in (-1, ratios.eye_target):
            sides = [ratios.left_eye, ratios.right_eye, values["eye_ratio"]]
            x_d = x_d + networks.eye(torch.cat((x_s, torch.tensor([sides])), 1)).reshape(1, 21, 3)
        if values["lip_ratio"] not in (-1, ratios.lip_target):
            lips = [ratios.lips, values["lip_ratio"]]
            x_d = x_d + networks.lip(torch.cat((x_s, torch.tensor([lips])), 1)).reshape(1, 21, 3)
    return x_d


def stitched(networks: Networks, motion: Motion, x_d: torch.Tensor) -> torch.Tensor:
    from pipeline.liveportrait.keypoints import apply_stitching, transform_keypoints

    x_s = transform_keypoints(motion)
    with torch.inference_mode():
        return apply_stitching(
            x_d, networks.stitching(torch.cat((x_s.flatten(1), x_d.flatten(1)), dim=1))
        )


def test_every_retargeting_setting_gives_the_reference_keypoints(
    networks: Networks, motion: Motion, ratios: OpenRatios, golden: Mapping[str, Array]
) -> None:
    """All 42 settings agree to 1e-6, before and after stitching."""
    cases = settings(golden, "retarget")
    assert len(cases) == 42
    for index, values in enumerate(cases):
        x_d = retargeted(networks, motion, ratios, values)
        before = golden["retarget/x_d_pre_stitch"][index]
        assert np.abs(x_d[0].numpy() - before).max() < 1e-6, values
        if golden["retarget/stitch"][index]:
            x_d = stitched(networks, motion, x_d)
        assert np.abs(x_d[0].numpy() - golden["retarget/x_d"][index]).max() < 1e-6, values


def test_every_expression_editor_setting_gives_the_reference_keypoints(
    networks: Networks, motion: Motion, golden: Mapping[str, Array]
) -> None:
    """All 32 settings agree to 1e-6, before and after stitching."""
    from pipeline.liveportrait.editing import expression_edited

    cases = settings(golden, "adv")
    assert len(cases) == 32
    for index, values in enumerate(cases):
        x_d = expression_edited(motion, values)
        assert np.abs(x_d[0].numpy() - golden["adv/x_d_pre_stitch"][index]).max() < 1e-6, values
        after = stitched(networks, motion, x_d)
        assert np.abs(after[0].numpy() - golden["adv/x_d"][index]).max() < 1e-6, values


def test_the_edited_golden_picture_has_the_reference_keypoints(
    networks: Networks, motion: Motion, ratios: OpenRatios, golden: Mapping[str, Array]
) -> None:
    """Smile, brows and pitch together, stitched."""
    from pipeline.liveportrait.keypoints import transform_keypoints

    values = dict(zip(map(str, golden["retarget/names"]), golden["e2e/case"], strict=True))
    assert np.abs(transform_keypoints(motion).numpy() - golden["e2e/x_s"]).max() < 1e-6
    x_d = retargeted(networks, motion, ratios, values)
    assert np.abs(x_d.numpy() - golden["e2e/x_d_pre_stitch"]).max() < 1e-6
    assert np.abs(stitched(networks, motion, x_d).numpy() - golden["e2e/x_d"]).max() < 1e-6


def test_ratios_are_the_references(ratios: OpenRatios, golden: Mapping[str, Array]) -> None:
    """Eyes and lips of the golden points, and the rounded targets."""
    assert [ratios.left_eye, ratios.right_eye] == pytest.approx(
        golden["e2e/eye_ratios"][0], abs=1e-6
    )
    assert ratios.lips == pytest.approx(float(golden["e2e/lip_ratios"][0, 0]), abs=1e-6)
    rounded = tuple(golden["e2e/source_ratios_rounded"])
    assert (ratios.eye_target, ratios.lip_target) == rounded


def test_tz_separates_driven_from_source_keypoints(motion: Motion) -> None:
    """With neutral sliders the driven keypoints lie tz deeper than the source's."""
    from pipeline.liveportrait.editing import retargeted as edited
    from pipeline.liveportrait.keypoints import transform_keypoints

    moved = edited(motion, {}) - transform_keypoints(motion)
    assert moved[..., :2].abs().max() < 1e-6
    assert torch.allclose(moved[..., 2], motion.t[:, 2], atol=1e-6)


def test_an_unknown_slider_is_refused() -> None:
    """A typo is an error, not a slider without effect."""
    with pytest.raises(KeyError, match="smiel"):
        table("retarget").offsets({"smiel": 1.0})


def test_looking_up_closes_nothing_by_itself() -> None:
    """A slider feeds another in the node's table: pupils down close the lids a little."""
    offsets = table("expression_editor").offsets({"pupil_y": 10.0})
    assert offsets.delta[11, 1] == pytest.approx(-0.01 + 0.005)
    assert offsets.delta[1, 1] == pytest.approx(0.00125)
