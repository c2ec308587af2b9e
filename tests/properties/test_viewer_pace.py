"""What `max_fps` promises, whatever the rate of the stage and however its frames jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.viewer_query import _EARLY_SHARE, Pace

JITTERS = st.lists(st.floats(-0.002, 0.002), min_size=60, max_size=60)


@given(st.floats(0.1, 1000.0), st.floats(1.0, 240.0), JITTERS)
def test_the_average_rate_stays_below_the_maximum(
    max_fps: float, fps: float, jitters: list[float]
) -> None:
    """Over any run from the first frame on, no more are picked than the rate allows."""
    pace, picked = Pace(max_fps), 0
    times = sorted(max(0.0, n / fps + jitter) for n, jitter in enumerate(jitters))
    for pts_s in times:
        picked += pace.due(pts_s)
        # One for the first frame, and a little for frames that come early.
        assert picked <= 1 + _EARLY_SHARE + (pts_s - times[0]) * max_fps + 1e-6


@given(st.floats(5.0, 60.0), JITTERS)
def test_the_rate_of_the_stage_picks_all_but_a_frame(fps: float, jitters: list[float]) -> None:
    """Asking for what the stage does anyway loses nothing to jitter in the long run."""
    pace = Pace(fps)
    picked = [pace.due(n / fps + jitter) for n, jitter in enumerate(jitters)]
    assert picked.count(False) <= 1


@given(st.floats(0.5, 200.0), st.floats(10.0, 10_000.0))
def test_a_pause_is_not_made_up_for(max_fps: float, pause_s: float) -> None:
    """After a pause the rate holds as before: no burst of frames."""
    pace = Pace(max_fps)
    assert pace.due(0.0)
    picked = sum(pace.due(pause_s + n / 1000.0) for n in range(1000))
    assert picked <= 2 + max_fps
