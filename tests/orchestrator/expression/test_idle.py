"""Idle life: when blinks come and what they look like, and that any moment can be asked for."""

from __future__ import annotations

import math
import random
from dataclasses import astuple, fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expression.idle import (
    DOUBLE_GAP_S,
    GAZE_HOME,
    IdleAmplitude,
    IdleLife,
    IdleOffsets,
    lids_shut,
)

MONTHS_S = 200 * 86400.0
seeds = st.integers(0, 2**64)
moments = st.floats(-1e5, 4e7)


STEP_S = 0.02


def blinker(seed: int, rate: float = 1.0) -> IdleLife:
    """Nothing but blinks."""
    return IdleLife(seed, blink=rate, gaze=0, breath=0, sway=0)


def blinks(life: IdleLife, begin_s: float, seconds: float) -> list[tuple[float, float]]:
    """(start, end) of each time that the lids leave and reach their rest, to 20 ms."""
    times = [begin_s + i * STEP_S for i in range(int(seconds / STEP_S))]
    moving = np.array([life.sample(t).blink > 0.0 for t in times])
    edges = np.flatnonzero(np.diff(moving.astype(int)))
    if moving[0]:
        edges = edges[1:]
    pairs = edges[: len(edges) // 2 * 2].reshape(-1, 2)
    return [(times[a], times[b + 1]) for a, b in pairs]


def groups(found: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Blinks, with the two of a double together."""
    joined: list[list[tuple[float, float]]] = []
    for blink in found:
        if joined and blink[0] - joined[-1][-1][1] < DOUBLE_GAP_S + 0.05:
            joined[-1].append(blink)
        else:
            joined.append([blink])
    return joined


# --- blinks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "begin_s"), [(1, 0.0), (5, -300.0), (2**63, MONTHS_S)])
def test_blinks_come_one_and_a_half_to_six_seconds_apart(seed: int, begin_s: float) -> None:
    """From the end of one to the next, and from start to start; a double counts as one."""
    found = groups(blinks(blinker(seed), begin_s, 600.0))
    gaps = [b[0][0] - a[-1][1] for a, b in pairwise(found)]
    periods = [b[0][0] - a[0][0] for a, b in pairwise(found)]
    assert min(gaps) >= 1.5 - 2 * STEP_S
    assert max(periods) <= 6.0 + 2 * STEP_S
    assert max(periods) - min(periods) > 2.0


def test_the_rate_is_a_person_s() -> None:
    """About 15 a minute, and now and then a double, never three in a row."""
    found = groups(blinks(blinker(3), 0.0, 1200.0))
    sizes = [len(group) for group in found]
    assert 14 <= len(found) / 20 <= 17
    assert 0.03 < sizes.count(2) / len(sizes) < 0.25
    assert set(sizes) == {1, 2}


def test_every_blink_is_a_whole_one() -> None:
    """Each lasts about 210 ms and is shut for about 50 ms of it."""
    life = blinker(9)
    for start, end in blinks(life, MONTHS_S, 120.0):
        lids = [life.sample(start + i * 0.001).blink for i in range(240)]
        assert 0.17 <= end - start <= 0.26
        assert 45 <= sum(lid == 1.0 for lid in lids) <= 55


def test_a_blink_has_a_real_blink_s_shape() -> None:
    """Lids close in 60 ms, stay shut for 50 and open in 100, each without a jerk."""
    lids = [lids_shut(ms / 1000) for ms in range(-20, 240)]
    at = dict(zip(range(-20, 240), lids, strict=True))
    assert at[-20] == at[0] == 0.0 == pytest.approx(at[210]) == at[239]
    assert 0.0 < at[10] < 0.2 < at[30] == pytest.approx(0.5)
    assert all(at[ms] == pytest.approx(1.0) for ms in range(60, 111))
    assert at[160] == pytest.approx(0.5)
    assert all(at[ms] <= at[ms + 1] for ms in range(60))
    assert all(at[ms] >= at[ms + 1] for ms in range(110, 239))
    assert np.abs(np.diff(lids, n=2)).max() < 0.002


@pytest.mark.parametrize("rate", [0.5, 2.0, 4.0])
def test_the_blink_rate_can_be_set(rate: float) -> None:
    """Twice the setting, twice the blinks, none of them cut short or run together."""
    found = groups(blinks(blinker(4, rate), 0.0, 600.0))
    assert len(found) / 10 == pytest.approx(15.56 * rate, rel=0.05)
    assert all(end - start >= 0.17 for group in found for start, end in group)
    assert max(len(group) for group in found) <= 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_blinks_can_be_fewer(share: float) -> None:
    """So many of them happen, those as ever; the others are left out whole."""
    life = blinker(3)
    every, moments = [], [i * STEP_S for i in range(60_000)]
    for t_s in moments:
        full, some = life.sample(t_s).blink, life.sample(t_s, blinks=lambda _: share).blink
        assert some in {0.0, full}
        if full == 1.0:
            every.append(some)
    assert np.mean(every) == pytest.approx(share, abs=0.08)


def test_a_blink_is_decided_when_it_starts() -> None:
    """A share that changes meanwhile cuts none off and lets none pop up half way."""
    life = blinker(3)
    for start, end in blinks(life, 0.0, 60.0):
        middle = (start + end) / 2
        for before in (0.0, 1.0):
            shares = lambda t_s: before if t_s < middle else 1.0 - before  # noqa: E731, B023
            for i in range(25):
                t_s = start + i * (end - start) / 24
                lids = life.sample(t_s, blinks=shares).blink
                assert lids == before * life.sample(t_s).blink


# --- gaze, breath, sway -----------------------------------------------------------------------


def test_gaze_rests_half_a_second_to_three_between_quick_shifts() -> None:
    """The eyes hold still, then jump within 50 ms, and often come back to the viewer."""
    life = IdleLife(6, blink=0, breath=0, sway=0)
    track = np.array([(s.gaze_x, s.gaze_y) for s in (life.sample(i / 200) for i in range(60_000))])
    moving = np.abs(np.diff(track, axis=0)).max(axis=1) > 0.0
    edges = np.flatnonzero(np.diff(moving.astype(int))) / 200
    if moving[0]:
        edges = edges[1:]
    shifts, rests = edges[1::2] - edges[0::2][: len(edges[1::2])], edges[2::2] - edges[1:-1:2]
    assert shifts.max() <= 0.06
    assert 0.5 - 0.01 <= rests.min() < 0.8
    assert 2.5 < rests.max() <= 3.0 + 0.01
    assert np.abs(track[:, 0]).max() < 0.3
    assert np.abs(track[:, 1]).max() < 0.2
    assert 0.4 < (np.abs(track).max(axis=1) <= GAZE_HOME).mean() < 0.75


def test_breath_is_a_slow_nod() -> None:
    """Breath alone moves the pitch up and down about fifteen times a minute, below a degree."""
    life = IdleLife(2, gaze=0, sway=0, blink=0)
    samples = [life.sample(i / 20) for i in range(20 * 600)]
    pitch = np.array([s.pitch for s in samples])
    breaths = np.count_nonzero((pitch[:-1] < 0) & (pitch[1:] >= 0))
    assert 130 <= breaths <= 170
    assert 0.3 < pitch.max() < 1.0
    assert all((s.yaw, s.roll) == (0.0, 0.0) for s in samples)


@pytest.mark.parametrize("seed", range(4))
def test_the_head_sways_a_little_and_slowly(seed: int) -> None:
    """All three angles wander by more than half a degree, never by more than two, nor fast."""
    life = IdleLife(seed, breath=0)
    track = np.array([astuple(life.sample(i / 20))[3:] for i in range(20 * 300)])
    assert np.abs(track).max() <= 2.0
    assert np.ptp(track, axis=0).min() > 0.7
    assert np.abs(np.diff(track, axis=0)).max() * 20 < 2.5


# --- a function of (seed, t) -------------------------------------------------------------------


@given(seeds, st.lists(moments, min_size=2, max_size=12))
@settings(deadline=None)
def test_any_moment_can_be_asked_for_in_any_order(seed: int, times: list[float]) -> None:
    """What was asked before, and of which object, makes no difference."""
    life = IdleLife(seed)
    forwards = {t: life.sample(t) for t in sorted(times)}
    shuffled = random.Random(seed).sample(times, len(times))
    assert all(life.sample(t) == forwards[t] == IdleLife(seed).sample(t) for t in shuffled)


@given(seeds, moments)
@settings(deadline=None)
def test_nothing_jumps(seed: int, t_s: float) -> None:
    """Within a millisecond no part moves further than its quickest movement does."""
    life = IdleLife(seed)
    before, after = astuple(life.sample(t_s)), astuple(life.sample(t_s + 0.001))
    most = (0.03, 0.02, 0.02, 0.01, 0.01, 0.01)
    assert all(abs(b - a) <= m for a, b, m in zip(before, after, most, strict=True))


def test_no_interval_border_shows() -> None:
    """Half a minute at a millisecond's step, months after the start: no jump anywhere."""
    life = IdleLife(11, blink=4)
    track = np.array([astuple(life.sample(MONTHS_S + i / 1000)) for i in range(30_000)])
    assert (
        np.abs(np.diff(track, axis=0)).max(axis=0) <= (0.03, 0.02, 0.02, 0.01, 0.01, 0.01)
    ).all()


def test_different_seeds_live_differently() -> None:
    """Two characters do not blink, glance or sway in step."""
    one, other = ([IdleLife(seed).sample(i / 10) for i in range(600)] for seed in (1, 2))
    for part in fields(IdleOffsets):
        values = [[getattr(s, part.name) for s in life] for life in (one, other)]
        assert values[0] != values[1], part.name
        if part.name != "blink":
            assert abs(np.corrcoef(values)[0, 1]) < 0.9, part.name


def test_a_life_does_not_repeat_itself() -> None:
    """Ten hours of glances go to ever new places."""
    life = IdleLife(1, blink=0, breath=0, sway=0)
    assert len({life.sample(4.0 * i).gaze_x for i in range(9_000)}) == 9_000


def test_years_are_as_exact_as_seconds() -> None:
    """Ten years on there are still blinks, glances and sway, and time still moves them."""
    begin_s = 10 * 365 * 86400.0
    life = IdleLife(1)
    assert len(blinks(life, begin_s, 30.0)) >= 5
    a, b = life.sample(begin_s), life.sample(begin_s + 1 / 60)
    assert a.yaw != b.yaw
    assert math.isclose(a.yaw, b.yaw, abs_tol=0.05)


# --- settings ----------------------------------------------------------------------------------


@given(seeds, moments)
def test_switched_off_nothing_moves(seed: int, t_s: float) -> None:
    """Disabled, or with every part at 0, idle life adds nothing at all."""
    for life in (IdleLife(seed, enabled=False), IdleLife(seed, blink=0, gaze=0, breath=0, sway=0)):
        assert life.sample(t_s) == IdleOffsets()


@pytest.mark.parametrize(
    ("part", "moves"),
    [
        ("blink", {"blink"}),
        ("gaze", {"gaze_x", "gaze_y"}),
        ("sway", {"pitch", "yaw", "roll"}),
        ("breath", {"pitch"}),
    ],
)
def test_each_part_can_be_on_alone(part: str, moves: set[str]) -> None:
    """A part at 1 among parts at 0 moves what is its own."""
    on = {name: float(name == part) for name in ("blink", "gaze", "breath", "sway")}
    life = IdleLife(7, **on)  # type: ignore[arg-type]
    samples = [life.sample(i / 20) for i in range(600)]
    moved = {f.name for f in fields(IdleOffsets) if any(getattr(s, f.name) for s in samples)}
    assert moved == moves


@given(seeds, moments)
def test_sizes_scale_with_settings_and_amplitude_alike(seed: int, t_s: float) -> None:
    """Half the setting is half the movement, and so is half the amplitude; blinks stay whole."""
    full = IdleLife(seed).sample(t_s)
    small = IdleLife(seed, gaze=0.5, breath=0.5, sway=0.5).sample(t_s)
    calm = IdleLife(seed).sample(t_s, IdleAmplitude(0.5, 0.5, 0.5))
    assert small.blink == calm.blink == full.blink
    for part in ("gaze_x", "gaze_y", "pitch", "yaw", "roll"):
        half = pytest.approx(getattr(full, part) / 2, abs=1e-12)
        assert getattr(small, part) == half == getattr(calm, part)


def test_amplitudes_belong_to_their_parts() -> None:
    """Gaze, sway and breath are scaled apart."""
    life = IdleLife(8)
    t_s = next(i / 10 for i in range(1000) if abs(life.sample(i / 10).gaze_x) > 0.1)
    full = life.sample(t_s)
    still = life.sample(t_s, IdleAmplitude(gaze=0.0))
    assert (still.gaze_x, still.gaze_y) == (0.0, 0.0)
    assert astuple(still)[3:] == astuple(full)[3:]
    breath = life.sample(t_s, IdleAmplitude(sway=0.0))
    assert breath.pitch == IdleLife(8, sway=0).sample(t_s).pitch != 0.0
    assert (breath.yaw, breath.roll, breath.gaze_x) == (0.0, 0.0, full.gaze_x)
    sway = life.sample(t_s, IdleAmplitude(breath=0.0))
    assert sway.pitch + breath.pitch == pytest.approx(full.pitch)


@pytest.mark.parametrize("part", ["blink", "gaze", "breath", "sway"])
@pytest.mark.parametrize("value", [-0.1, 4.1, math.nan])
def test_a_setting_out_of_range_is_refused(part: str, value: float) -> None:
    """Settings go from 0 to 4."""
    with pytest.raises(ValueError, match=part):
        IdleLife(1, **{part: value})  # type: ignore[arg-type]
