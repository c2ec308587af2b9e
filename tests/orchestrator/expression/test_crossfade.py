"""Cross-fades over cross-fades: where they lead, how smoothly, and what is left of them."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.expression.crossfade import (
    MAX_LAYERS,
    MIN_TRANSITION_S,
    UNSEEN_S,
    Crossfade,
)
from orchestrator.expression.easing import ONSET, RELEASE
from orchestrator.expression.layers import BRAKE_S, Weights, coasting

NOTHING = np.zeros(3)
FIRST = np.array([0.8, 0.0, 0.0])
SECOND = np.array([0.0, 0.6, 0.0])
BOTH = np.array([0.4, 0.6, 0.0])


def settled(target: Weights) -> Crossfade:
    """A face that rests at `target` from 0 s on."""
    face = Crossfade(len(target))
    face.retarget(-1.0, target, 0.5, ONSET)
    face.fold(0.0)
    assert face.depth == 0
    return face


def velocity(face: Crossfade, t_s: float, step_s: float = 1e-7) -> Weights:
    """Velocity just after `t_s`, from values alone."""
    return (face.value(t_s + step_s) - face.value(t_s)) / step_s


# --- one after the other ------------------------------------------------------------------


def test_a_new_face_rests_at_nothing() -> None:
    """Nothing is on and nothing moves."""
    face = Crossfade(3)
    assert not face.value(5.0).any()
    assert face.settles_s == -np.inf


def test_a_retarget_follows_its_curve() -> None:
    """The way is done as the easing says, and to the last bit at the end."""
    face = Crossfade(3)
    assert face.retarget(1.0, FIRST, 0.4, ONSET) == 1.4
    assert face.settles_s == 1.4
    for t_s in (1.0, 1.05, 1.2, 1.39):
        np.testing.assert_allclose(face.value(t_s), FIRST * ONSET.at((t_s - 1.0) / 0.4))
    face.fold(1.4)
    np.testing.assert_array_equal(face.value(1.4), FIRST)
    assert face.depth == 0


def test_nothing_is_quicker_than_the_shortest_transition() -> None:
    """A duration of 0 is a short cross-fade, no jump."""
    face = Crossfade(3)
    assert face.retarget(0.0, FIRST, 0.0, ONSET) == MIN_TRANSITION_S
    assert 0.0 < face.value(MIN_TRANSITION_S / 4)[0] < FIRST[0]
    np.testing.assert_array_equal(face.value(MIN_TRANSITION_S), FIRST)


@pytest.mark.parametrize("unwanted", [False, True])
@pytest.mark.parametrize("at_s", [0.02, 0.1, 0.25, 0.399])
def test_value_and_velocity_carry_over(at_s: float, unwanted: bool) -> None:
    """A retarget in mid-flight starts with the value and the velocity there are."""
    face = Crossfade(3)
    face.retarget(0.0, FIRST, 0.4, ONSET)
    value, speed = face.value(at_s), face.motion(at_s)[1]
    face.retarget(at_s, SECOND, 0.3, RELEASE, unwanted=unwanted)
    np.testing.assert_allclose(face.value(at_s), value, atol=1e-12)
    np.testing.assert_allclose(face.motion(at_s)[1], speed, atol=1e-9)
    np.testing.assert_allclose(velocity(face, at_s), speed, atol=1e-3)


def test_the_velocity_told_is_that_of_the_values() -> None:
    """It agrees with difference quotients through three cross-fades and two brakes."""
    face = Crossfade(3)
    face.retarget(0.0, FIRST, 0.5, ONSET)
    face.retarget(0.1, SECOND, 0.5, ONSET, unwanted=True)
    face.retarget(0.15, BOTH, 0.3, RELEASE, unwanted=True)
    for t_s in np.linspace(0.15, 0.5, 36):
        np.testing.assert_allclose(face.motion(t_s)[1], velocity(face, t_s), atol=1e-3)


def test_what_rises_and_is_not_wanted_stops_soon() -> None:
    """It goes on by no more than a third of the brake, where it would have gone on."""
    face = Crossfade(3)
    face.retarget(0.0, FIRST, 2.0, ONSET)
    now = face.value(0.3)[0]
    ahead = FIRST[0] * ONSET.at((0.3 + BRAKE_S / 3) / 2.0)
    face.retarget(0.3, SECOND, 60.0, ONSET, unwanted=True)
    highest = max(face.value(t_s)[0] for t_s in np.linspace(0.3, 2.0, 200))
    assert now < highest <= ahead < FIRST[0] / 2


def test_what_falls_and_is_wanted_again_stops_soon() -> None:
    """It dips by no more than a third of the brake, where it would have gone on."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 1.0, RELEASE)
    ahead = FIRST[0] * (1.0 - RELEASE.at(0.3 + BRAKE_S / 3))
    face.retarget(0.3, FIRST, 60.0, ONSET, unwanted=True)
    assert min(face.value(t_s)[0] for t_s in np.linspace(0.3, 2.0, 200)) >= ahead


