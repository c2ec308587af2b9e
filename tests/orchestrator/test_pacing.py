"""Pacing: absolute deadlines, skipped when late, begun early by what renders take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pacing import BACK_STEP_S, LEAD_MARGIN_S, PULL_SHARE, RECENT_RENDERS, Lead, Pace

PERIOD_S = 1 / 30


def test_deadlines_never_drift() -> None:
    """However late each wake-up is, the n-th deadline stays at start + n * period."""
    pace = Pace(PERIOD_S, 100.0)
    pace.next(100.0)
    for tick in range(1, 10_000):
        woken_late_s = (tick - 1) * PERIOD_S + 0.011
        due_s, skipped = pace.next(100.0 + max(0.0, woken_late_s))
        assert skipped == 0
        assert due_s == pytest.approx(100.0 + tick * PERIOD_S, abs=1e-9)


def test_late_ticks_are_skipped_and_counted() -> None:
    """A stall costs the ticks that it covered, which are not made up for."""
    pace = Pace(PERIOD_S, 0.0)
    assert pace.next(0.0) == (0.0, 0)
    due_s, skipped = pace.next(10.4 * PERIOD_S)
    assert due_s == pytest.approx(11 * PERIOD_S)
    assert skipped == 10
    assert pace.next(10.5 * PERIOD_S) == (pytest.approx(12 * PERIOD_S), 0)


def test_a_meant_pause_is_no_lateness() -> None:
    """After restart the next deadline is now and nothing counts as skipped."""
    pace = Pace(PERIOD_S, 0.0)
    pace.next(0.0)
    pace.restart(500.0)
    assert pace.next(500.0) == (500.0, 0)


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=50))
def test_deadlines_rise_and_are_never_past(steps: list[float]) -> None:
    """Whatever the delays, each deadline is later than the last and not before now."""
    pace = Pace(PERIOD_S, 0.0)
    now_s, last_s = 0.0, -1.0
    for step in steps:
        now_s += step
        due_s, skipped = pace.next(now_s)
        assert due_s > last_s
        assert due_s >= now_s - 1e-6
        assert due_s - now_s < PERIOD_S + max(0.0, last_s - now_s) + 1e-6
        assert skipped >= 0
        last_s = due_s


PULLS = st.lists(st.one_of(st.none(), st.floats(-0.01, 0.05)), min_size=1, max_size=200)


@given(PULLS)
def test_pulled_deadlines_stay_even_enough(pulls: list[float | None]) -> None:
    """However often a deadline is pulled, the clock is so much ahead and no more."""
    pace = Pace(PERIOD_S, 0.0)
    last_s = -PERIOD_S
    for tick, pull_s in enumerate(pulls):
        due_s, skipped = pace.next(last_s + 1e-6)
        if pull_s is not None:
            due_s = pace.pull(due_s, due_s - pull_s)
        assert skipped == 0
        assert (tick - PULL_SHARE) * PERIOD_S - 1e-9 <= due_s <= tick * PERIOD_S + 1e-9
        assert (
            (1.0 - PULL_SHARE) * PERIOD_S - 1e-9 <= due_s - last_s <= PERIOD_S + BACK_STEP_S + 1e-9
        )
        last_s = due_s


def test_after_a_pull_the_clock_goes_back_in_small_steps() -> None:
    """One interval is shorter, the next ones a millisecond longer, then all is as before."""
    pace = Pace(PERIOD_S, 0.0)
    pace.next(0.0)
    due_s, _ = pace.next(0.001)
    assert pace.pull(due_s, due_s - 0.0045) == pytest.approx(PERIOD_S - 0.0045)
    ahead_ms = []
    for tick in range(2, 8):
        due_s, _ = pace.next((tick - 1) * PERIOD_S)
        ahead_ms.append((tick * PERIOD_S - due_s) * 1000.0)
    assert ahead_ms == pytest.approx([3.5, 2.5, 1.5, 0.5, 0.0, 0.0], abs=1e-6)


def test_nothing_is_pulled_to_later() -> None:
    """A deadline that is early enough stays."""
    pace = Pace(PERIOD_S, 0.0)
    due_s, _ = pace.next(0.0)
    assert pace.pull(due_s, due_s + 0.01) == due_s


def test_lead_follows_the_slow_recent_renders() -> None:
    """Slow renders raise the lead until they are no longer recent; it stays within a period."""
    lead = Lead(PERIOD_S)
    assert lead.seconds == LEAD_MARGIN_S
    for _ in range(6):
        lead.observe(0.010)
        lead.observe(0.002)
    assert lead.seconds == pytest.approx(0.010 + LEAD_MARGIN_S)
    for _ in range(RECENT_RENDERS):
        lead.observe(0.002)
    assert lead.seconds == pytest.approx(0.002 + LEAD_MARGIN_S)
    for _ in range(3):
        lead.observe(5.0)
    assert lead.seconds < PERIOD_S


def test_a_single_hiccup_does_not_raise_the_lead() -> None:
    """One slow render among many leaves the lead where it was."""
    lead = Lead(PERIOD_S)
    for _ in range(40):
        lead.observe(0.005)
    lead.observe(0.060)
    assert lead.seconds == pytest.approx(0.005 + LEAD_MARGIN_S)
