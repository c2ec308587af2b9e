import numpy as np
import pytest

from pipeline.fitting.curves import ColumnSums, LensScale, LensShape, Prior, climb, grid, lens_terms
from pipeline.fitting.frame import Window

WINDOW = Window(-1.0, -1.0, 1.0, 1.0, 50.0)
SHAPE = LensShape(((0, 0.5, 1), (0, 1, 0)), ((0, 0.5, 1), (0, 1, 0)))
SCALE = LensScale(
    edge=0.05, ring=0.1, corner_in=0.06, corner_out=0.08, corner_half=0.03, least=0.02
)
PRIOR = Prior.of(
    (0.0, 0.3, -0.5, 0.5), (0.0, 0.3, -0.5, 0.5), (0.5, 0.2, 0.2, 0.8),
    (0.0, 0.2, -0.2, 0.2), (-0.2, 0.2, -0.5, 0.0), (0.2, 0.2, 0.0, 0.5),
)  # fmt: skip


def test_column_means_are_means():
    """A run's mean is that of its samples, fractions of a sample counted."""
    values = np.arange(101 * 101, dtype=np.float32).reshape(101, 101)
    sums = ColumnSums(values, WINDOW)
    x, top, bottom = (np.array([[v]]) for v in (0.2, -0.41, 0.39))
    column, first, last = 60, 30, 69  # the samples whose middles lie in between
    assert sums.mean(x, top, bottom)[0, 0] == pytest.approx(
        values[first : last + 1, column].mean(), rel=1e-6
    )


def test_column_means_stop_at_the_windows_edge():
    """Outside the window there is nothing to add and no error."""
    sums = ColumnSums(np.ones((101, 101), np.float32), WINDOW)
    outside = np.array([[-5.0, 0.0, 5.0]])
    assert np.isfinite(sums.mean(outside, outside - 3, outside + 3)).all()
    assert (sums.mean(np.zeros((1, 1)), np.full((1, 1), 2.0), np.full((1, 1), 3.0)) == 0).all()


def drawn(lens):
    """The samples inside a lens."""
    x, y = WINDOW.grid()
    along = (x[0] - (lens[0] - lens[2])) / (2 * lens[2])
    _, top, bottom = SHAPE.curves(lens[None], np.clip(along, 0, 1))
    return (along > 0) & (along < 1) & (y > top) & (y < bottom)


def test_climbing_finds_a_lens():
    """From a rough start, edges, corners and region lead to a lens drawn on the map."""
    wanted = drawn(np.array([0.1, -0.05, 0.45, 0.08, -0.2, 0.3]))
    sums = ColumnSums(wanted.astype(np.float32), WINDOW)

    def score(batch):
        terms = lens_terms(SHAPE, batch, sums, sums, SCALE)
        total = terms.upper + terms.lower + 0.5 * terms.corners + 2 * terms.region
        return total - 0.02 * PRIOR.cost(batch)

    starts = np.array([[0.0, 0.0, 0.4, 0.0, -0.1, 0.1], [0.3, 0.3, 0.3, 0.0, -0.1, 0.1]])
    found, value = climb(score, starts, PRIOR, (0.15, 0.15, 0.1, 0.1, 0.1, 0.1), rounds=12)

    both = drawn(found) & wanted
    assert both.sum() > 0.8 * (drawn(found) | wanted).sum()
    assert value == score(found[None])[0]
    assert value > score(starts).max()


def test_climbing_keeps_to_the_limits():
    """Parameters end inside their limits however strong the pull."""
    best, _ = climb(lambda batch: batch.sum(axis=1), np.zeros((1, 6)), PRIOR, [1.0] * 6)
    np.testing.assert_allclose(best, PRIOR.high)
    with pytest.raises(ValueError, match="at least one"):
        climb(lambda batch: batch.sum(axis=1), np.zeros((0, 6)), PRIOR, [1.0] * 6)


def test_grids_hold_every_combination():
    """Two values times three give six candidates."""
    assert sorted(map(tuple, grid((0, 1), (2, 3, 4)))) == [
        (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4),
    ]  # fmt: skip
