"""Least squares with bounds: the answer meets the conditions of an optimum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.liveportrait.bounded import bounded_least_squares


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_nothing_within_the_bounds_is_better(seed: int, rows: int, columns: int) -> None:
    """No slope inside, and at a bound none that leads inwards (Karush-Kuhn-Tucker)."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, columns))
    matrix[:, rng.random(columns) < 0.2] = 0.0
    square = matrix.T @ matrix + 0.01 * np.eye(columns)
    linear = matrix.T @ rng.normal(size=rows) * 2.0
    most = np.where(rng.random(columns) < 0.2, 0.0, 1.0)
    x = bounded_least_squares(square, linear, most)
    assert (x >= 0.0).all()
    assert (x <= most).all()
    uphill = square @ x - linear
    assert np.abs(uphill[(x > 0.0) & (x < most)]).max(initial=0.0) < 1e-7
    assert uphill[(x == 0.0) & (most > 0.0)].min(initial=0.0) > -1e-7
    assert uphill[(x == most) & (most > 0.0)].max(initial=0.0) < 1e-7


def test_bounds_bind() -> None:
    """What would lie beyond a bound lies on it, and the others make up for it."""
    square = np.array([[2.0, 1.0], [1.0, 2.0]])
    found = bounded_least_squares(square, np.array([5.0, 3.0]), np.ones(2))
    assert found == pytest.approx([1.0, 1.0])
    found = bounded_least_squares(square, np.array([3.0, -1.0]), np.array([0.5, 1.0]))
    assert found == pytest.approx([0.5, 0.0])
    assert not bounded_least_squares(square, np.array([3.0, 3.0]), np.zeros(2)).any()
