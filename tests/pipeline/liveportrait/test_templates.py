"""Recorded motion: what is read, what is refused, and how it drives."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.liveportrait import templates
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


def still(**changes: Any) -> list[dict[str, Any]]:
    """The motion of one frame."""
    frame = {
        "scale": np.ones((1, 1), np.float32),
        "R": np.eye(3, dtype=np.float32)[None],
        "exp": np.zeros((1, 21, 3), np.float32),
        "t": np.zeros((1, 3), np.float32),
    }
    return [frame | changes]


def without(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name != key}


def one(**changes: Any) -> dict[str, Any]:
    """A template of one frame, changed there."""
    return {"n_frames": 1, "output_fps": 25, "motion": still(**changes)}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1], "expected a dict, got a list"),
        (without("motion", content()), "there is no motion"),
        (without("n_frames", content()), "there is no n_frames"),
        (without("output_fps", content()), "there is no output_fps"),
        (content(n_frames=FRAMES + 1), "n_frames: expected 4"),
        (content(n_frames="4"), "n_frames: expected an integer, got a str"),
        (content(output_fps=0), "fps: expected 1 to 240, got 0"),
        (content(output_fps=10**60), "fps: expected 1 to 240"),
        (content(output_fps=True), "output_fps: expected an integer, got a bool"),
        (content(motion=[]), "motion: expected 1 to"),
        (content(motion={}), "motion: expected a list, got a dict"),
        (content(motion=[3] * FRAMES), r"motion\[0\]: expected a dict, got a int"),
        ({**one(), "motion": [without("R", still()[0])]}, r"motion\[0\]: there is no R"),
        (one(exp=np.zeros((21, 3), np.float32)), r"motion\[0\].exp: expected a float32 array"),
        (one(exp=[0.0] * 63), r"motion\[0\].exp: expected a float32 array \(1, 21, 3\)"),
        (one(t=np.zeros((1, 3))), r"motion\[0\].t: expected a float32 array"),
        (one(t=np.full((1, 3), np.inf, np.float32)), "t: expected finite numbers"),
        (one(scale=np.full((1, 1), 1e30, np.float32)), "scale: expected numbers within 1000"),
        (content(c_eyes_lst=[np.zeros((1, 2), np.float32)]), "c_eyes_lst: expected 4 entries"),
        (content(c_eyes_lst=[np.zeros((1, 2))] * FRAMES), r"c_eyes_lst\[0\]: expected a float32"),
        (content(c_eyes_lst=np.zeros((FRAMES, 2), np.float32)), "c_eyes_lst: expected a list"),
        (content(c_lip_lst=[np.full((1, 1), np.nan, np.float32)] * FRAMES), "lips: .* finite"),
        (content(c_lip_lst=[np.array([[None]])] * FRAMES), "else than numbers"),
        (content(c_lip_lst=[np.array([["a"]])] * FRAMES), "else than numbers"),
        (content(extra={("a", "b"): 1}), "keys are no text"),
        (content(extra=bytearray(9)), "the name builtins.bytearray"),
        (content(extra=frozenset("a")), "an operation that no template needs"),
        (content(extra=np.float32(1.0)), "the name numpy"),
    ],
)
def test_malformed_templates_are_refused(tmp_path: Path, value: object, problem: str) -> None:
    """Wrong counts, missing entries, other dtypes or shapes, what is not finite: said by name."""
    with pytest.raises(ConfigError, match=problem) as caught:
        MotionTemplate.import_pickle(written(tmp_path / "a.pkl", value))
    assert caught.value.where == str(tmp_path / "a.pkl")
    assert len(caught.value.problem) < 300


def test_what_else_a_template_holds_is_ignored(tmp_path: Path) -> None:
    """Newer ones add `kp` and `x_s`; lists of ratios may be empty; big-endian is read as well."""
    value = one(kp=np.ones((1, 21, 3), np.float32), t=np.full((1, 3), 0.5, ">f4"))
    value |= {"c_eyes_lst": [], "c_lip_lst": None}
    template = MotionTemplate.import_pickle(written(tmp_path / "a.pkl", value))
    assert (template.eyes, template.lips) == (None, None)
    assert template.t.tolist() == [[0.5, 0.5, 0.5]]
    assert template.t.dtype == np.float32


def nested_key(depth: int) -> bytes:
    """A dict whose key is a tuple so deep that hashing it would overflow the C stack."""
    deep = pickle.EMPTY_TUPLE + pickle.TUPLE1 * depth
    return pickle.PROTO + b"\4" + pickle.EMPTY_DICT + deep + pickle.NONE + pickle.SETITEM


HOSTILE = {
    "memo of 64 GB": pickle.PROTO + b"\4N" + pickle.LONG_BINPUT + b"\xff\xff\xff\xff.",
    "text of 2 EB": pickle.PROTO + b"\4" + pickle.BINUNICODE8 + b"\xff" * 7 + b"\x1f" + b"a.",
    "buffer of 1 TB": pickle.PROTO + b"\5" + pickle.BYTEARRAY8 + b"\0" * 5 + b"\1\0\0.",
    "frame of 1 TB": pickle.PROTO + b"\4" + pickle.FRAME + b"\0" * 5 + b"\1\0\0N.",
    "key of 300000 levels": nested_key(300_000) + b".",
    "value of 300000 levels": pickle.PROTO + b"\4" + pickle.EMPTY_TUPLE
    + pickle.TUPLE1 * 300_000 + b".",
    "reference outside": pickle.PROTO + b"\4" + pickle.NONE + pickle.BINPERSID + b".",
    "extension": pickle.PROTO + b"\4" + pickle.EXT1 + b"\1.",
    "code": b"cos\nsystem\n(S'true'\ntR.",
    "empty stack": pickle.PROTO + b"\4" + pickle.REDUCE + b".",
    "no end": pickle.PROTO + b"\4" + pickle.NONE,
    "call of an argument": pickle.PROTO + b"\4cnumpy\nndarray\n" + pickle.EMPTY_TUPLE + b"R.",
    "change of a name": pickle.PROTO + b"\4cnumpy\ndtype\n" + pickle.NONE + pickle.EMPTY_DICT
    + b"\x8c\5_makeNs" + pickle.TUPLE2 + pickle.BUILD + b".",
    "escape codes": b"c\x1b[2J\nsystem\n.",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    """None takes memory, ends the process, runs anything or writes to the terminal as it likes."""
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(ConfigError, match=r"not a motion template: .") as caught:
        MotionTemplate.import_pickle(tmp_path / "a.pkl")
    assert caught.value.problem.isprintable()


def test_the_reader_stays_as_it_is(tmp_path: Path) -> None:
    """After all of those a good template is read like before."""
    for data in HOSTILE.values():
        (tmp_path / "a.pkl").write_bytes(data)
        with pytest.raises(ConfigError):
            MotionTemplate.import_pickle(tmp_path / "a.pkl")
    assert len(MotionTemplate.import_pickle(written(tmp_path / "a.pkl", content()))) == FRAMES


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Flipped and cut bytes end in a template or a ConfigError, in both readers."""
    folder = tmp_path_factory.mktemp("damaged")
    good = written(folder / "a.pkl", content())
    MotionTemplate.import_pickle(good).save(folder / "a.motion")
    for path, read in (
        (good, MotionTemplate.import_pickle), (folder / "a.motion", MotionTemplate.load)
    ):  # fmt: skip
        damaged = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))])
        with contextlib.suppress(ConfigError):
            assert len(read(path)) >= 1


