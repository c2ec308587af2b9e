"""Fields: interpolation, inversion, and no folds."""

import numpy as np
import pytest

from pipeline.mesh.drive import drive
from pipeline.mesh.fields import Grid, enlarged, interpolator, inverted, steepest_fold
from pipeline.mesh.rig import Rig
from pipeline.types import Float32Array
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


def test_a_fold_is_noticed() -> None:
    """The smallest Jacobian is positive for a gentle push and negative for one that overturns."""
    grid = Grid(0, 0, 40, 40, 4)
    assert steepest_fold(bump(grid, 8.0, 24.0), 4) > 0.5
    assert steepest_fold(bump(grid, 80.0, 24.0), 4) < 0.0


@pytest.mark.parametrize("seed", range(40))
def test_skin_does_not_fold_over(rig: Rig, seed: int) -> None:
    """Random mixtures of controls and poses leave the sheets of skin and the skull unfolded."""
    _, upper, skull, lower = rig.split(drive(random_controls(seed), rig.smile).rows)
    for field in (upper, skull, lower):
        assert steepest_fold(field, rig.face.outer.stride) > 0.0
