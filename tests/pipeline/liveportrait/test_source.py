"""From portraits to the points that LivePortrait frames and measures faces by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from pipeline.errors import PortraitError
from pipeline.landmarks import load_landmarks, parse_landmarks
from pipeline.liveportrait.crop import EDITOR_SOURCE, LANDMARKS_INPUT, SOURCE, Crop
from pipeline.liveportrait.errors import CheckpointError
from pipeline.liveportrait.ratios import OpenRatios
from pipeline.liveportrait.source import Origin, SourceFinder
from pipeline.types import FaceLandmarks, Portrait
from tests.fakes.face_networks import (
    DETECTOR,
    LANDMARKS_106,
    LANDMARKS_203,
    write_detector,
    write_landmarks_106,
    write_landmarks_203,
)
from tests.fakes.liveportrait_weights import Array
from tests.fakes.photos import LANDMARKS, as_106, as_203, astronaut, astronaut_points

FACE = (170.0, 50.0, 290.0, 210.0)


@pytest.fixture
def portrait() -> Portrait:
    """The astronaut, with the 68 points of a file."""
    return Portrait("astronaut", astronaut(), load_landmarks(LANDMARKS, astronaut()), "key")


def with_points(portrait: Portrait, points: Any) -> Portrait:
    landmarks = parse_landmarks(np.asarray(points).tolist(), portrait.image, "file")
    return replace(portrait, landmarks=landmarks)


def see(weights_dir: Path, points: Any, box: tuple[float, ...] = FACE) -> None:
    """InsightFace's networks, which place 106 points of the picture in one box."""
    for package in ("onnxruntime", "onnx", "insightface"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    left, top, right, bottom = box
    side = 1.5 * max(right - left, bottom - top)
    write_detector(weights_dir, [((left, top, right, bottom), 0.9)])
    places = (np.asarray(points) - ((left + right) / 2, (top + bottom) / 2)) / side + 0.5
    write_landmarks_106(weights_dir, places)


def refine(weights_dir: Path, points: Any, around: Any) -> None:
    """A 203-point network that places points of the picture, asked with the points `around`."""
    for package in ("onnxruntime", "onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    crop = Crop.around(around, LANDMARKS_INPUT)
    inside = np.asarray(points) @ crop.to_crop[:2, :2].T + crop.to_crop[:2, 2]
    write_landmarks_203(weights_dir, inside / LANDMARKS_INPUT.size_px)


def test_the_references_points_give_its_crop_and_ratios(
    golden: Mapping[str, Array], tmp_path: Path
) -> None:
    """Through the three networks, with what the reference saw in the golden photo."""
    photo, dense = golden["e2e/in_photo"], golden["e2e/in_lmk106"]
    see(tmp_path, dense, box=(160 * 0.8, 200 * 0.8, 330 * 0.8, 410 * 0.8))
    write_landmarks_106(
        tmp_path, (dense - (245, 305)) / (1.5 * 210) + 0.5
    )  # the canvas shows 640 rows on 512
    refine(tmp_path, golden["e2e/in_lmk203"], around=dense)
    middle = FaceLandmarks(np.full((68, 2), (245.0, 305.0)), np.ones((2, 3)), "fitted")

    source = SourceFinder(tmp_path).find(Portrait("golden", photo, middle, "key"))

    assert source.notes == ()
    assert (source.points_from, source.ratio_points_from) == (Origin.DETECTED, Origin.REFINED)
    np.testing.assert_allclose(source.points, dense, atol=0.02)
    found = Crop.around(source.points, EDITOR_SOURCE).to_crop
    assert np.abs(found - golden["e2e/M_o2c"])[:, :2].max() < 1e-3
    assert np.abs(found - golden["e2e/M_o2c"])[:, 2].max() < 0.05
    ratios = OpenRatios.of(source.ratio_points)
    np.testing.assert_allclose(
        [ratios.left_eye, ratios.right_eye], golden["e2e/eye_ratios"][0], atol=1e-3
    )
    assert ratios.lips == pytest.approx(golden["e2e/lip_ratios"][0, 0], abs=1e-3)
    targets = [ratios.eye_target, ratios.lip_target]
    np.testing.assert_allclose(targets, golden["e2e/source_ratios_rounded"], atol=0.0101)


@pytest.mark.parametrize("name", ["in_lmk106", "in_lmk203"])
def test_the_references_points_serve_as_a_landmarks_file(
    golden: Mapping[str, Array], tmp_path: Path, name: str
) -> None:
    """For machines without the detectors: the crop is made from the file's points as they are."""
    photo, points = golden["e2e/in_photo"], golden[f"e2e/{name}"]
    landmarks = parse_landmarks(points.tolist(), photo, "file")
    assert landmarks.source == "anchors"  # the reference's test points are a face in no more

    source = SourceFinder(tmp_path).find(Portrait("golden", photo, landmarks, "key"))

    assert source.points_from == Origin.GIVEN
    found = Crop.around(source.points, SOURCE).to_crop
    if name == "in_lmk106":
        assert np.abs(found - golden["e2e/M_o2c_scale2.3"]).max() < 1e-3
        assert source.ratio_points_from == Origin.LANDMARKS
    else:
        assert source.ratio_points_from == Origin.GIVEN
        lips = OpenRatios.of(source.ratio_points).lips
        assert lips == pytest.approx(golden["e2e/lip_ratios"][0, 0], abs=1e-4)


def test_given_points_go_before_the_networks(portrait: Portrait, tmp_path: Path) -> None:
    """106 frame the crop, and the network refines them; 203 tell the ratios too."""
    see(tmp_path, as_106(astronaut_points()) + 3)
    given = with_points(portrait, as_106(astronaut_points()))
    refine(tmp_path, as_203(astronaut_points()) + 2, around=as_106(astronaut_points()))
    finder = SourceFinder(tmp_path)

    source = finder.find(given)
    np.testing.assert_array_equal(source.points, given.landmarks.dense)
    np.testing.assert_allclose(source.ratio_points, as_203(astronaut_points()) + 2, atol=0.02)
    assert (source.points_from, source.ratio_points_from) == (Origin.GIVEN, Origin.REFINED)

    given = with_points(portrait, as_203(astronaut_points()))
    source = finder.find(given)
    np.testing.assert_array_equal(source.points, given.landmarks.dense)
    np.testing.assert_array_equal(source.ratio_points, given.landmarks.dense)
    assert (source.points_from, source.ratio_points_from) == (Origin.GIVEN, Origin.GIVEN)


def test_68_points_are_replaced_by_the_detectors_106(portrait: Portrait, tmp_path: Path) -> None:
    """As LivePortrait frames a face, from a box that the 68 lie in."""
    see(tmp_path, as_106(astronaut_points()) + 1)
    source = SourceFinder(tmp_path).find(portrait)
    np.testing.assert_allclose(source.points, as_106(astronaut_points()) + 1, atol=0.02)
    assert source.points_from == Origin.DETECTED


def test_another_persons_face_is_not_taken(portrait: Portrait, tmp_path: Path) -> None:
    """The landmarks say whose face is meant, though a larger one is seen elsewhere."""
    see(tmp_path, as_106(astronaut_points()), box=(300, 250, 510, 500))
    source = SourceFinder(tmp_path).find(portrait)
    assert source.points_from == Origin.LANDMARKS
    np.testing.assert_array_equal(source.points, portrait.landmarks.points)
    assert "no face where the portrait's landmarks are" in source.notes[0]


def test_without_networks_the_68_serve_and_it_is_said_what_is_missing(
    portrait: Portrait, tmp_path: Path
) -> None:
    """Once per finder in the log, in the notes of every source; only where it is missed."""
    with capture_logs() as lines:
        finder = SourceFinder(tmp_path)
        assert finder.find(with_points(portrait, as_203(astronaut_points()))).notes == ()
        assert lines == []
        sources = [finder.find(portrait) for _ in range(2)]
    for source in sources:
        np.testing.assert_array_equal(source.points, portrait.landmarks.points)
        np.testing.assert_array_equal(source.ratio_points, portrait.landmarks.points)
        assert (source.points_from, source.ratio_points_from) == (
            Origin.LANDMARKS,
            Origin.LANDMARKS,
        )
        detectors, network = source.notes
        assert all(str(file) in detectors for file in (DETECTOR, LANDMARKS_106))
        assert str(LANDMARKS_203) in network
        assert all("avatar-orchestrator models download" in note for note in source.notes)
    assert [line["problem"] for line in lines] == [detectors, network]


def test_a_damaged_network_is_no_missing_one(portrait: Portrait, tmp_path: Path) -> None:
    """What is there has to work: nobody shall wonder why it is not used."""
    see(tmp_path, as_106(astronaut_points()))
    (tmp_path / LANDMARKS_106).write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"2d106det\.onnx"):
        SourceFinder(tmp_path)


def test_a_large_portrait_is_limited_and_its_points_follow(tmp_path: Path) -> None:
    """1280 pixels at most, both sides even, each axis with its own scale; the key stays."""
    image = np.zeros((1501, 2000, 3), np.uint8)
    points = astronaut_points() * 3
    dense = as_106(points)
    irises = np.array([(600, 300, 12), (740, 306, 12)])
    portrait = Portrait("large", image, FaceLandmarks(points, irises, "file", dense), "key")

    source = SourceFinder(tmp_path).find(portrait)

    assert source.portrait.image.shape == (960, 1280, 3)
    assert not source.portrait.image.flags.writeable
    assert source.portrait.key == "key"
    scale = np.array([1280 / 2000, 960 / 1501])
    np.testing.assert_allclose(source.points, (dense + 0.5) * scale - 0.5, atol=1e-3)
    np.testing.assert_array_equal(source.portrait.landmarks.dense, source.points)
    assert source.portrait.landmarks.irises[0, 2] == pytest.approx(12 * 0.64, abs=0.01)


def test_an_odd_portrait_loses_its_last_row_and_column(portrait: Portrait, tmp_path: Path) -> None:
    """Nothing is scaled, so every point stays."""
    odd = replace(portrait, image=portrait.image[:511, :509])
    source = SourceFinder(tmp_path).find(odd)
    np.testing.assert_array_equal(source.portrait.image, astronaut()[:510, :508])
    np.testing.assert_array_equal(source.points, portrait.landmarks.points)


def test_points_that_frame_nothing_are_an_error_of_the_portrait(
    portrait: Portrait, tmp_path: Path
) -> None:
    """All in one place: there is no crop around them."""
    refine(tmp_path, as_203(astronaut_points()), around=astronaut_points())
    flat = replace(portrait, landmarks=FaceLandmarks(np.full((68, 2), 9), np.ones((2, 3)), "file"))
    with pytest.raises(PortraitError, match="astronaut: its landmarks") as caught:
        SourceFinder(tmp_path).find(flat)
    assert caught.value.no_face


@pytest.mark.parametrize("points", [np.nan, np.inf, (230.0, 130.0)])
def test_points_that_are_no_face_are_not_used(
    portrait: Portrait, tmp_path: Path, points: Any
) -> None:
    """Networks that overflow or see nothing leave the portrait's own landmarks."""
    see(tmp_path, np.full((106, 2), points))
    write_landmarks_203(tmp_path, np.full((203, 2), np.inf))
    source = SourceFinder(tmp_path).find(portrait)
    assert (source.points_from, source.ratio_points_from) == (Origin.LANDMARKS, Origin.LANDMARKS)
    assert "no numbers" in source.notes[-1]
