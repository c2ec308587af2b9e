"""What the face does, measured on the picture."""

import numpy as np
import pytest

from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.framing import Framing
from pipeline.mesh.rig import Rig
from tests.fakes.faces import astronaut
from tests.fakes.looks import box, dark_share, difference, shift_of
from tests.pipeline.mesh.conftest import SIZE_PX, Draw


@pytest.fixture(scope="module")
def face() -> Anatomy:
    return Framing.of(astronaut(), SIZE_PX).face(astronaut(), 1)


def both(name: str, value: float) -> dict[str, float]:
    return {f"{name}Left": value, f"{name}Right": value}


@pytest.mark.parametrize("eye", [0, 1])
def test_a_blink_covers_the_iris(draw: Draw, face: Anatomy, eye: int) -> None:
    """The lid hides the dark iris, more and more as it closes, and shows skin in its place."""
    x, y, radius = face.irises[eye]
    shares = [
        dark_share(box(draw(**both("eyeBlink", value)), np.array([x, y]), radius, radius), 100)
        for value in (0.0, 0.5, 1.0)
    ]
    assert shares[0] > 0.8
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] < 0.1


def test_a_blink_keeps_the_iris_round(draw: Draw, face: Anatomy) -> None:
    """A half-closed lid covers the eye from above; what is below it does not move."""
    x, y, radius = face.irises[0]
    lower = np.array([x, y + 0.75 * radius])
    changed = difference(draw(**both("eyeBlink", 0.35)), draw())
    assert box(changed, lower, radius, 0.4 * radius).mean() < 12
    upper = np.array([x, y - 0.6 * radius])
    assert box(changed, upper, radius, 0.4 * radius).mean() > 12


def test_one_eye_blinks_alone(draw: Draw, face: Anatomy) -> None:
    """The character's left eye is the one at the image's right, and winks without the other."""
    changed = difference(draw(eyeBlinkLeft=1), draw())
    left, right = face.irises[1, :2], face.irises[0, :2]
    assert box(changed, left, 16, 10).mean() > 30
    assert box(changed, right, 16, 10).max() <= 2


def test_wide_eyes_show_more_white(draw: Draw, face: Anatomy) -> None:
    """Raised lids bare eyeball where there was lid."""
    x, y, radius = face.irises[0]
    above = np.array([x, y - 1.1 * radius])
    assert box(difference(draw(**both("eyeWide", 1)), draw()), above, 14, 6).mean() > 15


@pytest.mark.parametrize(
    ("controls", "axis", "sign"),
    [
        ({"eyeLookOutLeft": 1, "eyeLookInRight": 1}, 0, 1),
        ({"eyeLookInLeft": 1, "eyeLookOutRight": 1}, 0, -1),
        (both("eyeLookUp", 1), 1, -1),
        (both("eyeLookDown", 1), 1, 1),
    ],
)
def test_gaze_goes_where_it_is_sent(
    draw: Draw, face: Anatomy, controls: dict[str, float], axis: int, sign: int
) -> None:
    """Both irises go to the character's left, right, up and down."""
    for eye in face.irises:
        dark = [
            np.argwhere(box(frame, eye[:2], 5 * eye[2], 3 * eye[2]).mean(axis=-1) < 85)
            for frame in (draw(**both("eyeWide", 0.4)), draw(**both("eyeWide", 0.4), **controls))
        ]
        before, after = (np.median(pixels, axis=0)[1 - axis] for pixels in dark)
        assert sign * (after - before) > 1.5


def test_an_open_jaw_shows_the_inside_of_the_mouth(draw: Draw, face: Anatomy) -> None:
    """Between parted lips it is dark, with teeth above; the chin comes down, the nose stays."""
    frame, still = draw(jawOpen=0.8), draw()
    middle = face.to_face(face.points)[66]
    inside = face.to_pixels(middle + np.float32([0.0, 0.08]))
    assert dark_share(box(frame, inside, 24, 8), 75) > 0.7
    assert dark_share(box(still, inside, 24, 8), 75) < 0.1
    chin = face.to_pixels(face.to_face(face.points)[8] - np.float32([0.0, 0.12]))
    assert shift_of(still, frame, chin)[1] > 12
    assert np.abs(shift_of(still, frame, face.points[30])).max() <= 1


def test_a_dropping_chin_covers_the_neck(draw: Draw, face: Anatomy) -> None:
    """The jaw passes in front of the neck; the collar below is not pushed down with it."""
    changed = difference(draw(jawOpen=0.5), draw())
    collar = face.to_pixels(face.to_face(face.points)[8] + np.float32([0.0, 0.45]))
    assert box(changed, collar, 60, 10).max() <= 2


