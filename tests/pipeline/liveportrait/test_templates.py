"""Recorded motion: what is read, what is refused, and how it drives."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.liveportrait.templates import MotionTemplate
from tests.fakes.liveportrait_weights import Array

FRAMES = 4


def content(**changes: Any) -> dict[str, Any]:
    """A template as the reference writes it."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> Array:
        return rng.normal(size=(1, *shape)).astype(np.float32)

    def frame() -> dict[str, Array]:
        return {"scale": array(1), "R": array(3, 3), "exp": array(21, 3), "t": array(3)}

    return {
        "n_frames": FRAMES,
        "output_fps": 25,
        "motion": [frame() for _ in range(FRAMES)],
        "c_eyes_lst": [array(2) for _ in range(FRAMES)],
        "c_lip_lst": [array(1) for _ in range(FRAMES)],
    } | changes


def written(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=4))
    return path


def test_a_pickled_template_becomes_safe_arrays(tmp_path: Path) -> None:
    """Import, save and load give the same numbers, without a pickle in the saved file."""
    original = content()
    template = MotionTemplate.import_pickle(written(tmp_path / "a.pkl", original))
    assert (len(template), template.fps) == (FRAMES, 25)
    template.save(tmp_path / "a.npz")
    loaded = MotionTemplate.load(tmp_path / "a.npz")
    for index, frame in enumerate(original["motion"]):
        assert (loaded.exp[index] == frame["exp"][0]).all()
        assert (loaded.rotation[index] == frame["R"][0]).all()
        assert (loaded.scale[index], *loaded.t[index]) == (frame["scale"][0], *frame["t"][0])
    assert loaded.eyes is not None
    assert (loaded.eyes[2] == original["c_eyes_lst"][2][0]).all()


def test_older_templates_name_things_differently(tmp_path: Path) -> None:
    """R_d for R, c_d_ for the ratio lists, none at all, and numpy 1's module name."""
    old = content()
    for frame in old["motion"]:
        frame["R_d"] = frame.pop("R")
    old["c_d_lip_lst"] = old.pop("c_lip_lst")
    del old["c_eyes_lst"]
    data = pickle.dumps(old, protocol=3).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in data
    (tmp_path / "a.pkl").write_bytes(data)
    template = MotionTemplate.import_pickle(tmp_path / "a.pkl")
    assert template.eyes is None
    assert template.lips is not None


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_template_cannot_run_code(tmp_path: Path) -> None:
    """Any other name than those of arrays is refused before it is imported."""
    path = written(tmp_path / "a.pkl", content(motion=_Runs(tmp_path / "ran")))
    with pytest.raises(ConfigError, match="the name"):
        MotionTemplate.import_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"n_frames": FRAMES + 1},
        {"output_fps": 0},
        {"motion": []},
        {"motion": [{"scale": np.zeros((1, 1), np.float32)}], "n_frames": 1},
        {"c_eyes_lst": [np.zeros((1, 2), np.float32)]},
        {"c_eyes_lst": [np.zeros((1, 2))] * FRAMES},
        {"c_lip_lst": [np.full((1, 1), np.nan, np.float32)] * FRAMES},
        {"c_lip_lst": [np.array([[None]])] * FRAMES},
    ],
)
def test_malformed_templates_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Wrong counts, missing entries, other dtypes or shapes, and what is not finite."""
    with pytest.raises(ConfigError, match=r"a\.pkl"):
        MotionTemplate.import_pickle(written(tmp_path / "a.pkl", content(**changes)))


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps([1])[:-2], pickle.dumps(7)])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    """By both readers."""
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    for read in (MotionTemplate.import_pickle, MotionTemplate.load):
        with pytest.raises(ConfigError):
            read(path)


@pytest.fixture
def motion(golden: Mapping[str, Array]) -> Any:
    """The motion of the golden picture."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from pipeline.liveportrait.keypoints import Motion

    names = ("pitch", "yaw", "roll", "t", "exp", "scale", "kp")
    return Motion(**{name: torch.from_numpy(golden[f"M/{name}"]) for name in names})