def packed(path: Path, **arrays: Any) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": 2}, "not of format 1"),
        ({"format": [1, 2]}, "not a motion file"),
        ({"fps": None}, "not a motion file"),
        ({"exp": np.zeros((2, 20, 3), np.float32)}, "exp: expected float32"),
        ({"exp": np.array([[None]])}, "not a motion file"),
        ({"lips": np.zeros((3, 1), np.float32)}, "lips: expected float32"),
        ({"eyes": np.full((2, 2), np.nan, np.float32)}, "eyes: expected finite"),
        ({"further": np.zeros(3)}, "not a motion file"),
        ({"further": np.zeros(10_000_000)}, "when unpacked"),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    """What `save` would not have written, objects and archives that unpack to too much."""
    arrays = {
        "format": 1, "fps": 25,
        "scale": np.ones((2, 1), np.float32), "rotation": np.ones((2, 3, 3), np.float32),
        "exp": np.zeros((2, 21, 3), np.float32), "t": np.zeros((2, 3), np.float32),
    }  # fmt: skip
    assert len(MotionTemplate.load(packed(tmp_path / "a.motion", **arrays))) == 2
    with pytest.raises(ConfigError, match=problem):
        MotionTemplate.load(packed(tmp_path / "a.motion", **(arrays | changes)))


def test_files_beyond_the_limit_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a file is, or says it is."""
    monkeypatch.setattr(templates, "MAX_BYTES", 1000)
    (tmp_path / "a").write_bytes(b"." * 1001)
    for path in (tmp_path / "a", Path("/dev/zero")):
        for read in (MotionTemplate.import_pickle, MotionTemplate.load):
            with pytest.raises(ConfigError, match="more than 1000 bytes"):
                read(path)


def test_a_save_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays whole, and nothing else is left behind."""
    path = tmp_path / "a.motion"
    path.write_bytes(b"old")

    def fail(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="space"):
        template().save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.motion"]
    assert path.read_bytes() == b"old"


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