def test_what_falls_stops_together_with_what_it_made_room_for() -> None:
    """The sum stays within 1 when one half of a cross-fade is wanted and the other is not."""
    face = settled(np.array([0.9, 0.0, 0.0]))
    face.retarget(0.0, np.array([0.3, 0.5, 0.0]), 0.5, ONSET)
    target = np.array([0.5, 0.5, 0.0])
    end_s = face.retarget(0.05, target, 60.0, ONSET, unwanted=True)
    for t_s in np.linspace(0.05, 62.0, 2000):
        assert face.value(t_s).sum() <= 1.0
    np.testing.assert_array_equal(face.value(end_s), target)


def test_what_falls_keeps_falling() -> None:
    """A slow retarget leaves a quick fade its time."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 0.3, RELEASE)
    face.retarget(0.1, SECOND, 30.0, ONSET, unwanted=True)
    face.fold(0.3)
    assert face.value(0.3)[0] == 0.0


def test_what_falls_keeps_falling_under_what_is_stopped() -> None:
    """The brake holds what rises and nothing else."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 0.3, RELEASE)
    face.retarget(0.05, SECOND, 1.0, ONSET, unwanted=True)
    face.retarget(0.1, NOTHING, 60.0, RELEASE, unwanted=True)
    face.fold(0.3)
    assert face.value(0.3)[0] == 0.0
    assert face.value(0.3)[1] > 0.0


def test_labels_go_their_own_way_where_there_is_room() -> None:
    """Adding one weight leaves the pace of another alone."""
    alone, joined = Crossfade(3), Crossfade(3)
    for face in (alone, joined):
        face.retarget(0.0, np.array([0.4, 0.0, 0.0]), 2.0, ONSET)
    joined.retarget(0.1, BOTH, 0.2, ONSET)
    for t_s in np.linspace(0.1, 2.5, 25):
        assert joined.value(t_s)[0] == alone.value(t_s)[0]
    np.testing.assert_array_equal(joined.value(2.0), BOTH)


