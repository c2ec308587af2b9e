"""The small parts: curves, layers, the table of moves, the resting face, instructions."""

import numpy as np
import pytest

from pipeline.mesh import layers, rest
from pipeline.mesh.actions import SPOT_INDEX, moves
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.curves import along
from pipeline.mesh.drive import CLOSE, RELAX, drive
from pipeline.mesh.framing import Framing
from pipeline.mesh.masks import distance_outside
from pipeline.mesh.pose import coefficients
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls, FaceLandmarks
from tests.fakes.faces import astronaut


@pytest.fixture(scope="module")
def face() -> Anatomy:
    return Framing.of(astronaut(), (512, 512)).face(astronaut(), 1)


def with_closed_lips() -> FaceLandmarks:
    """The astronaut's landmarks with a level, closed mouth of resting width."""
    points = astronaut().landmarks.points.copy()
    middle = points[[62, 66]].mean(axis=0)
    for row in [*range(48, 68)]:
        points[row, 0] = middle[0] + 0.75 * (points[row, 0] - middle[0])
    for row in (48, 54, *range(60, 68)):
        points[row, 1] = middle[1]
    return FaceLandmarks(points, astronaut().landmarks.irises, "file")


def test_curves_pass_their_points_without_overshoot() -> None:
    """The cubic meets its knots in any order, stays within their range and is flat outside."""
    knots, values = [3.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.0]
    assert along(knots, knots, values) == pytest.approx(values)
    fine = along(np.linspace(-1, 4, 200), knots, values)
    assert fine.min() >= -1e-6
    assert fine.max() <= 1 + 1e-6
    assert along([-5.0, 9.0], knots, values) == pytest.approx([0.0, 0.0])


def test_a_sheet_is_half_covered_at_its_edge() -> None:
    """Opacity rises from nothing outside an edge over one half on it to all inside."""
    colour = np.zeros((1, 5, 3), np.uint8)
    inside = np.float32([[-0.05, -0.002, 0.0, 0.002, 0.05]])
    sheet = layers.with_edge(colour, inside)
    opacity = layers.look_up(layers.coverage_table(0.012), layers.edge_of(sheet))[0]
    assert opacity[[0, 2, 4]] == pytest.approx([0.0, 0.5, 1.0], abs=0.01)
    assert (np.diff(opacity) >= 0).all()


def test_a_part_holds_all_its_pixels_and_no_more() -> None:
    """The smallest rectangle round some pixels is found, within another one too, or none."""
    pixels = np.zeros((9, 12), bool)
    assert layers.part_with(pixels) is None
    pixels[2, 5] = pixels[6, 3] = True
    outer = layers.part_with(pixels)
    assert outer == (slice(2, 7), slice(3, 6))
    inner = layers.part_with(pixels[outer][2:, 1:])
    assert inner is None
    inner = layers.part_with(pixels[outer])
    assert layers.part_of(outer, inner) == outer


def test_equal_layers_blend_to_themselves() -> None:
    """Drawing a picture over itself changes nothing at any opacity."""
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    opacity = np.linspace(0, 1, 256, dtype=np.float32)[None]
    assert np.array_equal(layers.over(image, opacity, image), image)


def test_distances_are_negative_inside() -> None:
    """Signed distance to a square: half its side in the middle, growing outside."""
    square = np.float32([[0, 0], [2, 0], [2, 2], [0, 2]])
    at = np.float32([[1, 1], [3, 1], [2, 0.5]])
    assert distance_outside(square, at) == pytest.approx([-1.0, 1.0, 0.0], abs=1e-6)


def test_controls_move_their_own_side() -> None:
    """Left controls leave the right half alone; each is the other's mirror image."""
    left, right = moves("mouthSmileLeft"), moves("mouthSmileRight")
    assert left is not None
    assert right is not None
    assert left[SPOT_INDEX[54]] == pytest.approx(right[SPOT_INDEX[48]] * [-1, 1])
    assert not left[SPOT_INDEX[48]].any()
    assert left[SPOT_INDEX[54], 0] > 0 > left[SPOT_INDEX[54], 1]


def test_every_control_is_in_the_table_or_drawn_elsewhere() -> None:
    """Only gaze, which turns the eyeball, and the tongue have no moves of skin."""
    without = {name for name in ARKIT_BLENDSHAPES if moves(name) is None}
    assert without == {n for n in ARKIT_BLENDSHAPES if n.startswith("eyeLook")} | {
        "mouthClose", "tongueOut",
    }  # fmt: skip


def test_sideways_controls_are_opposites() -> None:
    """`jawLeft` takes the chin to the image's right, `jawRight` to its left."""
    left, right = moves("jawLeft"), moves("jawRight")
    assert left is not None
    assert right is not None
    assert left[8, 0] > 0 > right[8, 0]


def test_resting_smile_and_parting_are_measured(face: Anatomy) -> None:
    """The astronaut smiles broadly with parted lips; a closed level mouth does neither."""
    assert rest.smile(face) > 0.7
    assert rest.parting(face) > 0.08
    closed = Anatomy.of(with_closed_lips(), 1.0, (0.0, 0.0))
    assert rest.smile(closed) == pytest.approx(0.0, abs=0.02)
    assert rest.parting(closed) == pytest.approx(0.0, abs=1e-4)
    for moved in rest.relaxing_moves(closed):
        assert np.abs(moved).max() < 0.02


def test_relaxing_and_closing_bring_the_lips_together(face: Anatomy) -> None:
    """Both moves together leave no gap between the inner edges of the lips."""
    relaxing, closing = rest.relaxing_moves(face)
    p = face.to_face(face.points)
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        before = p[lower, 1] - p[upper, 1]
        after = before + (relaxing + closing)[lower, 1] - (relaxing + closing)[upper, 1]
        assert before > 0.05
        assert after < 0.02


def test_frowning_takes_the_smile_away_and_smiling_keeps_it() -> None:
    """What fights with a resting smile asks for it to go, unless a smile is asked for too."""
    frown = {"mouthFrownLeft": 0.8, "mouthFrownRight": 0.8}
    smile = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}
    sad = drive(FaceControls.of(**frown), 1.0).rows
    torn = drive(FaceControls.of(**frown, **smile), 1.0).rows
    calm = drive(FaceControls(), 1.0).rows
    assert sad[RELAX] > 0.9
    assert sad[CLOSE] > 0.9
    assert torn[RELAX] < 0.5 * sad[RELAX]
    assert not calm.any()


@pytest.mark.parametrize("held", [{}, {"eyeSquintLeft": 1.0}, {"eyeWideLeft": 1.0}])
def test_a_full_blink_shuts_any_eye(held: dict[str, float]) -> None:
    """Squinting or wide, at full blink the upper lid meets the lower one."""
    state = drive(FaceControls.of(eyeBlinkLeft=1.0, **held), 0.0).eyes[1]
    assert state.upper == pytest.approx(1.0)


def test_a_straight_head_has_no_pose() -> None:
    """Zero angles move nothing; opposite angles move opposite ways to first order."""
    assert not coefficients(FaceControls()).any()
    there, back = (coefficients(FaceControls(yaw=yaw)) for yaw in (5.0, -5.0))
    assert there[2] == pytest.approx(-back[2])
