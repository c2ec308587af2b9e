"""InsightFace's loading and running code, on tiny networks of the released form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from pipeline.errors import ConfigError, PortraitError
from pipeline.faces import FittingDetector, find_face
from pipeline.landmark_sets import ANCHORS
from pipeline.liveportrait.errors import CheckpointError
from pipeline.liveportrait.insight_faces import InsightFaceDetector, face_detectors
from pipeline.portrait import portrait_from_bytes
from tests.fakes.face_networks import (
    DETECTOR,
    LANDMARKS_106,
    write_detector,
    write_landmarks_106,
)
from tests.fakes.photos import as_106, astronaut, astronaut_points, png

for package in ("onnxruntime", "onnx", "insightface"):
    pytest.importorskip(package, reason=f"{package} is not installed")

# The astronaut's face fills this box of her photo of 512 x 512 pixels, which is also the canvas.
FACE = (170.0, 50.0, 290.0, 210.0)


def in_crop(points: Any, box: tuple[float, ...]) -> Any:
    """Points of the picture in shares of the landmark network's input (specification 5.3)."""
    left, top, right, bottom = box
    side = 1.5 * max(right - left, bottom - top)
    return (np.asarray(points) - ((left + right) / 2, (top + bottom) / 2)) / side + 0.5


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Networks that see the astronaut in her photo."""
    write_detector(tmp_path, [(FACE, 0.9)])
    write_landmarks_106(tmp_path, in_crop(as_106(astronaut_points()), FACE))
    return tmp_path


def test_a_face_is_found_with_its_106_points(weights: Path) -> None:
    """They come back in pixels of the picture, the 68 among them, with irises measured on it."""
    found = InsightFaceDetector(weights).find(astronaut(), "astronaut")

    landmarks = found.landmarks
    assert landmarks.source == "insightface"
    assert landmarks.dense is not None
    np.testing.assert_allclose(landmarks.dense, as_106(astronaut_points()), atol=0.02)
    np.testing.assert_allclose(landmarks.points, astronaut_points(), atol=0.02)
    np.testing.assert_allclose(landmarks.irises[:, :2], [(202.5, 100.2), (246.7, 102.6)], atol=3)
    assert found.warnings == ()


def test_a_portrait_keeps_the_points_of_the_detector(weights: Path) -> None:
    """Cropped and scaled with the picture, they stay on the same pixels of the face."""
    loaded = portrait_from_bytes(
        png(astronaut()), "astronaut", crop=(60, 10, 300, 330), detectors=face_detectors(weights)
    )
    landmarks = loaded.portrait.landmarks
    assert landmarks.dense is not None
    np.testing.assert_allclose(landmarks.dense, as_106(astronaut_points()) - (60, 10), atol=0.02)
    assert loaded.warnings == ()


def test_the_picture_goes_in_as_specified(tmp_path: Path) -> None:
    """Fitted into the canvas at its top left, RGB, (v - 127.5) / 128; boxes come back scaled."""
    write_detector(tmp_path, red=True)
    write_landmarks_106(tmp_path, np.full((106, 2), 0.5))
    image = np.full((1024, 768, 3), 0, np.uint8)  # on the canvas: 384 x 512
    image[320:384, 448:512] = (255, 0, 0)  # the cell at row 5, column 7
    image[640:704, 64:128] = (0, 0, 255)

    boxes = InsightFaceDetector(tmp_path).boxes(image)

    assert len(boxes) == 1
    box = boxes[0]
    assert box.score == pytest.approx((255 - 0) / 128 / 2, abs=1e-3)
    expected = 2 * np.array([7 * 32 - 32, 5 * 32 - 48, 7 * 32 + 32, 5 * 32 + 48])
    np.testing.assert_allclose([box.left, box.top, box.right, box.bottom], expected, atol=1e-2)


def test_the_landmark_crop_is_as_specified(tmp_path: Path) -> None:
    """Raw levels in RGB, a box and a half wide, black outside the picture."""
    write_detector(tmp_path, [(FACE, 0.9)])
    places = as_106(astronaut_points())
    write_landmarks_106(tmp_path, in_crop(places, FACE), tints=True)
    image = np.zeros((512, 512, 3), np.uint8)
    image[..., 0], image[..., 2] = 200, 100
    detector = InsightFaceDetector(tmp_path)
    (box,) = detector.boxes(image)

    inside = detector.points(image, box)
    assert inside is not None
    np.testing.assert_allclose(inside - places, [(240 * 0.02, 240 * 0.01)] * 106, atol=0.05)

    image = image[:130]  # only the upper half of the crop shows the picture
    outside = detector.points(image, box)
    assert outside is not None
    np.testing.assert_allclose(outside - places, [(240 * 0.01, 240 * 0.005)] * 106, atol=0.1)


def test_faces_come_largest_first_each_once_and_doubtful_ones_too(tmp_path: Path) -> None:
    """Overlaps above 0.4 are one face; a score of 0.15 is enough, less is not."""
    write_detector(
        tmp_path,
        [
            ((10, 10, 90, 100), 0.95),
            ((40, 15, 115, 105), 0.9),
            ((200, 200, 400, 440), 0.16),
            ((300, 20, 480, 200), 0.14),
        ],
    )
    write_landmarks_106(tmp_path, np.full((106, 2), 0.5))
    boxes = InsightFaceDetector(tmp_path).boxes(astronaut())
    assert [round(box.score, 2) for box in boxes] == [0.16, 0.95]
    assert boxes[0].area > boxes[1].area


def test_the_largest_face_that_is_one_is_used(tmp_path: Path) -> None:
    """A large false alarm whose points are no face gives way to the next; doubts are told."""
    write_detector(tmp_path, [(FACE, 0.4)])
    places = in_crop(as_106(astronaut_points()), FACE)
    write_landmarks_106(tmp_path, places)
    doubtful = InsightFaceDetector(tmp_path).find(astronaut(), "x")
    assert doubtful.warnings == ("the detector is not sure of the face (0.40 of 1)",)

    write_detector(tmp_path, [(FACE, 0.9), ((300, 220, 500, 480), 0.8)])
    crowd = InsightFaceDetector(tmp_path).find(astronaut(), "x")
    assert crowd.landmarks.points[30, 0] > 300
    assert crowd.warnings[0].startswith("2 faces found; the largest is used")

    write_landmarks_106(tmp_path, 1 - places)  # upside down
    with pytest.raises(PortraitError, match="no face found") as caught:
        InsightFaceDetector(tmp_path).find(astronaut(), "x")
    assert caught.value.no_face


def test_points_that_are_a_face_in_their_anchors_alone_serve_with_a_warning(weights: Path) -> None:
    """The crop needs no more than eyes and mouth; the 68 are an average face there."""
    scattered = np.random.default_rng(2).uniform(180, 280, (106, 2))
    anchors = ANCHORS[106]
    certain = [*anchors.left_eye, *anchors.right_eye, *anchors.mouth]
    scattered[certain] = as_106(astronaut_points())[certain]
    write_landmarks_106(weights, in_crop(scattered, FACE))

    found = InsightFaceDetector(weights).find(astronaut(), "x")

    assert found.landmarks.source == "anchors"
    assert "not laid out like a face" in found.warnings[0]
    assert found.landmarks.dense is not None
    np.testing.assert_allclose(found.landmarks.dense, scattered, atol=0.02)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2000, 3), (3000, 2, 3), (40, 60, 3)])
def test_pictures_without_room_for_a_face_have_none(weights: Path, shape: Any) -> None:
    """However small or thin: no face, said in the usual way."""
    with pytest.raises(PortraitError, match="no face found") as caught:
        InsightFaceDetector(weights).find(np.zeros(shape, np.uint8), "thin")
    assert caught.value.no_face


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_numbers_that_are_not_finite_are_no_face(weights: Path, value: float) -> None:
    """A network that overflows finds nothing, and nothing breaks."""
    write_landmarks_106(weights, np.full((106, 2), value))
    with pytest.raises(PortraitError, match="no face found"):
        InsightFaceDetector(weights).find(astronaut(), "x")
    write_detector(weights, [((value, 50, 290, 210), 0.9)], at=(230, 130))
    with pytest.raises(PortraitError, match="no face found"):
        InsightFaceDetector(weights).find(astronaut(), "x")


def test_only_the_two_networks_of_the_folder_are_read(weights: Path) -> None:
    """The released folder holds three more, which nobody needs."""
    (weights / DETECTOR).with_name("w600k_r50.onnx").write_bytes(b"not a network")
    assert InsightFaceDetector(weights).boxes(astronaut())


def test_nothing_is_printed(weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither by the package nor by onnxruntime."""
    InsightFaceDetector(weights).find(astronaut(), "x")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file", [DETECTOR, LANDMARKS_106])
