from functools import cache

import cv2
import numpy as np
import pytest
from skimage import data

from pipeline.errors import PortraitError
from pipeline.faces import FoundFace, find_face
from pipeline.landmarks import EYES, MOUTH_CORNERS, check_geometry, eye_centres
from pipeline.types import FaceLandmarks
from tests.fakes.photos import MIRRORED, astronaut, astronaut_points

CORNERS = [36, 39, 42, 45, *MOUTH_CORNERS]
HEAD = astronaut()[:340, 55:395]  # less to search than the whole photo
POINTS = astronaut_points() - (55, 0)
MIDDLE = (170.0, 130.0)
NOISE = np.random.default_rng(3)


def warped(matrix):
    """The astronaut and the hand-placed points under an affine map."""
    matrix = np.asarray(matrix, float)
    image = cv2.warpAffine(
        HEAD, matrix, (340, 340), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return image, POINTS @ matrix[:, :2].T + matrix[:, 2]


def turned(degrees):
    return warped(cv2.getRotationMatrix2D(MIDDLE, degrees, 1.0))


def stretched(across, along):
    return warped([[across, 0, (1 - across) * MIDDLE[0]], [0, along, (1 - along) * MIDDLE[1]]])


def scaled(factor):
    flags = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = cv2.resize(HEAD, None, fx=factor, fy=factor, interpolation=flags)
    return image, (POINTS + 0.5) * factor - 0.5


def mirrored():
    return HEAD[:, ::-1].copy(), (POINTS * (-1, 1) + (339, 0))[list(MIRRORED)]


def exposed(gain):
    return np.clip(HEAD * np.asarray(gain), 0, 255).astype(np.uint8), POINTS


def noisy(sigma):
    noise = NOISE.normal(0, sigma, HEAD.shape)
    return np.clip(HEAD + noise, 0, 255).astype(np.uint8), POINTS


def grey():
    one = cv2.cvtColor(HEAD, cv2.COLOR_RGB2GRAY)
    return np.dstack([one, one, one]), POINTS


SIDE_LIGHT = np.linspace(0.35, 1.3, 340)[:, None]

VARIANTS = {
    "the whole photo": lambda: (astronaut(), astronaut_points()),
    "mirrored": mirrored,
    "turned left": lambda: turned(-10),
    "turned right": lambda: turned(10),
    "turned far": lambda: turned(20),
    "half the size": lambda: scaled(0.5),
    "twice the size": lambda: scaled(2),
    "wider": lambda: stretched(1.08, 0.97),
    "longer": lambda: stretched(0.95, 1.07),
    "noisy": lambda: noisy(20),
    "darker": lambda: exposed(0.4),
    "brighter": lambda: exposed(1.25),
    "warmer": lambda: exposed((1.15, 1.0, 0.75)),
    "lit from the side": lambda: exposed(SIDE_LIGHT),
    "grey": grey,
}


@cache
def fitted():
    return find_face(astronaut(), "astronaut")


@pytest.mark.parametrize("variant", VARIANTS)
def test_landmarks_lie_where_a_person_puts_them(variant):
    """Within 6 % of the eyes' distance on average, eye and mouth corners within 5.5 %."""
    image, points = VARIANTS[variant]()

    found = find_face(image, variant).landmarks

    distance = np.hypot(*np.diff(eye_centres(points.astype(np.float32)), axis=0)[0])
    error = np.hypot(*(found.points - points).T) / distance
    assert error.mean() < 0.06
    assert error[CORNERS].mean() < 0.055
    assert error[17:].max() < 0.2
    iris_error = np.hypot(*(found.irises[:, :2] - [points[eye].mean(axis=0) for eye in EYES]).T)
    assert iris_error.max() < 0.1 * distance


def test_fitted_landmarks_say_so():
    """The source is named and the warning tells what would be better."""
    face = fitted()
    assert face.landmarks.source == "fitted"
    assert len(face.warnings) == 1
    assert "landmarks file" in face.warnings[0]
    check_geometry(face.landmarks.points, "astronaut")


def test_the_same_picture_gives_the_same_landmarks():
    """Fitting has no chance in it."""
    again = find_face(astronaut().copy(), "again").landmarks
    np.testing.assert_array_equal(again.points, fitted().landmarks.points)
    np.testing.assert_array_equal(again.irises, fitted().landmarks.irises)


def text():
    return np.dstack([data.text()] * 3)


def blobs():
    """Soft dark and bright spots, as face-like as chance makes them."""
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.normal(0, 1, (384, 384, 3)), (0, 0), 9)
    return np.clip(smooth * 900 + 128, 0, 255).astype(np.uint8)