def test_a_smile_raises_the_corners_and_a_frown_lowers_them(draw: Draw, face: Anatomy) -> None:
    """Lip corners go up and out with a smile, down with a frown; each side by itself."""
    calm = draw(mouthClose=0.5, **both("mouthFrown", 0.15))
    framed = {54: 1, 48: -1}
    for corner, outwards in framed.items():
        spot = face.points[corner] + np.float32([-outwards * 4, 14])
        smile = shift_of(calm, draw(**both("mouthSmile", 1)), spot, 30)
        frown = shift_of(calm, draw(mouthClose=0.5, **both("mouthFrown", 0.9)), spot, 30)
        assert smile[1] < -3
        assert frown[1] > 3


def test_lips_close_over_the_teeth(draw: Draw, face: Anatomy) -> None:
    """The portrait smiles with its teeth showing; closing the lips hides them."""
    teeth = face.points[[62, 66]].mean(axis=0)

    def white(**controls: float) -> float:
        part = box(draw(**controls), teeth, 50, 14).astype(float)
        return float(((part.min(axis=-1) > 190) & (np.ptp(part, axis=-1) < 45)).mean())

    showing = white()
    assert showing > 0.4
    for controls in (
        {"mouthClose": 1.0},
        both("mouthPress", 1.0),
        both("mouthFrown", 1.0),
        {"mouthPucker": 1.0},
    ):
        assert white(**controls) < 0.2 * showing  # lips shine too


def test_brows_rise_and_come_down(draw: Draw, face: Anatomy) -> None:
    """Inner brows go up for `browInnerUp`, all of a brow down for `browDown`, and not the eyes."""
    still = draw()
    inner = face.points[[20, 21]].mean(axis=0)
    assert shift_of(still, draw(browInnerUp=1), inner)[1] < -5
    assert shift_of(still, draw(**both("browDown", 1)), inner)[1] > 3
    outer = face.points[[17, 18, 19]].mean(axis=0)
    assert shift_of(still, draw(**both("browOuterUp", 1)), outer)[1] < -5


@pytest.mark.parametrize(
    ("controls", "axis", "sign"),
    [({"yaw": 10.0}, 0, -1), ({"yaw": -10.0}, 0, 1), ({"pitch": 10.0}, 1, 1),
     ({"pitch": -10.0}, 1, -1)],
)  # fmt: skip
def test_the_nose_leads_a_turning_head(
    draw: Draw, face: Anatomy, controls: dict[str, float], axis: int, sign: int
) -> None:
    """Positive yaw takes the nose to the image's left, positive pitch down; the ears stay back."""
    nose = shift_of(draw(), draw(**controls), face.points[30])[axis]
    cheek = shift_of(draw(), draw(**controls), face.points[2] + np.float32([12, 0]))[axis]
    assert sign * nose > 8
    assert sign * (nose - cheek) > 4


def test_positive_roll_tilts_the_head_to_the_right(draw: Draw, face: Anatomy) -> None:
    """The brows go to the image's right, and the eye there comes down."""
    still, rolled = draw(), draw(roll=8.0)
    brows = face.points[[21, 22]].mean(axis=0)
    assert shift_of(still, rolled, brows)[0] > 4
    assert shift_of(still, rolled, face.irises[1, :2])[1] > 2
    assert shift_of(still, rolled, face.irises[0, :2])[1] < -2


def test_large_turns_saturate(draw: Draw) -> None:
    """Beyond what one photo can show, a turn grows less and less instead of tearing the face."""
    at_15, at_30, at_45 = (draw(yaw=yaw).astype(float) for yaw in (15.0, 30.0, 45.0))
    assert np.abs(at_45 - at_30).mean() < 0.5 * np.abs(at_30 - at_15).mean()


@pytest.mark.parametrize(
    "controls",
    [
        pytest.param(both("mouthFrown", 0.9), id="frown"),
        pytest.param({"jawOpen": 0.5, "yaw": 12.0, "pitch": 8.0}, id="turned, open"),
        pytest.param(both("mouthSmile", 0.9) | both("cheekSquint", 0.8), id="smile"),
    ],
)
def test_no_seam_shows_where_layers_end(draw: Draw, rig: Rig, controls: dict[str, float]) -> None:
    """The rectangles in which the mouth is drawn have no visible border."""
    grey = draw(**controls).astype(float).mean(axis=-1)
    for window in (rig.mouth.slot.inner, rig.mouth.skin.inner):
        columns = grey[:, window.left : window.left + window.width]
        rows = grey[window.top : window.top + window.height].T
        borders = [(columns, window.top), (columns, window.top + window.height)]
        borders += [(rows, window.left), (rows, window.left + window.width)]
        for lines, at in borders:
            steps = np.abs(np.diff(lines[at - 5 : at + 5], axis=0)).mean(axis=1)
            assert steps[4] < 1.5 * np.delete(steps, 4).max() + 0.3
