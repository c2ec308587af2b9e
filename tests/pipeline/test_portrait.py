import json
import shutil

import cv2
import numpy as np
import pytest

from pipeline.decoding import MAX_BYTES
from pipeline.errors import PortraitError
from pipeline.faces import FoundFace
from pipeline.landmark_sets import IBUG_FROM_106
from pipeline.landmarks import eye_centres
from pipeline.portrait import EYE_LINE, FACE_SHARE, MAX_SIDE_PX, load_portrait, portrait_from_bytes
from pipeline.types import FaceLandmarks
from tests.fakes.photos import LANDMARKS, as_106, astronaut, astronaut_points, jpeg, png

IRISES = [[202.5, 100.2, 4], [246.7, 102.6, 4]]


@pytest.fixture
def photo(tmp_path):
    """The astronaut as a PNG file with nothing beside it."""
    path = tmp_path / "astronaut.png"
    path.write_bytes(png(astronaut()))
    return path


class Placed:
    """A detector that finds the astronaut's face moved and scaled, wherever it looks."""

    def __init__(self, shift=(0.0, 0.0), scale=1.0, warnings=()):
        points = (astronaut_points() + shift) * scale
        irises = (np.array(IRISES) + np.array([*shift, 0])) * scale
        self.face = FoundFace(FaceLandmarks(points, irises, "insightface"), warnings)

    def find(self, image, name):
        return self.face


def beside(photo, name, **changes):
    value = json.loads(LANDMARKS.read_text()) | {"irises": IRISES} | changes
    path = photo.with_name(name)
    path.write_text(json.dumps(value))
    return path


def shift_of(portrait):
    """By how much the landmarks moved, the same for each."""
    shifts = astronaut_points() - portrait.landmarks.points
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[0], shifts.shape), atol=1e-3)
    return shifts[0]


def test_a_portrait_is_cropped_to_head_and_shoulders(photo):
    """The crop is a square with the face's usual share, eyes at the usual height."""
    beside(photo, "landmarks.json")

    loaded = load_portrait(photo)

    height, width, _ = loaded.portrait.image.shape
    points = loaded.portrait.landmarks.points
    assert height == width
    assert np.hypot(*(points[16] - points[0])) / width == pytest.approx(FACE_SHARE, abs=0.01)
    assert eye_centres(points)[:, 1].mean() / height == pytest.approx(EYE_LINE, abs=0.01)
    assert eye_centres(points)[:, 0].mean() / width == pytest.approx(0.5, abs=0.02)
    assert loaded.portrait.name == "astronaut"
    assert loaded.warnings == ()


def test_landmarks_move_into_the_crop(photo):
    """Landmarks and irises stay on the same pixels of the face."""
    beside(photo, "landmarks.json")
    portrait = load_portrait(photo).portrait

    left, top = shift_of(portrait).round().astype(int)
    side = portrait.image.shape[0]
    np.testing.assert_array_equal(portrait.image, astronaut()[top : top + side, left : left + side])
    np.testing.assert_allclose(
        portrait.landmarks.irises, np.array(IRISES) - (left, top, 0), atol=1e-3
    )
    assert portrait.landmarks.source == "file"


def test_the_picture_is_read_only(photo):
    """Nobody changes a portrait that others share."""
    beside(photo, "landmarks.json")
    with pytest.raises(ValueError, match="read-only"):
        load_portrait(photo).portrait.image[0, 0] = 0


def test_landmarks_are_taken_from_the_nearest_place(photo, tmp_path):
    """A file that is named beats the portrait's own, which beats the folder's."""
    detectors = [Placed()]
    assert load_portrait(photo, detectors=detectors).portrait.landmarks.source == "insightface"

    beside(photo, "landmarks.json", irises=[[203, 100, 3], [246, 102, 3]])
    assert load_portrait(photo).portrait.landmarks.irises[0, 2] == 3
    beside(photo, "astronaut.landmarks.json", irises=[[203, 100, 4], [246, 102, 4]])
    assert load_portrait(photo).portrait.landmarks.irises[0, 2] == 4
    (tmp_path / "elsewhere").mkdir()
    named = beside(tmp_path / "elsewhere" / "x", "mine.json", irises=[[203, 100, 5], [246, 102, 5]])
    assert load_portrait(photo, landmarks=named).portrait.landmarks.irises[0, 2] == 5