def test_labels_make_room_where_there_is_none() -> None:
    """What goes slowly goes sooner when what comes needs its place; the sum stays within 1."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 30.0, RELEASE)
    face.retarget(0.1, SECOND, 0.2, ONSET)
    for t_s in np.linspace(0.1, 0.3, 50):
        assert face.value(t_s).sum() <= 1.0
    np.testing.assert_array_equal(face.value(0.3), SECOND)


def test_going_where_it_goes_changes_nothing() -> None:
    """The same target again, due no sooner, leaves the trajectory as it is."""
    once, again = Crossfade(3), Crossfade(3)
    for face in (once, again):
        face.retarget(0.0, FIRST, 0.4, ONSET, unwanted=True)
    again.retarget(0.1, FIRST, 0.4, ONSET, unwanted=True)
    assert again.depth == 1
    np.testing.assert_array_equal(again.value(0.2), once.value(0.2))


def test_going_where_it_goes_can_be_hurried() -> None:
    """The same target again, due sooner, is reached sooner."""
    face = Crossfade(3)
    face.retarget(0.0, FIRST, 30.0, ONSET)
    face.retarget(0.1, FIRST, 0.2, ONSET, unwanted=True)
    np.testing.assert_array_equal(face.value(0.3), FIRST)


def test_of_several_at_one_instant_the_last_counts() -> None:
    """Nothing shows of those before, not even in the pace."""
    burst, last = settled(FIRST), settled(FIRST)
    for target in (SECOND, BOTH, NOTHING, BOTH):
        burst.retarget(0.0, target, 0.3, ONSET, unwanted=True)
    last.retarget(0.0, BOTH, 0.3, ONSET, unwanted=True)
    for t_s in np.linspace(0.0, 0.3, 31):
        np.testing.assert_allclose(burst.value(t_s), last.value(t_s), atol=1e-12)


@pytest.mark.parametrize("gap_s", [1e-9, 1e-6, 1e-4])
def test_a_burst_does_not_add_up(gap_s: float) -> None:
    """Twenty retargets in a burst are no steeper than the last of them alone."""
    burst, last = settled(FIRST), settled(FIRST)
    for index in range(20):
        target = SECOND if index % 2 else np.array([0.0, 0.0, 0.7])
        burst.retarget(index * gap_s, target, 0.3, ONSET, unwanted=True)
    last.retarget(0.0, SECOND, 0.3, ONSET, unwanted=True)
    times = np.linspace(20 * gap_s, 0.5, 200)
    steepest = max(np.abs(burst.motion(t_s)[1]).max() for t_s in times)
    assert steepest <= 1.05 * max(np.abs(last.motion(t_s)[1]).max() for t_s in times)


def test_what_is_young_and_quick_is_not_slowed_down() -> None:
    """A slow cross-fade right behind a quick one does not take it over."""
    face = Crossfade(3)
    face.retarget(0.0, FIRST, 0.2, ONSET)
    face.retarget(0.001, np.array([0.5, 0.5, 0.0]), 20.0, ONSET)
    assert face.value(0.2)[0] == pytest.approx(FIRST[0], rel=0.01)


def test_two_fades_at_one_instant_keep_their_times() -> None:
    """Each label is out after its own time."""
    face = settled(BOTH)
    face.retarget(0.0, np.array([0.0, 0.6, 0.0]), 0.1, RELEASE)
    face.retarget(0.0, NOTHING, 2.0, RELEASE)
    face.fold(0.1)
    assert face.value(0.1)[0] == 0.0
    assert face.value(0.1)[1] == pytest.approx(0.6 * (1.0 - RELEASE.at(0.05)))


# --- folding ------------------------------------------------------------------------------


def test_folding_changes_nothing_that_shows() -> None:
    """Values are the same however often the pile is folded in between."""
    lazy, tidy = settled(FIRST), settled(FIRST)
    script = [(0.0, SECOND, 0.3), (0.05, BOTH, 0.5), (0.13, FIRST, 0.2), (0.29, SECOND, 0.25)]
    for at_s, target, duration_s in script:
        for face in (lazy, tidy):
            face.retarget(at_s, target, duration_s, ONSET, unwanted=True)
    for t_s in np.linspace(0.29, 1.0, 300):
        tidy.fold(t_s)
        np.testing.assert_allclose(tidy.value(t_s), lazy.value(t_s), atol=1e-12)
    assert tidy.depth == 0


def test_what_has_stopped_is_folded_away() -> None:
    """A slow retarget does not keep those that it stopped."""
    face = Crossfade(3)
    for index in range(10):
        target = SECOND if index % 2 else FIRST
        face.retarget(0.3 * index, target, 60.0, ONSET, unwanted=True)
    assert face.depth <= 3


def test_it_says_when_it_has_settled() -> None:
    """The time is that of the last motion, before and after folding."""
    face = Crossfade(3)
    face.retarget(0.0, FIRST, 0.5, ONSET)
    face.retarget(0.2, SECOND, 0.2, ONSET, unwanted=True)
    for _ in range(2):
        assert face.settles_s == pytest.approx(0.4)
        face.fold(0.45)
    np.testing.assert_array_equal(face.value(0.4), face.value(9.0))


# --- marks --------------------------------------------------------------------------------


def test_a_mark_is_given_when_nothing_shows_any_more() -> None:
    """It waits for the cross-fade that it came with, and is given once."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 0.2, RELEASE, unwanted=True, mark=7)
    face.fold(0.19)
    assert face.cleared() == []
    face.fold(0.2)
    assert face.cleared() == [7]
    assert face.cleared() == []


