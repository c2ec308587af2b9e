"""The curves that cross-fades follow, and the brake."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.expression.easing import ONSET, RELEASE, Easing, brake_rate, braked

CURVES = pytest.mark.parametrize("curve", [ONSET, RELEASE], ids=["onset", "release"])
STEPS = np.linspace(0.0, 1.0, 1001)


@CURVES
def test_a_curve_goes_from_0_to_1_and_never_back(curve: Easing) -> None:
    """It is 0 up to 0, 1 from 1 on, and rises in between, so nothing overshoots."""
    values = [curve.at(x) for x in STEPS]
    assert curve.at(-3.0) == values[0] == 0.0
    assert curve.at(7.0) == values[-1] == 1.0
    assert (np.diff(values) >= 0.0).all()


@CURVES
def test_a_curve_starts_and_ends_flat(curve: Easing) -> None:
    """Its slope is 0 at and beyond both ends, and tends to 0 there."""
    for x in (-1.0, 0.0, 1.0, 2.0):
        assert curve.slope(x) == 0.0
    assert curve.slope(1e-9) == pytest.approx(0.0, abs=1e-6)
    assert curve.slope(1.0 - 1e-9) == pytest.approx(0.0, abs=1e-6)


@CURVES
def test_the_slope_is_that_of_the_curve(curve: Easing) -> None:
    """It agrees with difference quotients."""
    for x in STEPS[1:-1]:
        quotient = (curve.at(x + 1e-6) - curve.at(x - 1e-6)) / 2e-6
        assert curve.slope(x) == pytest.approx(quotient, abs=1e-6)


@CURVES
def test_x95_is_where_95_percent_are_done(curve: Easing) -> None:
    """The curve is at 0.95 there."""
    assert curve.at(curve.x95) == pytest.approx(0.95, abs=1e-12)


def test_release_is_smoothstep() -> None:
    """For n = 2 the family gives 3x^2 - 2x^3."""
    for x in STEPS:
        assert RELEASE.at(x) == pytest.approx(3 * x**2 - 2 * x**3, abs=1e-12)


def test_an_onset_comes_sooner_than_a_release() -> None:
    """It is ahead all the way, most of all at the start."""
    assert all(ONSET.at(x) > RELEASE.at(x) for x in STEPS[1:-1])
    assert ONSET.x95 < RELEASE.x95


def test_a_brake_lets_a_third_of_the_time_pass() -> None:
    """Time begins at full rate, gets a third of the period far, and stands still."""
    assert braked(-1.0, 0.3) == braked(0.0, 0.3) == 0.0
    assert braked(1e-9, 0.3) == pytest.approx(1e-9)
    assert braked(0.3, 0.3) == braked(5.0, 0.3) == pytest.approx(0.1)
    assert brake_rate(0.0, 0.3) == 1.0
    assert brake_rate(0.3, 0.3) == brake_rate(9.0, 0.3) == 0.0


def test_a_brake_without_a_period_stops_at_once() -> None:
    """No time passes, at no rate."""
    assert braked(0.0, 0.0) == braked(1.0, 0.0) == 0.0
    assert brake_rate(0.0, 0.0) == brake_rate(1.0, 0.0) == 0.0


def test_the_rate_of_braked_time_is_its_derivative() -> None:
    """It agrees with difference quotients, and falls evenly."""
    for elapsed_s in np.linspace(0.001, 0.4, 50):
        quotient = (braked(elapsed_s + 1e-6, 0.3) - braked(elapsed_s - 1e-6, 0.3)) / 2e-6
        assert brake_rate(elapsed_s, 0.3) == pytest.approx(quotient, abs=1e-4)
    rates = [brake_rate(x, 0.3) for x in np.linspace(0.0, 0.3, 31)]
    assert (np.diff(rates) < 0.0).all()