FACELESS = {
    "cat": data.cat,
    "rocket": data.rocket,
    "coffee": data.coffee,
    "text": text,
    "blobs": blobs,
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (256, 384, 3), dtype=np.uint8),
    "blank": lambda: np.full((400, 300, 3), 200, np.uint8),
    "tiny": lambda: np.full((3, 5, 3), 7, np.uint8),
    "thin": lambda: np.full((4, 3000, 3), 7, np.uint8),
    "half a face": astronaut()[:, 225:].copy,
    "upside down": astronaut()[::-1, ::-1].copy,
}


@pytest.mark.parametrize("picture", FACELESS)
def test_no_face_is_an_error_that_helps(picture):
    """Animals, things, texture and text are refused with what to do, never fitted."""
    with pytest.raises(PortraitError) as caught:
        find_face(np.ascontiguousarray(FACELESS[picture]()), picture)
    assert caught.value.no_face
    assert str(caught.value).startswith(f"{picture}: no face found; use a sharp photo")


def test_faces_are_told_from_what_only_looks_like_one():
    """Of small blurred snapshots nearly every face is found, and nothing else is."""
    patches = np.asarray(data.lfw_subset())[::20]  # the first half are faces
    found = []
    for patch in patches:
        framed = np.pad(patch.astype(np.float32), 8, mode="edge") * 255
        large = np.clip(cv2.resize(framed, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC), 0, 255)
        try:
            find_face(np.dstack([large.astype(np.uint8)] * 3), "snapshot")
        except PortraitError as error:
            found.append(not error.no_face)
        else:
            found.append(True)
    faces = np.arange(0, 200, 20) < 100
    assert np.array(found)[faces].mean() >= 0.8
    assert not np.array(found)[~faces].any()


def test_the_largest_of_several_faces_is_used_with_a_warning():
    """Of two people the larger one is fitted, and the owner is told."""
    image = np.full((512, 800, 3), 180, np.uint8)
    image[:, :512] = astronaut()
    small = cv2.resize(
        astronaut()[:300, 80:380], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA
    )
    image[200:440, 540:780] = small

    face = find_face(image, "two")

    off = np.hypot(*(face.landmarks.points - astronaut_points()).T)
    assert off.mean() < 3
    assert any("2 faces found" in warning for warning in face.warnings)
    assert face.rivals == 1


def test_a_face_of_a_few_pixels_is_refused():
    """A face that cannot be animated is no usable face."""
    image = scaled(0.3)[0]
    with pytest.raises(PortraitError, match=r"only .* pixels wide") as caught:
        find_face(image, "far away")
    assert caught.value.no_face


class Scripted:
    """A detector that finds or refuses as told."""

    def __init__(self, outcome):
        self.outcome = outcome

    def find(self, image, name):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


FOUND = FoundFace(FaceLandmarks(astronaut_points(), np.ones((2, 3), np.float32), "insightface"))
NOBODY = PortraitError("x", "nobody there", no_face=True)


def test_detectors_are_asked_in_order_of_trust():
    """The first that sees a face decides; the next is asked where it sees none."""
    other = FoundFace(FOUND.landmarks, ("other",))
    assert find_face(astronaut(), "x", [Scripted(FOUND), Scripted(other)]) is FOUND
    assert find_face(astronaut(), "x", [Scripted(NOBODY), Scripted(other)]) is other


def test_the_last_detectors_refusal_is_the_answer():
    """Where none sees a face, the last says so; another kind of error ends the search."""
    with pytest.raises(PortraitError, match="nobody"):
        find_face(
            astronaut(), "x", [Scripted(PortraitError("x", "?", no_face=True)), Scripted(NOBODY)]
        )
    broken = PortraitError("x", "unreadable")
    with pytest.raises(PortraitError, match="unreadable"):
        find_face(astronaut(), "x", [Scripted(broken), Scripted(FOUND)])
