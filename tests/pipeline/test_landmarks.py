import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PortraitError
from pipeline.landmark_sets import ANCHORS, IBUG_FROM_106, MEAN_FACE, average_face_at
from pipeline.landmarks import (
    EYES,
    MAX_FILE_BYTES,
    MOUTH_CORNERS,
    check_geometry,
    estimate_irises,
    eye_centres,
    load_landmarks,
    parse_landmarks,
)
from tests.fakes.photos import (
    LANDMARKS,
    MIRRORED,
    as_106,
    as_203,
    astronaut,
    astronaut_iris_centres,
    astronaut_points,
)

EYE_DISTANCE = 44.5


def document(**changes):
    return json.loads(LANDMARKS.read_text()) | changes


def moved(index, x, y):
    points = document()["points"]
    points[index] = [x, y]
    return points


def refused(value, match):
    with pytest.raises(PortraitError, match=match) as caught:
        parse_landmarks(value, astronaut(), "face.json")
    assert str(caught.value).startswith("face.json: ")
    assert not caught.value.no_face


def test_a_file_gives_its_points_and_the_pictures_irises():
    """68 points come back as written, with the irises found in the picture."""
    landmarks = load_landmarks(LANDMARKS, astronaut())

    assert landmarks.source == "file"
    np.testing.assert_allclose(landmarks.points, astronaut_points(), atol=1e-4)
    off = np.hypot(*(landmarks.irises[:, :2] - astronaut_iris_centres()).T)
    assert off.max() < 0.05 * EYE_DISTANCE
    assert (np.abs(landmarks.irises[:, 2] - 4.0) < 0.8).all()


def test_a_bare_list_of_points_is_enough():
    """Format, size and irises may be left out."""
    landmarks = parse_landmarks(document()["points"], astronaut(), "face.json")
    np.testing.assert_allclose(landmarks.points, astronaut_points(), atol=1e-4)


def test_given_irises_are_kept():
    """A file that gives irises is believed."""
    irises = [[203, 101, 4.5], [246, 102, 4.25]]
    landmarks = parse_landmarks(document(irises=irises), astronaut(), "face.json")
    np.testing.assert_array_equal(landmarks.irises, np.array(irises, np.float32))


def test_points_follow_a_resized_picture():
    """Points for a picture of twice the size are halved."""
    double = (astronaut_points() * 2).tolist()
    value = document(points=double, image_size=[1024, 1024], irises=[[406, 202, 9], [492, 204, 8]])
    landmarks = parse_landmarks(value, astronaut(), "face.json")
    np.testing.assert_allclose(landmarks.points, astronaut_points(), atol=1e-3)
    np.testing.assert_allclose(landmarks.irises[0], (203, 101, 4.5))


@pytest.mark.parametrize("dense", [as_106, as_203])
def test_106_and_203_points_give_the_68_and_are_kept(dense):
    """The face's own points come out, its outline within a tenth of the eyes' distance."""
    points = dense(astronaut_points())

    landmarks = parse_landmarks(points.tolist(), astronaut(), "face.json")

    off = np.hypot(*(landmarks.points - astronaut_points()).T)
    assert off.max() < 0.15 * EYE_DISTANCE
    assert off[17:].mean() < 0.02 * EYE_DISTANCE
    assert landmarks.source == "file"
    np.testing.assert_allclose(landmarks.dense, points, atol=1e-4)


@pytest.mark.parametrize("dense", [as_106, as_203])
def test_points_that_are_a_face_in_their_anchors_alone_get_an_average_one(dense):
    """Eyes and mouth stay where they are, and the landmarks say that the rest is not measured."""
    points = dense(astronaut_points())
    anchors = ANCHORS[len(points)]
    certain = [*anchors.left_eye, *anchors.right_eye, *anchors.mouth]
    scattered = np.random.default_rng(5).uniform(20, 400, points.shape)
    scattered[certain] = points[certain]

    landmarks = parse_landmarks(scattered.tolist(), astronaut(), "face.json")

    assert landmarks.source == "anchors"
    np.testing.assert_allclose(ANCHORS[68].of(landmarks.points), anchors.of(scattered), atol=1e-3)
    assert np.hypot(*(landmarks.points - astronaut_points()).T).max() < 0.4 * EYE_DISTANCE
    np.testing.assert_allclose(landmarks.dense, scattered, atol=1e-3)


