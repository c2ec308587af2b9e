import cv2
import numpy as np

from pipeline.fitting.frame import FaceFrame
from pipeline.fitting.mouth import fit_mouth
from pipeline.landmarks import eye_centres
from tests.fakes.photos import astronaut, astronaut_points

FRAME = FaceFrame.from_eyes(*eye_centres(astronaut_points().astype(np.float32)))


def with_closed_lips():
    """The astronaut with lips painted over the teeth, and a dark line between them."""
    image = astronaut().copy()
    points = astronaut_points()
    fixed = [np.round(points[60:68] * 16).astype(np.int32)]
    lip = np.median(image[151:154, 213:235].reshape(-1, 3), axis=0)  # her lower lip
    cv2.fillPoly(image, fixed, lip.tolist(), cv2.LINE_AA, shift=4)
    seam = np.round((points[[60, 61, 62, 63, 64]] + points[[60, 67, 66, 65, 64]]) * 8)
    cv2.polylines(image, [seam.astype(np.int32)], False, (120, 60, 60), 1, cv2.LINE_AA, shift=4)
    return image


def gap(fit):
    """Distance of the lips' inner edges in the middle, face units."""
    upper, lower = fit.points[[13, 14, 15]], fit.points[[19, 18, 17]]
    return float((lower - upper)[:, 1].mean())


def test_parted_lips_are_seen_by_the_teeth():
    """A smile with teeth has a gap between the inner edges, about as wide as it is."""
    points = FRAME.to_face(astronaut_points())
    true = float((points[[67, 66, 65]] - points[[61, 62, 63]])[:, 1].mean())
    assert abs(gap(fit_mouth(astronaut(), FRAME)) - true) < 0.05


def test_closed_lips_touch():
    """Painted over, the same mouth has no gap, and its line lies on the painted one."""
    fit = fit_mouth(with_closed_lips(), FRAME)
    assert gap(fit) < 0.02
    points = FRAME.to_face(astronaut_points())
    painted = (points[[61, 62, 63]] + points[[67, 66, 65]])[:, 1].mean() / 2
    assert abs(fit.points[13:16, 1].mean() - painted) < 0.06


def test_a_mouth_that_is_not_there_scores_low():
    """On plain skin the mouth stays near the average and says that nothing speaks for it."""
    plain = np.full_like(astronaut(), (205, 170, 150))
    fit = fit_mouth(plain, FRAME)
    assert fit.score < 1
    assert abs(fit.middle[0]) < 0.1
    assert 0.9 < fit.middle[1] < 1.4
    assert np.isfinite(fit.points).all()