def template() -> MotionTemplate:
    rng = np.random.default_rng(1)
    turns = np.linalg.qr(rng.normal(size=(3, 3, 3)))[0].astype(np.float32)
    exp, t = (rng.normal(size=shape).astype(np.float32) * 0.02 for shape in ((3, 21, 3), (3, 3)))
    return MotionTemplate(25, np.array([[1.1], [1.2], [1.3]], np.float32), turns, exp, t)


def test_relative_motion_starts_at_the_source(motion: Any) -> None:
    """The first frame drives to x_s whatever it shows, in every region."""
    from pipeline.liveportrait.driving import Driver, Region, relative
    from pipeline.liveportrait.keypoints import transform_keypoints

    first = Driver.frame(template(), 0)
    for region in Region:
        found = relative(motion, first, first, region)
        assert float((found - transform_keypoints(motion)).abs().max()) < 1e-5


def test_relative_motion_is_the_specifications_formula(motion: Any) -> None:
    """Rotation, expression, scale and translation as written, checked in float64."""
    from pipeline.liveportrait.driving import Driver, relative

    recorded = template()
    found = relative(motion, Driver.frame(recorded, 0), Driver.frame(recorded, 2))[0].numpy()
    r, e, s, t = (
        a.astype(np.float64) for a in (recorded.rotation, recorded.exp, recorded.scale, recorded.t)
    )
    rotation = r[2] @ r[0].T @ motion.rotation[0].double().numpy()
    moved = motion.kp[0].double().numpy() @ rotation + motion.exp[0].double().numpy() + e[2] - e[0]
    shift = (motion.t[0].double().numpy() + t[2] - t[0]) * (1, 1, 0)
    expected = float(motion.scale) * s[2] / s[0] * moved + shift
    assert np.abs(found - expected).max() < 1e-5


def test_regions_take_their_keypoints_only(motion: Any) -> None:
    """Lips and eyes move their own keypoints, expression no pose, pose no expression."""
    from pipeline.liveportrait import driving
    from pipeline.liveportrait.driving import Driver, Region
    from pipeline.liveportrait.keypoints import transform_keypoints

    first, last = (Driver.frame(template(), i) for i in (0, 2))
    x_s = transform_keypoints(motion)

    def moved(region: Region) -> set[int]:
        change = (driving.relative(motion, first, last, region) - x_s).abs().amax(2)[0]
        return {int(k) for k in (change > 1e-5).nonzero()}

    assert moved(Region.LIPS) == set(driving.LIP_KEYPOINTS)
    assert moved(Region.EYES) == set(driving.EYE_KEYPOINTS)
    still = driving.absolute(motion, last, Region.EXPRESSION) - x_s
    assert float(still[:, [0, 7, 10]].abs().max()) == 0.0
    assert float(still[:, 3, [0, 2]].abs().max()) == 0.0
    assert float(still[:, 3, 1].abs().max()) > 0.0


def test_expression_friendly_motion_scales_with_the_faces_size(motion: Any) -> None:
    """A driver of an eighth the volume has its motion enlarged by the root of eight."""
    from pipeline.liveportrait.driving import amplified, expression_friendly
    from pipeline.liveportrait.keypoints import transform_keypoints

    x_s = transform_keypoints(motion)
    small = x_s / 2
    found = expression_friendly(x_s, small + 0.01, small)
    assert found.sub(x_s).numpy() == pytest.approx(0.01 * 8**0.5, abs=1e-5)
    assert float((amplified(x_s, found, 0.0) - x_s).abs().max()) == 0.0


def test_the_closed_mouth_reference_is_the_specifications(motion: Any) -> None:
    """21 x 3 numbers, the largest of them at the jaw."""
    from pipeline.liveportrait.driving import LIP_ARRAY, neutral_lips

    assert LIP_ARRAY.shape == (21, 3)
    assert LIP_ARRAY[19, 1] == np.abs(LIP_ARRAY).max() * -1 == -0.0150906
    assert neutral_lips(motion).exp.shape == (1, 21, 3)
