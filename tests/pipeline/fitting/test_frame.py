import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fitting.frame import FaceFrame, Window

PLACES = st.floats(-500, 500)


@given(PLACES, PLACES, st.floats(0.5, 400), st.floats(-3, 3))
def test_there_and_back(x, y, unit, roll):
    """Face coordinates of a picture's point lead back to it."""
    frame = FaceFrame(x, y, unit, roll)
    points = np.array([(0, 0), (-0.5, 0), (0.5, 0), (0.2, 1.7)])
    np.testing.assert_allclose(frame.to_face(frame.to_image(points)), points, atol=2e-3)


def test_eyes_lie_half_a_unit_to_either_side():
    """The frame of two eyes has them at (-0.5, 0) and (0.5, 0), and y points down the face."""
    left, right = np.array([100.0, 200.0]), np.array([160.0, 280.0])
    frame = FaceFrame.from_eyes(left, right)
    np.testing.assert_allclose(frame.to_image([(-0.5, 0), (0.5, 0)]), [left, right], rtol=1e-6)
    assert frame.unit == 100
    np.testing.assert_allclose(frame.to_image([(0, 1)])[0], [130 - 80, 240 + 60], rtol=1e-5)


def test_windows_convert_between_units_and_samples():
    """Samples lie from edge to edge of a window; a mirrored one covers the mirrored place."""
    window = Window(-0.5, 0.0, 0.25, 1.0, 40.0)
    assert window.shape == (41, 31)
    x, y = window.grid()
    assert (x[0, 0], y[0, 0], x[-1, -1], y[-1, -1]) == (-0.5, 0.0, 0.25, 1.0)
    np.testing.assert_allclose(window.pixels([(0.25, 1.0)]), [(30, 40)])
    np.testing.assert_allclose(window.units([(30, 40)]), [(0.25, 1.0)])
    assert window.mirrored() == Window(-0.25, 0.0, 0.5, 1.0, 40.0)
    assert window.moved(1, 2) == Window(0.5, 2.0, 1.25, 3.0, 40.0)


def ramp(height, width):
    rows, columns = np.indices((height, width))
    return np.dstack([columns, rows, np.zeros_like(rows)]).astype(np.uint8)


@pytest.mark.parametrize("px", [5.0, 15.0, 40.0, 160.0])
def test_sampling_lands_on_the_same_place_at_every_density(px):
    """A sample shows the pixel that its face coordinates name, coarse or fine."""
    frame = FaceFrame(100, 90, 40, 0.2)
    window = Window(-1, -1, 1, 1, px)
    patch = frame.sample(ramp(200, 200), window)
    x, y = window.grid()
    places = frame.to_image(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(*x.shape, 2)
    np.testing.assert_allclose(patch[..., :2], places, atol=1.0)


def test_shrinking_averages():
    """A checkerboard sampled coarsely is grey, not one of its colours."""
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    image = np.dstack([board] * 3).astype(np.uint8)
    patch = FaceFrame(128, 128, 64, 0.3).sample(image, Window(-1, -1, 1, 1, 6.0))
    assert np.abs(patch[1:-1, 1:-1] - 127.5).max() < 20


def test_outside_the_picture_its_edges_go_on():
    """A window beside the picture shows the nearest edge."""
    image = np.zeros((50, 50, 3), np.uint8)
    image[:, -1] = 200
    for shift in (30, 500):
        patch = FaceFrame(50 + shift, 25, 10, 0.0).sample(image, Window(-1, -1, 1, 1, 10.0))
        assert (patch == 200).all()


def test_sampling_agrees_with_opencv_for_a_plain_copy():
    """Level and at scale one, sampling is bilinear interpolation."""
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    patch = FaceFrame(30.25, 29.5, 20, 0.0).sample(image, Window(-1, -1, 1, 1, 20.0))
    wanted = cv2.getRectSubPix(image.astype(np.float32), (41, 41), (30.25, 29.5))
    np.testing.assert_allclose(patch, wanted, atol=0.6)