def test_a_missing_file_is_named_with_how_to_get_it(weights: Path, file: Path) -> None:
    """So that one knows what to do."""
    (weights / file).unlink()
    with pytest.raises(CheckpointError, match=r"models download.*no such file") as caught:
        InsightFaceDetector(weights)
    assert caught.value.file == weights / file


@pytest.mark.parametrize("file", [DETECTOR, LANDMARKS_106])
def test_a_damaged_file_is_refused(weights: Path, file: Path) -> None:
    """An error page, a file cut short, an empty one."""
    whole = (weights / file).read_bytes()
    for data in (b"<html>404</html>", whole[: len(whole) // 2], whole[:-1], b""):
        (weights / file).write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            InsightFaceDetector(weights)
        assert caught.value.file == weights / file


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "data"}, r"one input 'input\.1', found 'data'"),
        ({"shape": (1, 3, 640, 640)}, r"512.*found tensor\(float\) \[1, 3, 640, 640\]"),
        ({"shape": (1, 1, "?", "?")}, r"input\.1: expected .*512, 512\], found .*\[1, 1"),
        ({"dtype": "DOUBLE"}, r"expected tensor\(float\).*found tensor\(double\)"),
        ({"output_dtype": "DOUBLE"}, "448: expected float32 .*found float64"),
        ({"dropped": 3}, "expected 9 outputs, found 6"),
    ],
)
def test_another_detector_is_refused(weights: Path, changes: Any, expected: str) -> None:
    """By its input's name, shape or type, or by its outputs."""
    write_detector(weights, **changes)
    with pytest.raises(CheckpointError, match=expected):
        InsightFaceDetector(weights)


