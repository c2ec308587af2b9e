"""Frames with times of their own on a grid of constant rate."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.constant_rate import ConstantRate, Place

FPS = 30.0
KEEP = Place(0, keep=True)


def placed(grid: ConstantRate, *pts_s: float) -> list[Place]:
    """Frames that come when they are due."""
    return [grid.place(each, 500.0 + each) for each in pts_s]


def test_frames_of_the_same_rate_fill_the_grid_one_by_one() -> None:
    """Whatever the phase of the first; times are rounded to microseconds on the wire."""
    grid = ConstantRate(FPS)
    times = [round(12.3456789 + n / FPS, 6) for n in range(300)]
    assert placed(grid, *times) == [KEEP] * 300
    assert (grid.filled, grid.repeated, grid.dropped) == (300, 0, 0)


def test_a_gap_is_filled_with_the_frame_before_it() -> None:
    """Four places were missed; they are repeats."""
    grid = ConstantRate(FPS)
    assert placed(grid, 0.0, 5 / FPS) == [KEEP, Place(4, keep=True)]
    assert (grid.filled, grid.repeated) == (6, 4)


def test_a_frame_whose_place_is_taken_is_dropped() -> None:
    """A late one and a second one for the same place."""
    grid = ConstantRate(FPS)
    dropped = Place(0, keep=False)
    assert placed(grid, 0.0, 2 / FPS, 1 / FPS, 2.1 / FPS) == [
        KEEP, Place(1, keep=True), dropped, dropped,
    ]  # fmt: skip
    assert (grid.filled, grid.dropped) == (3, 2)


def test_a_slower_file_drops_and_a_faster_one_repeats() -> None:
    """Ten seconds stay ten seconds."""
    times = [n / FPS for n in range(300)]
    slow, fast = ConstantRate(10.0, 100), ConstantRate(60.0, 600)
    for grid in (slow, fast):
        placed(grid, *times)
        grid.fill(10**9)
    assert (slow.filled, fast.filled) == (100, 600)
    assert (slow.dropped, slow.repeated) == (199, 0)  # the very last belongs to place 100
    assert (fast.dropped, fast.repeated) == (0, 300)


def test_a_daemon_that_starts_again_goes_on_in_the_file() -> None:
    """Its media clock is at zero again: the file's time goes on by the clock on the wall."""
    grid = ConstantRate(FPS)
    placed(grid, 100.0, 100.0 + 1 / FPS)
    assert grid.place(0.5, 600.0 + 1 / FPS + 2.0) == Place(59, keep=True)
    assert grid.place(0.5 + 1 / FPS, 600.0 + 2 / FPS + 2.0) == KEEP


def test_the_stale_frame_that_comes_first_makes_no_gap() -> None:
    """A viewer gets the newest frame at once, which may be hours old where nobody watched."""
    grid = ConstantRate(FPS)
    assert grid.place(10.0, 500.0) == KEEP
    assert grid.place(7210.0, 500.05) == KEEP
    assert grid.place(7210.0 + 1 / FPS, 500.05 + 1 / FPS) == KEEP


def test_frames_that_were_held_up_on_the_way_keep_their_places() -> None:
    """The connection stalls for three seconds: time goes by the media clock all the same."""
    grid = ConstantRate(FPS)
    grid.place(0.0, 500.0)
    assert grid.place(1 / FPS, 503.0) == KEEP
    assert grid.place(3.0, 503.001) == Place(88, keep=True)


def test_no_more_places_than_wanted() -> None:
    """What comes after the last place does not count as dropped."""
    grid = ConstantRate(FPS, 3)
    assert placed(grid, 0.0, 1.0, 2.0) == [KEEP, Place(2, keep=False), Place(0, keep=False)]
    assert grid.full
    assert (grid.filled, grid.dropped, grid.fill(100)) == (3, 0, 0)


steps = st.lists(
    st.tuples(st.floats(-5.0, 5.0), st.floats(0.0, 2.0)), min_size=1, max_size=40
)  # fmt: skip


@settings(deadline=None)
@given(steps, st.sampled_from([1.0, 10.0, 29.97, 60.0]), st.none() | st.integers(1, 50))
def test_every_place_has_exactly_one_frame(
    steps: list[tuple[float, float]], fps: float, most: int | None
) -> None:
    """Whatever the clocks do: repeats and kept frames add up to the places."""
    grid = ConstantRate(fps, most)
    written, pts_s, arrived_s = 0, 20.0, 0.0
    for step_s, wait_s in steps:
        pts_s, arrived_s = max(0.0, pts_s + step_s), arrived_s + wait_s
        place = grid.place(pts_s, arrived_s)
        assert place.repeats >= 0
        assert written > 0 or place == KEEP
        written += place.repeats + place.keep
        assert written == grid.filled
        assert most is None or written <= most
    lasted_s = sum(wait_s for _, wait_s in steps)
    assert grid.filled <= (lasted_s + len(steps) + 11.0) * fps + len(steps) + 1