def test_a_mark_on_a_face_at_rest_is_given_at_once() -> None:
    """Nothing has to leave."""
    face = Crossfade(3)
    face.retarget(0.0, NOTHING, 60.0, RELEASE, unwanted=True, mark=1)
    assert face.cleared() == [1]


def test_a_mark_waits_for_the_fades_that_do_its_work() -> None:
    """Where everything goes already and sooner, it is given when that has gone."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 0.2, RELEASE)
    face.retarget(0.1, NOTHING, 5.0, RELEASE, unwanted=True, mark=1)
    face.fold(0.15)
    assert face.cleared() == []
    face.fold(0.2)
    assert face.cleared() == [1]


def test_a_mark_holds_although_the_same_is_wanted_again() -> None:
    """What it is to clear is cleared in time, under the same label on its way back."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 0.2, RELEASE, unwanted=True, mark=1)
    face.retarget(0.05, FIRST, 50.0, ONSET, unwanted=True)
    face.fold(0.19)
    assert face.cleared() == []
    face.fold(0.2)
    assert face.cleared() == [1]
    assert face.value(0.2)[0] == pytest.approx(FIRST[0] * ONSET.at(0.15 / 50.0))


@pytest.mark.parametrize("gap_s", [0.0, 1e-6, 0.003, 0.05])
def test_what_comes_after_a_mark_does_not_hold_it_up(gap_s: float) -> None:
    """Slow retargets right after a fade leave it its time, and the mark tells the truth."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 0.2, RELEASE, unwanted=True, mark=1)
    face.retarget(gap_s, SECOND, 50.0, ONSET, unwanted=True)
    face.retarget(2 * gap_s, np.array([0.0, 0.0, 0.5]), 50.0, ONSET, unwanted=True)
    face.fold(0.2 - 1e-9)
    assert face.cleared() == []
    face.fold(0.2)
    assert face.cleared() == [1]
    assert face.value(0.2)[0] == 0.0


def test_a_mark_is_given_when_something_quicker_hides_it_all() -> None:
    """A quick retarget over a slow fade takes it away sooner."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 60.0, RELEASE, unwanted=True, mark=1)
    face.retarget(1.0, SECOND, 0.1, ONSET, unwanted=True)
    face.fold(1.1)
    assert face.cleared() == [1]
    assert face.value(1.1)[0] == 0.0


# --- floods -------------------------------------------------------------------------------


def flooded(gap_s: float, duration_s: float, count: int) -> tuple[Crossfade, float]:
    """A slow fade under a flood on the same label, which no folding can thin out.

    Counts how often the pile was replaced, which the depth shows.
    """
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 60.0, RELEASE)
    collapses, now_s = 0, 0.5
    for index in range(count):
        now_s += gap_s
        target = np.array([0.3 + 0.5 * (index % 2), 0.2 * (index % 3 == 0), 0.0])
        value, speed = face.motion(now_s)
        before = face.depth
        face.retarget(now_s, target, duration_s * (1.0 + index % 7), ONSET)
        collapses += face.depth < before - 5
        after, speed_after = face.motion(now_s)
        np.testing.assert_allclose(after, value, atol=1e-9)
        np.testing.assert_allclose(speed_after, speed, atol=1e-7)
        assert face.depth <= 2 * MAX_LAYERS
    assert collapses >= 3
    return face, now_s


