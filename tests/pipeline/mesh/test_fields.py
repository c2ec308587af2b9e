"""Fields: interpolation, inversion, and no folds."""

import numpy as np
import pytest

from pipeline.mesh.drive import ROWS, drive
from pipeline.mesh.fields import Grid, Window, enlarged, interpolator, inverted, steepest_fold
from pipeline.mesh.rig import Rig
from pipeline.types import FaceControls, Float32Array
from tests.pipeline.mesh.test_renderer import random_controls


def bump(grid: Grid, height: float, width: float) -> Float32Array:
    """A smooth push to the right and down in the middle of a grid."""
    at = grid.nodes() - [grid.left + grid.width / 2, grid.top + grid.height / 2]
    push = height * np.exp(-0.5 * (at**2).sum(axis=-1) / width**2)
    return np.stack([push, 0.5 * push], axis=-1).astype(np.float32)


def test_nodes_lie_where_enlarging_puts_them() -> None:
    """Enlarging the nodes' own positions gives every pixel its position, away from the border."""
    grid = Grid(left=7, top=3, columns=12, rows=9, stride=5)
    pixels = enlarged(grid.nodes(), grid.width, grid.height)
    assert pixels[20, 31] == pytest.approx([7 + 31, 3 + 20], abs=1e-3)


def test_interpolation_meets_its_spots_and_fades() -> None:
    """A spread move is the move itself at its spot, and nothing far from all spots."""
    spots = np.float32([[0, 0], [0.4, 0], [0, 0.5]])
    weights = interpolator(spots, np.float32([[0, 0], [0.4, 0], [9, 9]]))
    assert weights[:2] == pytest.approx(np.eye(3)[:2], abs=0.02)
    assert np.abs(weights[2]).max() < 1e-6


@pytest.mark.parametrize("height", [-14.0, 4.0, 14.0])
def test_inversion_finds_where_each_node_rests(height: float) -> None:
    """Moving on from the place found by the field there leads back to the node."""
    grid = Grid(0, 0, 40, 40, 4)
    forward = bump(grid, height, 24.0)
    backward = inverted(forward, grid.indices(), grid.stride, steps=8)
    rests = grid.nodes() - backward
    at = np.rint((rests - 1.5) / 4).astype(int).clip(0, 39)
    there = forward[at[..., 1], at[..., 0]]
    assert np.abs(rests + there - grid.nodes())[5:-5, 5:-5].mean() < 0.5


def test_parts_of_a_window_join_without_a_seam() -> None:
    """What a window shows does not depend on whether it is drawn at once or part by part."""
    outer = Grid(6, 8, 30, 30, 4)
    window = Window.of(outer, outer.block(4, 4, 26, 26), Grid(10, 12, 250, 250, 1), 2)
    patch = np.random.default_rng(3).integers(0, 256, (250, 250, 4), np.uint8)
    nodes = window.nodes(bump(outer, 7.0, 24.0))
    whole = window.sampled(patch, nodes, window.inner)
    for block in ((0, 0, 22, 9), (0, 9, 8, 22), (8, 9, 22, 22)):
        part = window.inner.block(*block)
        shown = window.sampled(patch, nodes, part)
        assert np.array_equal(shown, whole[window.inner.slices(part)])


def test_an_unmoved_window_shows_its_patch() -> None:
    """Without a field, every pixel is the mean of the patch's pixels that it covers."""
    outer = Grid(6, 8, 30, 30, 4)
    window = Window.of(outer, outer.block(4, 4, 26, 26), Grid(10, 12, 250, 250, 1), 2)
    patch = np.random.default_rng(3).integers(0, 256, (250, 250, 4), np.uint8)
    nodes = window.nodes(np.zeros((30, 30, 2), np.float32))
    left, top = 2 * window.inner.left - 10, 2 * window.inner.top - 12
    covered = patch[top : top + 176, left : left + 176].reshape(88, 2, 88, 2, 4)
    shown = window.sampled(patch, nodes, window.inner).astype(float)
    assert shown == pytest.approx(covered.mean(axis=(1, 3)), abs=0.51)


def test_a_fold_is_noticed() -> None:
    """The smallest Jacobian is positive for a gentle push and negative for one that overturns."""
    grid = Grid(0, 0, 40, 40, 4)
    assert steepest_fold(bump(grid, 8.0, 24.0), 4) > 0.5
    assert steepest_fold(bump(grid, 80.0, 24.0), 4) < 0.0


def test_nodes_of_face_and_sheets_get_their_own_fields(rig: Rig) -> None:
    """A frame's fields are those of its controls: each sheet is the face's but where it opens."""
    still = rig.split(np.zeros(ROWS, np.float32))
    assert not any(field.any() for field in still)
    face, upper, skull, lower = rig.split(drive(FaceControls.of(jawOpen=1.0), 0.0).rows)
    slot, skin = (rig.face.outer.window(w.outer) for w in (rig.mouth.slot, rig.mouth.skin))
    same = np.isclose(upper, face[slot], atol=1e-3).all(axis=-1)
    assert 0.5 < same.mean() < 1.0
    assert not skull.any()
    assert lower[..., 1].max() == pytest.approx(face[skin][..., 1].max(), rel=0.3)


@pytest.mark.parametrize("seed", range(40))
def test_skin_does_not_fold_over(rig: Rig, seed: int) -> None:
    """Random mixtures of controls and poses leave the sheets of skin and the skull unfolded."""
    _, upper, skull, lower = rig.split(drive(random_controls(seed), rig.smile).rows)
    for field in (upper, skull, lower):
        assert steepest_fold(field, rig.face.outer.stride) > 0.0