def test_scattered_points_are_refused():
    """Where not even eyes and mouth make a face there is none."""
    points = np.random.default_rng(1).uniform(20, 400, (106, 2)).tolist()
    refused(points, "points? ")


def test_68_points_are_no_dense_ones():
    """Nothing is kept beside them."""
    assert parse_landmarks(document(), astronaut(), "face.json").dense is None


def test_dense_points_follow_a_resized_picture():
    """They are in pixels of the picture, as the others are."""
    points = as_106(astronaut_points())
    value = {"points": (points * 2).tolist(), "image_size": [1024, 1024]}
    landmarks = parse_landmarks(value, astronaut(), "face.json")
    np.testing.assert_allclose(landmarks.dense, points, atol=1e-3)


def test_the_106_point_map_agrees_with_known_places():
    """Eye corners 35, 39, 89, 93, mouth corners 52, 61, chin 0; every point once."""
    table = np.array(IBUG_FROM_106)
    assert len(set(IBUG_FROM_106)) == 68
    assert table[[36, 39, 42, 45]].tolist() == [35, 39, 89, 93]
    assert table[list(MOUTH_CORNERS)].tolist() == [52, 61]
    assert table[8] == 0


def test_the_average_face_is_symmetric_and_a_face():
    """What stands in for unknown points passes for a face, and is no one's in particular."""
    mirrored = MEAN_FACE[list(MIRRORED)] * (-1, 1)
    np.testing.assert_allclose(mirrored, MEAN_FACE, atol=1e-6)
    check_geometry(average_face_at([(100, 100), (150, 110), (115, 160)]), "average")


def test_a_wrong_number_of_points_says_what_is_right():
    """Points of another scheme are named as such."""
    refused(document(points=[[1, 2]] * 5), r"points: expected 68 .*, 106 .* or 203 .* got 5")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (3, "expected an object"),
        ({}, "points: expected a list"),
        ({"points": []}, "points: expected a list"),
        ({"points": {}}, "points: expected a list"),
        ({"points": [[1, 2]] * 67 + [[1]]}, r"points\[67\]: expected \[x, y\]"),
        ({"points": [[1, "2"]] * 68}, r"points\[0\]: expected \[x, y\]"),
        ({"points": [[1, True]] * 68}, r"points\[0\]"),
        ({"points": [[1, float("nan")]] * 68}, r"points\[0\]: .*finite"),
        ({"points": [[1, 1e308 * 10]] * 68}, r"points\[0\]: .*finite"),
        (document(points=moved(20, 600, 90)), r"points\[20\]: \(600\.0, 90\.0\) lies outside"),
        (document(points=moved(3, -2, 90)), r"points\[3\]: .* outside the picture of 512 x 512"),
        (document(point=[]), "point: unknown field"),
        (document(format=2), "format: expected 1, got 2"),
        (document(image_size=[512]), r"image_size: expected \[width, height\]"),
        (document(image_size=[0, 512]), "image_size: expected"),
        (document(image_size=[512, 400]), r"image_size: .* 512 x 400, this one is 512 x 512"),
        (document(irises=[[203, 101, 4]]), "irises: expected two"),
        (document(irises=[[203, 101], [246, 102]]), r"irises\[0\]: expected \[x, y, radius\]"),
        (document(irises=[[246, 102, 4], [203, 101, 4]]), r"irises\[0\]: expected a circle inside"),
        (document(irises=[[203, 101, 4], [246, 102, 40]]), r"irises\[1\]: expected a circle"),
    ],
)
def test_a_bad_file_names_the_field(value, match):
    """Every mistake is answered with where it is and what would be right."""
    refused(value, match)