@pytest.mark.parametrize("gap_s", [UNSEEN_S * 1.01, 0.013])
def test_a_flood_is_bounded_and_smooth(gap_s: float) -> None:
    """The pile is replaced by one motion with the same value and velocity, which stays in range."""
    face, now_s = flooded(gap_s, 1.0, 200)
    times = np.linspace(now_s, now_s + 12.0, 2000)
    values = np.array([face.value(t_s) for t_s in times])
    assert values.min() >= 0.0
    assert values.sum(axis=1).max() <= 1.0 + 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_after_a_flood_what_moves_is_braked_gently(seed: int) -> None:
    """The motion that replaces a pile keeps value and velocity, and stops without a jerk."""
    random = np.random.default_rng(seed)
    face = Crossfade(4)
    now_s = 0.0
    for _ in range(int(random.integers(1, 12))):
        now_s += float(random.uniform(0.0, 0.1))
        target = random.dirichlet(np.ones(5))[:4] * random.choice([0.0, 0.5, 1.0])
        face.retarget(now_s, target, 0.2, ONSET, unwanted=bool(random.integers(2)))
    now_s += float(random.uniform(0.0, 0.2))
    value, speed = face.motion(now_s)
    face._collapse(now_s)
    np.testing.assert_allclose(face.motion(now_s)[0], value, atol=1e-12)
    np.testing.assert_allclose(face.motion(now_s)[1], speed, atol=1e-9)
    step_s = 1e-4
    values = np.array([face.value(t_s) for t_s in np.arange(now_s, now_s + BRAKE_S, step_s)])
    assert values.min() >= 0.0
    assert values.sum(axis=1).max() <= 1.0 + 1e-12
    steepest = ONSET.n * (ONSET.n + 1) / 0.2**2
    assert np.abs(np.diff(values, n=2, axis=0)).max() <= 2.0 * steepest * step_s**2
    np.testing.assert_array_equal(face.value(now_s + BRAKE_S), face.value(now_s + 9.0))


def test_what_is_nearly_gone_does_not_stop_the_rest_dead() -> None:
    """Each weight is braked over what it has left: the last of one jerks no other."""
    value = np.array([0.5, 1e-8, 0.2])
    velocity = np.array([-2.0, -1e-4, 2.5])
    motion = coasting(value, velocity, 10.0)
    np.testing.assert_allclose(motion.at(10.0)[1], velocity)
    values = np.array([motion.at(t_s)[0] for t_s in np.linspace(10.0, 10.0 + BRAKE_S, 1000)])
    assert values.min() >= -1e-15
    assert values.sum(axis=1).max() <= 1.0
    assert values[-1][0] == pytest.approx(0.5 - 2.0 * BRAKE_S / 3.0)


def test_a_flood_leaves_a_fade_its_time() -> None:
    """What is to be gone by then is gone, even if the pile has been replaced meanwhile."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 0.3, RELEASE, unwanted=True, mark=1)
    now_s, depths = 0.0, []
    while now_s < 0.2:
        now_s += 0.0003
        face.retarget(now_s, np.array([0.0, 0.3, 0.1 + now_s]), 20.0 * now_s + 9.0, RELEASE)
        depths.append(face.depth)
    face._collapse(now_s)
    face.fold(0.29)
    assert face.cleared() == []
    assert face.value(0.29)[0] > 0.0
    face.fold(0.3)
    assert face.cleared() == [1]
    assert face.value(0.3)[0] == 0.0


# --- another set of labels ----------------------------------------------------------------


def test_weights_can_be_rearranged_in_flight() -> None:
    """Known labels go on as they would have, new ones are not on."""
    face, same = Crossfade(3), Crossfade(3)
    for each in (face, same):
        each.retarget(0.0, FIRST, 0.5, ONSET)
        each.retarget(0.1, SECOND, 0.5, ONSET, unwanted=True)
    face.resized(np.array([1, -1, 0, 2]))
    for t_s in (0.1, 0.2, 0.6):
        first, second, third = same.value(t_s)
        np.testing.assert_array_equal(face.value(t_s), [second, 0.0, first, third])
    face._collapse(0.2)
    face.resized(np.array([2, 0]))
    np.testing.assert_allclose(face.value(0.2), same.value(0.2)[:2], atol=1e-12)


def test_a_mark_on_a_label_that_goes_away_is_given() -> None:
    """Nothing waits for what cannot show any more."""
    face = settled(FIRST)
    face.retarget(0.0, NOTHING, 60.0, RELEASE, unwanted=True, mark=1)
    face.resized(np.array([1, 2]))
    face.fold(0.1)
    assert face.cleared() == [1]