def test_another_landmark_network_is_refused(weights: Path) -> None:
    """68 points are not 106, and another size of input is another network."""
    write_landmarks_106(weights, np.zeros((68, 2)), declared={})
    with pytest.raises(CheckpointError, match=r"fc1: expected float32 \[1, 212\], found .*136"):
        InsightFaceDetector(weights)
    write_landmarks_106(weights, np.zeros((106, 2)), shape=(1, 3, 96, 96))
    with pytest.raises(CheckpointError, match=r"2d106det\.onnx: data: expected .*192, 192\]"):
        InsightFaceDetector(weights)


def test_a_fixed_size_of_512_is_the_same_network(weights: Path) -> None:
    """Exports differ in whether the axes are open."""
    write_detector(weights, [(FACE, 0.9)], shape=(1, 3, 512, 512))
    assert InsightFaceDetector(weights).boxes(astronaut())[0].score == pytest.approx(0.9)


@pytest.mark.parametrize("package", ["insightface", "onnxruntime"])
def test_a_package_that_is_not_installed_is_said_so(
    weights: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Without(package), *sys.meta_path])
    with pytest.raises(ConfigError, match=rf"{package}: .*pip install.*\[liveportrait\]"):
        InsightFaceDetector(weights)


class _Without:
    """An import system that lacks a package."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self._package)


def test_where_there_are_no_models_faces_are_fitted(tmp_path: Path) -> None:
    """No folder, or one without InsightFace's files."""
    for folder in (None, tmp_path):
        (detector,) = face_detectors(folder)
        assert isinstance(detector, FittingDetector)


def test_models_that_do_not_open_leave_the_fitting(weights: Path) -> None:
    """A damaged file costs exactness, not the face; what is wrong is logged once."""
    (weights / DETECTOR).write_bytes(b"")
    trained, fitting = face_detectors(weights)
    assert isinstance(fitting, FittingDetector)
    with capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(PortraitError, match=r"no face detector: .*0 bytes") as caught:
                trained.find(astronaut(), "astronaut")
            assert caught.value.no_face  # so that the next detector is asked
    assert [line["event"] for line in lines] == ["face_detector_unusable"]


def test_the_detector_goes_before_the_fitting(weights: Path) -> None:
    """Where it sees a face its points are taken; where it sees none the next one is asked."""
    detectors = face_detectors(weights)
    assert find_face(astronaut(), "x", detectors).landmarks.source == "insightface"
    write_detector(weights)
    with pytest.raises(PortraitError) as caught:
        face_detectors(weights)[0].find(astronaut(), "x")
    assert caught.value.no_face