def test_106_points_move_into_the_crop_with_the_others(tmp_path):
    """They stay on the same pixels of the face, cropped and scaled."""
    image = cv2.resize(astronaut(), None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    photo = tmp_path / "large.jpg"
    photo.write_bytes(jpeg(image))
    points = (as_106(astronaut_points()) + 0.5) * 4 - 0.5
    (tmp_path / "landmarks.json").write_text(json.dumps(points.tolist()))

    loaded = load_portrait(photo, crop=(200, 0, 1280, 1280))

    landmarks = loaded.portrait.landmarks
    scale = MAX_SIDE_PX / 1280
    expected = (points - (200, 0) + 0.5) * scale - 0.5
    np.testing.assert_allclose(landmarks.dense, expected, atol=1e-2)
    np.testing.assert_allclose(landmarks.points, expected[list(IBUG_FROM_106)], atol=1e-2)
    assert loaded.warnings == ()


def test_106_points_in_another_order_are_told(photo):
    """Eyes and mouth count; the owner is told that the rest is an average face."""
    points = as_106(astronaut_points())
    kept = {33, 35, 39, 40, 52, 61, 87, 89, 93, 94}
    others = [i for i in range(106) if i not in kept]
    points[others] = np.random.default_rng(1).permutation(points[others])
    photo.with_name("landmarks.json").write_text(json.dumps(points.tolist()))
    loaded = load_portrait(photo)
    assert loaded.portrait.landmarks.source == "anchors"
    assert "check their order" in loaded.warnings[0]


def test_a_broken_landmarks_file_is_an_error_not_a_guess(photo):
    """A file that is there but wrong is reported; the face is not fitted instead."""
    beside(photo, "landmarks.json", points=[[1, 1]])
    with pytest.raises(PortraitError, match=r"landmarks\.json: points: expected 68"):
        load_portrait(photo, detectors=[Placed()])
    with pytest.raises(PortraitError, match=r"missing\.json: cannot be read"):
        load_portrait(photo, landmarks=photo.with_name("missing.json"))


def test_without_a_file_the_face_is_found(photo):
    """A bare photo gives a portrait with fitted landmarks and a warning."""
    loaded = load_portrait(photo)
    portrait = loaded.portrait
    assert portrait.landmarks.source == "fitted"
    assert "landmarks file" in loaded.warnings[0]
    shift = (astronaut_points() - portrait.landmarks.points).mean(axis=0)
    off = np.hypot(*(portrait.landmarks.points + shift - astronaut_points()).T)
    assert off.mean() < 3


def test_a_photo_without_a_face_is_refused(photo):
    """No face is said so, with the file's name."""
    photo.write_bytes(png(np.full((300, 300, 3), 90, np.uint8)))
    with pytest.raises(PortraitError, match=r"astronaut\.png: no face found") as caught:
        load_portrait(photo)
    assert caught.value.no_face


def test_a_given_crop_is_taken_as_it_is(photo):
    """A crop of any shape is cut out without stretching."""
    beside(photo, "landmarks.json")
    portrait = load_portrait(photo, crop=(100, 20, 240, 300)).portrait
    np.testing.assert_array_equal(portrait.image, astronaut()[20:320, 100:340])
    np.testing.assert_allclose(shift_of(portrait), (100, 20))


@pytest.mark.parametrize(
    ("crop", "match"),
    [
        ((-1, 0, 200, 200), "reaches outside the picture of 512 x 512"),
        ((400, 0, 200, 200), "reaches outside"),
        ((100, 20, 240, 0), r"expected \[x, y, width, height\]"),
        ((100, 20, float("nan"), 240), r"expected \[x, y, width, height\]"),
        ((210, 20, 240, 240), "cuts the face off"),
        ((300, 300, 100, 100), "cuts the face off"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(photo, crop, match):
    """A crop outside the picture or through the face says what is wrong."""
    beside(photo, "landmarks.json")
    with pytest.raises(PortraitError, match=match):
        load_portrait(photo, crop=crop)


def test_a_face_near_the_edge_stays_inside_the_picture(tmp_path):
    """The crop moves rather than invent pixels."""
    image = astronaut()[40:, 150:]
    loaded = portrait_from_bytes(png(image), "edge", detectors=[Placed((-150, -40))])
    portrait = loaded.portrait
    assert portrait.image.shape[0] == portrait.image.shape[1]
    assert loaded.warnings == ()
    shift = shift_of(portrait)
    assert shift[0] == 150


def test_a_face_that_fills_the_picture_is_framed_with_extended_edges():
    """Where nothing is around the face, edges are repeated and the owner is told."""
    image = astronaut()[75:190, 172:278]
    loaded = portrait_from_bytes(png(image), "close", detectors=[Placed((-172, -75))])
    height, width, _ = loaded.portrait.image.shape
    assert height == width > 115
    assert any("edges were extended" in warning for warning in loaded.warnings)
    points = loaded.portrait.landmarks.points
    assert points.min() >= 0
    assert points.max() <= width - 1


def test_a_wide_picture_is_not_stretched():
    """From a panorama a square is cut, not squeezed."""
    wide = np.full((400, 1200, 3), 128, np.uint8)
    wide[:, 300:812] = astronaut()[:400]
    loaded = portrait_from_bytes(png(wide), "wide", detectors=[Placed((300, 0))])
    assert loaded.portrait.image.shape[0] == loaded.portrait.image.shape[1]
    shift_of(loaded.portrait)


def test_a_large_picture_is_reduced_with_its_landmarks():
    """No more pixels are kept than any frame shows; the face stays where it was."""
    large = np.repeat(np.repeat(astronaut(), 6, axis=0), 6, axis=1)
    x, y = (astronaut_points()[30] * 6 + 2.5).round().astype(int)
    large[y - 9 : y + 10, x - 9 : x + 10] = (0, 255, 0)  # on the tip of the nose
    detector = Placed((0.5 - 0.5 / 6, 0.5 - 0.5 / 6), 6.0)  # pixel centres of a sixfold copy
    portrait = portrait_from_bytes(png(large), "large", detectors=[detector]).portrait

    assert portrait.image.shape == (MAX_SIDE_PX, MAX_SIDE_PX, 3)
    points = portrait.landmarks.points
    assert np.hypot(*(points[16] - points[0])) == pytest.approx(MAX_SIDE_PX * FACE_SHARE, rel=0.01)
    colours = portrait.image.astype(int)
    rows, columns = np.nonzero(colours[..., 1] - colours[..., 0] > 150)
    assert np.hypot(columns.mean() - points[30, 0], rows.mean() - points[30, 1]) < 0.6


def test_a_small_face_is_mentioned():
    """A face of sixty pixels works, and the owner hears that it will be soft."""
    half = np.ascontiguousarray(astronaut()[::2, ::2])
    loaded = portrait_from_bytes(png(half), "small", detectors=[Placed((0, 0), 0.5)])
    assert any("at least 80 pixels" in warning for warning in loaded.warnings)


def test_the_detectors_warnings_are_passed_on(photo):
    """What the detector has to say reaches the owner."""
    loaded = load_portrait(photo, detectors=[Placed(warnings=("two people",))])
    assert loaded.warnings == ("two people",)


def test_the_key_tells_pictures_and_landmarks_apart(photo, tmp_path):
    """Same content, same key, whatever the name; other pixels or points, another key."""
    beside(photo, "landmarks.json")
    key = load_portrait(photo).portrait.key
    copy = tmp_path / "copy.png"
    shutil.copy(photo, copy)
    assert load_portrait(copy).portrait.key == key
    assert load_portrait(copy, crop=(100, 20, 240, 240)).portrait.key != key

    beside(photo, "landmarks.json", irises=[[203, 100, 3], [246, 102, 3]])
    assert load_portrait(photo).portrait.key != key
    beside(photo, "landmarks.json")
    changed = astronaut().copy()
    changed[150, 230] ^= 1
    copy.write_bytes(png(changed))
    assert load_portrait(copy).portrait.key != key


def test_points_beside_the_68_are_part_of_the_key(photo):
    """LivePortrait frames the face by them, so another set is another picture."""
    keys = set()
    for move in (0, 0, 1):
        points = as_106(astronaut_points())
        points[[2, 4]] += move  # no iBUG point is taken from these
        photo.with_name("landmarks.json").write_text(json.dumps(points.tolist()))
        keys.add(load_portrait(photo).portrait.key)
    assert len(keys) == 2


def test_uploads_are_portraits_too():
    """Bytes with a name are loaded as a file is."""
    loaded = portrait_from_bytes(jpeg(astronaut()), "upload.jpg", detectors=[Placed()])
    assert loaded.portrait.name == "upload.jpg"
    assert loaded.portrait.landmarks.source == "insightface"


def test_upload_limits_are_the_callers():
    """Bytes and pixels beyond the limits given are too large."""
    data = png(astronaut())
    with pytest.raises(PortraitError) as caught:
        portrait_from_bytes(data, "upload", max_bytes=len(data) - 1)
    assert caught.value.too_large
    with pytest.raises(PortraitError) as caught:
        portrait_from_bytes(data, "upload", max_pixels=512 * 512 - 1)
    assert caught.value.too_large


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    """A missing file, a folder and a file beyond the limit are portrait errors."""
    with pytest.raises(PortraitError, match=r"none\.png: cannot be read: No such file"):
        load_portrait(tmp_path / "none.png")
    with pytest.raises(PortraitError, match="cannot be read: Is a directory"):
        load_portrait(tmp_path)
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(PortraitError, match="more than 16 MiB") as caught:
        load_portrait(big)
    assert caught.value.too_large
