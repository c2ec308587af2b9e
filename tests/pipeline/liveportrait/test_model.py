"""The public interface, and the fast form against the golden vectors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.liveportrait.crop import EDITOR_SOURCE, Crop, PasteBack
from tests.fakes.liveportrait_weights import Array

torch = pytest.importorskip("torch", reason="torch is not installed")

from pipeline.liveportrait import LivePortrait  # noqa: E402

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def fast(weights_dir: Path) -> LivePortrait:
    """The fast form in float32."""
    return LivePortrait.load(weights_dir)


def psnr(found: Array, expected: Array) -> float:
    """Decibels for pictures in [0, 1]."""
    return float(-10 * np.log10(np.square(found - expected).mean()))


def relative(found: torch.Tensor, expected: Array) -> float:
    """Norm of the difference over the norm."""
    assert found.dtype == torch.float32
    assert tuple(found.shape) == expected.shape
    return float(np.linalg.norm(found.numpy() - expected) / np.linalg.norm(expected))


def test_fast_float32_is_the_reference(fast: LivePortrait, golden: Mapping[str, Array]) -> None:
    """From the picture to the picture, every step within the limits of the plain form."""
    image = torch.from_numpy(golden["in/img256"]).permute(2, 0, 1)[None].float() / 255
    motion = fast.extract_motion(image)
    for name in ("pitch", "yaw", "roll", "t", "exp", "scale", "kp"):
        assert relative(getattr(motion, name), golden[f"M/{name}"]) < 1e-5
    assert relative(motion.rotation, golden["R_s"]) < 1e-6
    x_s = fast.transform_keypoints(motion)
    assert np.abs(x_s.numpy() - golden["x_s"]).max() < 2e-6
    feature = fast.extract_appearance(image)
    x_d = torch.from_numpy(golden["x_d"])
    warped = fast.warp(feature, kp_source=x_s, kp_driving=x_d)
    assert relative(warped.occlusion, golden["W/occlusion"]) < 1e-5
    assert relative(warped.deformation[:, ::3, ::4, ::4], golden["W/deformation_s"]) < 1e-5
    assert relative(warped.out[:, ::8, ::4, ::4], golden["W/out_s"]) < 2e-5
    picture = fast.decode(warped.out)
    assert picture.shape == (1, 3, 512, 512)
    difference = np.abs(picture[0, :, ::4, ::4].numpy() - golden["G/image_s4"])
    assert difference.mean() < 1e-5
    assert difference.max() < 2e-4


def test_edited_photo_is_the_references(fast: LivePortrait, golden: Mapping[str, Array]) -> None:
    """Smile, brows and pitch on a photo: motion, drawn crop and the picture it is pasted into."""
    small = torch.from_numpy(golden["e2e/crop256"]).permute(2, 0, 1)[None].float() / 255
    motion = fast.extract_motion(small)
    for name in ("pitch", "yaw", "roll", "t", "exp", "scale", "kp"):
        assert relative(getattr(motion, name), golden[f"e2e/M/{name}"]) < 1e-5
    warped = fast.warp(
        fast.extract_appearance(small),
        kp_source=fast.transform_keypoints(motion),
        kp_driving=torch.from_numpy(golden["e2e/x_d"]),
    )
    picture = (fast.decode(warped.out)[0].clamp(0, 1) * 255).to(torch.uint8)
    drawn = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    assert np.abs(drawn[::2, ::2].astype(int) - golden["e2e/out512_s2"]).max() <= 1
    photo = golden["e2e/in_photo"]
    pasted = PasteBack(photo, Crop.around(golden["e2e/in_lmk106"], EDITOR_SOURCE))(drawn)
    difference = np.abs(pasted[::2, ::2].astype(int) - golden["e2e/pasted_s2"])
    assert difference.max() <= 5  # the networks draw noise here, and OpenCV's versions differ
    assert difference.mean() < 0.5


def test_small_networks_correct_keypoints(fast: LivePortrait, golden: Mapping[str, Array]) -> None:
    """Stitched keypoints and the eyes' and lips' offsets are the reference's."""
    x_s, x_d = torch.from_numpy(golden["x_s"]), torch.from_numpy(golden["x_d"])
    stitched = fast.stitch(x_s, x_d)
    eyes = fast.retarget_eyes(x_s, torch.from_numpy(golden["in/eye_ratio"]))
    lips = fast.retarget_lips(x_s, torch.from_numpy(golden["in/lip_ratio"]))
    assert np.abs(stitched.numpy() - golden["S/x_d_stitched"]).max() < 2e-6
    assert np.abs(eyes.numpy() - golden["S/eye_delta"]).max() < 1e-6
    assert np.abs(lips.numpy() - golden["S/lip_delta"]).max() < 1e-6


def test_rotations_are_the_references(golden: Mapping[str, Array]) -> None:
    """Five triples of angles give the reference's matrices."""
    from pipeline.liveportrait.keypoints import rotation_matrix

    angles = torch.from_numpy(golden["in/angles_deg"])
    found = rotation_matrix(angles[:, :1], angles[:, 1:2], angles[:, 2:])
    assert relative(found, golden["R_angles"]) < 1e-6


def test_bfloat16_stays_within_forty_decibels(
    weights_dir: Path, plain: Mapping[str, Array], golden: Mapping[str, Array]
) -> None:
    """The fast form in bfloat16 against float32, geometry in float32."""
    model = LivePortrait.load(weights_dir, dtype="bfloat16")
    warped = model.warp(
        torch.from_numpy(plain["volume"]),
        kp_source=torch.from_numpy(golden["x_s"]),
        kp_driving=torch.from_numpy(golden["x_d"]),
    )
    assert np.abs(warped.deformation.numpy() - plain["deformation"]).max() < 1e-3
    assert relative(warped.out, plain["out"]) < 2e-3  # 4e-3 if its last layers rounded, too
    assert psnr(model.decode(warped.out).numpy(), plain["image"]) > 42


def test_keypoints_of_the_warp_go_by_name(fast: LivePortrait) -> None:
    """Their order cannot be mixed up silently."""
    with pytest.raises(TypeError):
        fast.warp(torch.zeros(1), torch.zeros(1), torch.zeros(1))  # type: ignore[misc]


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    """The error lists what there is."""
    with pytest.raises(ConfigError, match="bfloat16"):
        LivePortrait.load(tmp_path, dtype="half")


@pytest.mark.parametrize(
    ("device", "problem"),
    [("tpu", "cuda:NUMBER"), ("cuda:x", "cuda:NUMBER"), ("cuda:99", "no cuda:99"), ("", "''")],
)
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str, problem: str) -> None:
    """Before any file is read, and by the name of the argument."""
    with pytest.raises(ConfigError, match="device") as caught:
        LivePortrait.load(tmp_path, device)
    assert problem in str(caught.value)


def test_importing_the_package_does_not_import_torch() -> None:
    """Tables and ratios can be used without it; the class brings it."""
    code = (
        "import sys, pipeline.liveportrait, pipeline.liveportrait.controls as c;"
        "c.table('retarget'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
