"""The slow layer: how a mood comes, fades, is interrupted, and survives a restart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expression.mood import MIN_DECAY_S, RISE_S, MoodLayer, MoodOffsets
from pipeline.types import ARKIT_INDEX

signed = st.floats(-1.0, 1.0)
# (wait before it, valence, arousal, decay)
sets = st.lists(st.tuples(st.floats(0.0, 3.0), signed, signed, st.floats(0.0, 30.0)), max_size=8)


def play(
    script: list[tuple[float, float, float, float]], start_s: float
) -> tuple[MoodLayer, float]:
    mood, now_s = MoodLayer(), start_s
    for wait_s, valence, arousal, decay_s in script:
        now_s += wait_s
        mood.set(valence, arousal, decay_s, now_s)
    return mood, now_s


def settled(valence: float = 0.0, arousal: float = 0.0) -> MoodOffsets:
    """The offsets of a mood that has just come in full."""
    mood = MoodLayer()
    mood.set(valence, arousal, 60.0, 0.0)
    return mood.sample(RISE_S)


def on(offsets: MoodOffsets) -> set[str]:
    return {name for name, index in ARKIT_INDEX.items() if offsets.controls[index] > 0.0}


# --- over time --------------------------------------------------------------------------------


def test_without_a_mood_nothing_is_added() -> None:
    """A fresh layer has no offsets and nothing to remember."""
    mood = MoodLayer()
    assert mood.values(5.0) == (0.0, 0.0)
    assert not mood.sample(5.0).controls.any()
    assert mood.sample(5.0).idle == 1.0
    assert mood.memory(5.0) is None


def test_a_mood_comes_within_a_second_and_is_gone_after_its_time() -> None:
    """Nothing at once, half on the way, all after the rise, less and less, nothing at the end."""
    mood = MoodLayer()
    mood.set(0.8, -0.4, 21.0, 100.0)
    assert mood.values(100.0) == (0.0, 0.0)
    assert mood.values(100.0 + RISE_S / 2) == pytest.approx((0.4, -0.2))
    assert mood.values(100.0 + RISE_S) == pytest.approx((0.8, -0.4))
    assert mood.values(100.0 + RISE_S + 10.0) == pytest.approx((0.4, -0.2))
    assert mood.values(121.0) == (0.0, 0.0) == mood.values(1e6)
    valences = [mood.values(101.0 + i / 10)[0] for i in range(200)]
    assert valences == sorted(valences, reverse=True)


def test_a_hurried_mood_still_takes_a_second() -> None:
    """Times below a second count as one: half of it in, half of it out."""
    mood = MoodLayer()
    mood.set(1.0, 0.0, 0.0, 0.0)
    assert mood.values(MIN_DECAY_S / 2)[0] == pytest.approx(1.0)
    assert mood.values(MIN_DECAY_S)[0] == 0.0


def test_a_new_mood_starts_from_the_one_on_screen() -> None:
    """Setting another one changes neither the value nor the velocity of that moment."""
    mood = MoodLayer()
    mood.set(1.0, 1.0, 30.0, 0.0)
    before = mood.values(0.499), mood.values(0.5)
    mood.set(-1.0, 0.0, 30.0, 0.5)
    after = mood.values(0.5), mood.values(0.501)
    assert after[0] == pytest.approx(before[1], abs=1e-12)
    for axis in (0, 1):
        rate = (before[1][axis] - before[0][axis]) * 1000
        assert rate > 1.0
        assert (after[1][axis] - after[0][axis]) * 1000 == pytest.approx(rate, abs=0.05)
    assert mood.values(0.5 + RISE_S) == pytest.approx((-1.0, 0.0))


@given(sets, st.floats(0.0, 1e6))
@settings(deadline=None)
def test_moods_stay_in_range_and_never_jump(
    script: list[tuple[float, float, float, float]], start_s: float
) -> None:
    """However it is set: values in [-1, 1], no faster than a hurried full swing, back to zero."""
    mood, now_s = MoodLayer(), start_s
    previous = (0.0, 0.0)
    for wait_s, valence, arousal, decay_s in [*script, (3.0, 0.0, 0.0, 0.0)]:
        for step in range(21):
            here = mood.values(now_s + wait_s * step / 20)
            assert all(-1.0 <= value <= 1.0 for value in here)
            moved = max(abs(b - a) for a, b in zip(previous, here, strict=True))
            assert moved <= 8.0 * wait_s / 20 + 1e-6
            previous = here
        now_s += wait_s
        mood.set(valence, arousal, decay_s, now_s)
    assert mood.values(now_s + MIN_DECAY_S) == (0.0, 0.0)


@given(sets)
@settings(deadline=None)
def test_velocity_never_jumps_either(script: list[tuple[float, float, float, float]]) -> None:
    """Around every change of mood the slope before is the slope after."""
    mood, now_s, h = MoodLayer(), 0.0, 1e-4
    for wait_s, valence, arousal, decay_s in script:
        now_s += wait_s + 0.01
        before = [b - a for a, b in zip(mood.values(now_s - h), mood.values(now_s), strict=True)]
        mood.set(valence, arousal, decay_s, now_s)
        after = [b - a for a, b in zip(mood.values(now_s), mood.values(now_s + h), strict=True)]
        for axis in (0, 1):
            # The acceleration is bounded but near the ends of the range, where the brake is short.
            assert abs(after[axis] - before[axis]) / h < 0.5


def test_a_quick_mood_near_its_end_is_braked_without_a_jerk() -> None:
    """What would run past 1 when it is interrupted comes to rest before it, not against it."""
    mood = MoodLayer()
    mood.set(1.0, 0.0, MIN_DECAY_S, 0.0)
    mood.set(1.0, 0.0, 60.0, 0.8 * MIN_DECAY_S / 2)
    track = [mood.values(0.4 + i / 1000)[0] for i in range(1500)]
    assert np.abs(np.diff(track, n=2)).max() < 1e-4


def test_setting_it_over_and_over_is_cheap_and_stays_smooth() -> None:
    """A flood of moods leaves one course each, and holds the value where it is."""
    mood = MoodLayer()
    values = []
    for i in range(5_000):
        mood.set(1.0 if i % 2 else -1.0, 0.5, 10.0, i / 1000)
        values.append(mood.values(i / 1000))
    assert np.abs(np.diff(values, axis=0)).max() < 0.01


def test_a_mood_that_is_sent_again_and_again_still_comes() -> None:
    """A producer that repeats itself thirty times a second gets what it asks for."""
    mood = MoodLayer()
    for i in range(120):
        mood.set(0.6, -0.6, 10.0, i / 30)
    assert mood.values(4.0) == pytest.approx((0.6, -0.6), abs=0.01)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_numbers_that_are_none_are_refused(wrong: float, place: int) -> None:
    """NaN and infinities change nothing."""
    mood = MoodLayer()
    arguments = [0.5, 0.5, 10.0]
    arguments[place] = wrong
    valence, arousal, decay_s = arguments
    with pytest.raises(ValueError, match="finite"):
        mood.set(valence, arousal, decay_s, 0.0)
    assert mood.memory(0.0) is None


def test_values_out_of_range_are_clamped() -> None:
    """More than 1 is 1."""
    mood = MoodLayer()
    mood.set(3.0, -7.0, 60.0, 0.0)
    assert mood.values(RISE_S) == (1.0, -1.0)


# --- on the face ------------------------------------------------------------------------------


def test_pleasant_moods_smile_and_unpleasant_ones_frown() -> None:
    """Valence moves lip corners and cheeks up, or lip corners down and inner brows up."""
    assert {"mouthSmileLeft", "cheekSquintRight"} <= on(settled(valence=1.0))
    assert {"mouthFrownLeft", "browInnerUp"} <= on(settled(valence=-1.0))
    assert not on(settled(valence=1.0)) & on(settled(valence=-1.0))


def test_aroused_moods_open_the_eyes_and_calm_ones_lower_the_lids() -> None:
    """Arousal widens eyes, raises brows and livens idle life; its lack does the opposite."""
    awake, calm = settled(arousal=1.0), settled(arousal=-1.0)
    assert {"eyeWideLeft", "browOuterUpRight"} <= on(awake)
    assert "eyeBlinkLeft" in on(calm)
    assert not on(awake) & on(calm)
    assert calm.idle < 1.0 < awake.idle


@given(signed, signed)
def test_a_mood_is_slight_and_even_on_both_sides(valence: float, arousal: float) -> None:
    """No control moves by more than a quarter, left and right move alike, idle life goes on."""
    offsets = settled(valence, arousal)
    assert offsets.controls.shape == (52,)
    assert offsets.controls.dtype == np.float32
    assert 0.0 <= offsets.controls.min() <= offsets.controls.max() <= 0.25
    assert 0.5 <= offsets.idle <= 1.5
    for name in on(offsets):
        if name.endswith("Left"):
            other = ARKIT_INDEX[name.removesuffix("Left") + "Right"]
            assert offsets.controls[ARKIT_INDEX[name]] == offsets.controls[other]


def test_half_a_mood_shows_about_half() -> None:
    """Offsets grow with the mood, without a kink where it changes sign."""
    smile = ARKIT_INDEX["mouthSmileLeft"]
    track = [float(settled(valence=v / 100).controls[smile]) for v in range(-100, 101)]
    assert track == sorted(track)
    assert track[:101] == [0.0] * 101
    assert 0.35 * track[-1] < track[150] < 0.55 * track[-1]
    assert np.abs(np.diff(track, n=2)).max() < 0.0003


# --- memory -----------------------------------------------------------------------------------


@given(sets.filter(bool), st.floats(0.0, 1.5))
@settings(deadline=None)
def test_a_mood_survives_a_restart(
    script: list[tuple[float, float, float, float]], wait_s: float
) -> None:
    """What was remembered is JSON; taken up, it comes back within a second and ends in time."""
    mood, now_s = play(script, 50.0)
    now_s += wait_s
    memory = json.loads(json.dumps(mood.memory(now_s)))
    other = MoodLayer()
    other.restore(memory, 7.0)
    if memory is None:
        assert mood.values(now_s + RISE_S) == (0.0, 0.0)
        assert other.values(8.0) == (0.0, 0.0)
        return
    left_s = max(memory["decay_s"], MIN_DECAY_S)
    assert other.values(7.0 + min(RISE_S, left_s / 2)) == pytest.approx(
        (memory["valence"], memory["arousal"])
    )
    assert other.values(7.0 + left_s) == (0.0, 0.0)


def test_memory_is_what_the_mood_is_heading_for() -> None:
    """Half way in, the whole mood is remembered; later, what is left of it, and for how long."""
    mood = MoodLayer()
    mood.set(0.8, -0.4, 21.0, 100.0)
    assert mood.memory(100.5) == {"valence": 0.8, "arousal": -0.4, "decay_s": 20.5}
    assert mood.memory(111.0) == pytest.approx({"valence": 0.4, "arousal": -0.2, "decay_s": 10.0})
    assert mood.memory(121.0) is None


@pytest.mark.parametrize(
    "memory",
    [
        "happy",
        [],
        7,
        {},
        {"valence": 0.5, "arousal": 0.5},
        {"valence": "0.5", "arousal": 0.5, "decay_s": 3.0},
        {"valence": True, "arousal": 0.5, "decay_s": 3.0},
        {"valence": 1.5, "arousal": 0.5, "decay_s": 3.0},
        {"valence": math.nan, "arousal": 0.5, "decay_s": 3.0},
        {"valence": 0.5, "arousal": -(10**400), "decay_s": 3.0},
        {"valence": 0.5, "arousal": None, "decay_s": 3.0},
        {"valence": 0.5, "arousal": 0.5, "decay_s": -1.0},
        {"valence": 0.5, "arousal": 0.5, "decay_s": math.inf},
    ],
)
def test_a_memory_that_makes_no_sense_is_refused(memory: object) -> None:
    """A damaged memory raises and leaves the mood as it is."""
    mood = MoodLayer()
    with pytest.raises(ValueError, match="mood"):
        mood.restore(memory, 0.0)
    assert mood.memory(0.0) is None


def test_no_memory_changes_nothing() -> None:
    """None is the memory of no mood."""
    mood = MoodLayer()
    mood.set(0.5, 0.0, 60.0, 0.0)
    mood.restore(None, 1.0)
    assert mood.values(1.0) == (0.5, 0.0)