def test_a_huge_integer_is_no_crash():
    """JSON allows numbers that no array holds."""
    refused({"points": [[1, 10**400]] * 68}, r"points")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: p[36:48].__setitem__(slice(None), [220, 100]), "the eyes are 0.0 pixels apart"),
        (lambda p: p.__imul__(0.1), "the eyes are 4.5 pixels apart"),
        (lambda p: p[:, 1].__imul__(-1), "below the eyes"),
        (lambda p: p[:, 0].__imul__(-1), "mirror or rotate"),
        (lambda p: p.__setitem__(slice(None), p @ [[0, 1], [-1, 0]]), "upright within 60 degrees"),
        (lambda p: p[48:].__isub__((0, 60)), "points 48-67: the mouth has to lie below"),
        (lambda p: p[8].__isub__((0, 60)), "point 8: the chin"),
        (lambda p: p.__setitem__([36, 39], p[[39, 36]]), "points 36 and 39"),
        (lambda p: p.__setitem__([48, 54], p[[54, 48]]), "points 48 and 54"),
        (lambda p: p.__setitem__(slice(0, 17), p[16::-1]), "points 0 and 16"),
    ],
)
def test_points_that_are_no_face_are_refused(change, match):
    """Eyes in one place, a mouth on the forehead, sides swapped: each is named."""
    points = astronaut_points().astype(np.float32)
    change(points)
    with pytest.raises(PortraitError, match=match):
        check_geometry(points, "face.json")


@pytest.mark.parametrize("degrees", [-45, -20, 20, 45])
def test_a_tilted_head_is_a_face(degrees):
    """Roll within 45 degrees is fine."""
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    check_geometry((astronaut_points() @ rotation).astype(np.float32), "face.json")


def test_an_unreadable_file_says_why(tmp_path):
    """No file, no JSON, too long a file: each has its own sentence."""
    path = tmp_path / "face.json"
    with pytest.raises(PortraitError, match=r"face\.json: cannot be read: No such file"):
        load_landmarks(path, astronaut())
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(PortraitError, match="not valid JSON"):
        load_landmarks(path, astronaut())
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(PortraitError, match="not valid JSON"):
        load_landmarks(path, astronaut())
    path.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(PortraitError, match="larger than 256 KiB"):
        load_landmarks(path, astronaut())


@pytest.mark.parametrize("gain", [0.25, 1.0])
@pytest.mark.parametrize("scale", [1, 4])
def test_irises_are_found_in_dark_and_in_large_pictures(gain, scale):
    """Neither exposure nor size moves an iris by more than a twentieth of the eyes' distance."""
    image = (astronaut()[60:200, 150:300] * gain).astype(np.uint8)
    image = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
    shift = np.array([150, 60])
    points = ((astronaut_points() - shift + 0.5) * scale - 0.5).astype(np.float32)

    irises = estimate_irises(image, points)

    centres = (irises[:, :2] + 0.5) / scale - 0.5 + shift
    assert np.hypot(*(centres - astronaut_iris_centres()).T).max() < 0.05 * EYE_DISTANCE


def test_an_eye_without_contrast_gets_an_average_iris():
    """In a blank picture the irises lie in the middle of the eyes, of average size."""
    points = astronaut_points().astype(np.float32)
    irises = estimate_irises(np.full_like(astronaut(), 120), points)
    np.testing.assert_allclose(irises[:, :2], eye_centres(points), atol=1e-3)
    for iris, eye in zip(irises, EYES, strict=True):
        width = np.hypot(*(points[eye][3] - points[eye][0]))
        assert iris[2] == pytest.approx(0.195 * width, rel=1e-4)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_irises_stay_inside_their_eyes(seed):
    """Whatever the picture, an iris stays near its eye's middle and near anatomical size."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    points = (astronaut_points() / 8).astype(np.float32)
    irises = estimate_irises(small, points)
    for iris, eye in zip(irises, EYES, strict=True):
        width = np.hypot(*(points[eye][3] - points[eye][0]))
        assert np.hypot(*(iris[:2] - points[eye].mean(axis=0))) <= 0.3 * width
        assert 0.16 * width <= iris[2] * 1.001
        assert iris[2] <= 0.25 * width * 1.001
