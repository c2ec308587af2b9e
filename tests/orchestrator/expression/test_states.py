"""States: what each does to idle life, and how one becomes another."""

from __future__ import annotations

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expression.blending import compose
from orchestrator.expression.emotions import BASIC_EMOTIONS, Emotion, EmotionTable
from orchestrator.expression.idle import IdleLife
from orchestrator.expression.performance import Performance
from orchestrator.expression.states import CHANGE_S, IDLE_SETS, MERGED_S, IdleSet, StateLayer
from pipeline.types import Activity, FaceControls

BLANK = EmotionTable(Emotion(label, (), 0.8, 0.1, 1.0, 0.1) for label in BASIC_EMOTIONS)
states = st.sampled_from(list(Activity))
gaps = st.floats(0.0, 1.0)


def faces(state: Activity, seconds: float = 120.0) -> list[FaceControls]:
    """A neutral face in that state, ten times a second."""
    performance = Performance(BLANK, IdleLife(4))
    performance.set_state(state, -10.0)
    return [performance.controls({"neutral": 1.0}, i / 10) for i in range(int(seconds * 10))]


def series(found: list[FaceControls], angle: str) -> np.ndarray:
    return np.array([getattr(face, angle) for face in found])


# --- what they look like --------------------------------------------------------------------


def test_every_state_has_a_set_and_idle_changes_nothing() -> None:
    """The idle state is idle life as it is."""
    assert set(IDLE_SETS) == set(Activity)
    life = IdleLife(4)
    for i, face in enumerate(faces(Activity.IDLE, 20.0)):
        plain = compose({"neutral": 1.0}, BLANK, idle=life.sample(i / 10))
        np.testing.assert_allclose(face.weights, plain.weights, atol=1e-6)
        assert face.yaw == pytest.approx(plain.yaw, abs=1e-5)


def test_listening_leans_in_and_blinks_less() -> None:
    """The head is a little down and tilted, and fewer of the same blinks happen."""
    idle, listening = faces(Activity.IDLE, 600.0), faces(Activity.LISTENING, 600.0)
    for angle in ("pitch", "roll"):
        assert 1.0 < (series(listening, angle) - series(idle, angle)).mean() < 5.0
    blinks = [sum(face["eyeBlinkLeft"] > 0.5 for face in each) for each in (idle, listening)]
    assert 0.3 < blinks[1] / blinks[0] < 0.8


def test_thinking_looks_up_and_aside() -> None:
    """Both eyes go the same way, and the head goes along a little."""
    thinking = [face for face in faces(Activity.THINKING) if face["eyeBlinkLeft"] == 0.0]
    for name in ("eyeLookUpLeft", "eyeLookUpRight", "eyeLookOutLeft", "eyeLookInRight"):
        assert np.mean([face[name] for face in thinking]) > 0.25, name
    assert series(thinking, "yaw").mean() < -1.5  # the character's left, as the eyes
    assert series(thinking, "pitch").mean() < -1.0


def test_speaking_moves_more() -> None:
    """The head sways further in every angle."""
    idle, speaking = faces(Activity.IDLE), faces(Activity.SPEAKING)
    for angle in ("pitch", "yaw", "roll"):
        assert np.ptp(series(speaking, angle)) > 1.4 * np.ptp(series(idle, angle))
    assert IDLE_SETS[Activity.SPEAKING].mouth == pytest.approx(1 / 3)


# --- how they change -----------------------------------------------------------------------


def test_a_change_takes_its_time() -> None:
    """From one set to the other in 0.6 s, half of it half way, and still before and after."""
    layer = StateLayer()
    assert layer.at(0.0) == IDLE_SETS[Activity.IDLE]
    layer.set(Activity.THINKING, 1.0)
    assert layer.state is Activity.THINKING
    assert layer.at(1.0) == IDLE_SETS[Activity.IDLE]
    assert layer.at(1.0 + CHANGE_S / 2).gaze_x == pytest.approx(0.31)
    for t_s in (1.0 + CHANGE_S, 5.0, 500.0):
        assert astuple(layer.at(t_s)) == pytest.approx(astuple(IDLE_SETS[Activity.THINKING]))


@given(st.lists(st.tuples(gaps, states), max_size=12))
@settings(deadline=None)
def test_changes_on_the_way_are_smooth_and_in_range(changes: list[tuple[float, Activity]]) -> None:
    """Neither value nor velocity jumps, no number leaves the range of the sets, the last wins."""
    layer, now_s, step_s = StateLayer(), 0.0, 0.005
    track = []
    for gap_s, state in changes:
        until_s = now_s + gap_s
        while now_s < until_s:
            track.append(astuple(layer.at(now_s)))
            now_s += step_s
        layer.set(state, now_s)
    for _ in range(int(1.2 * CHANGE_S / step_s)):
        track.append(astuple(layer.at(now_s)))
        now_s += step_s
    sets = np.array([astuple(each) for each in IDLE_SETS.values()])
    numbers, span = np.array(track), np.ptp(sets, axis=0)
    assert (numbers >= sets.min(axis=0) - 1e-9).all()
    assert (numbers <= sets.max(axis=0) + 1e-9).all()
    assert (np.abs(np.diff(numbers, axis=0)) <= 3.0 * span * step_s / CHANGE_S + 1e-9).all()
    assert (np.abs(np.diff(numbers, n=2, axis=0)) <= 0.01 * span + 1e-9).all()
    last = changes[-1][1] if changes else Activity.IDLE
    assert track[-1] == pytest.approx(astuple(IDLE_SETS[last]))


def test_the_recent_past_can_be_asked_for() -> None:
    """A blink that began before is judged by the share of then."""
    layer = StateLayer()
    layer.set(Activity.LISTENING, 1.0)
    then = layer.at(1.3)
    assert IDLE_SETS[Activity.LISTENING].blinks < then.blinks < 1.0
    layer.at(1.8)
    assert layer.at(1.3) == then
    layer.set(Activity.IDLE, 1.8)
    assert layer.at(1.3) == then


def test_what_has_been_shown_stays() -> None:
    """A change told for a moment that has been sampled begins with that moment."""
    layer = StateLayer()
    layer.at(1.0)
    layer.set(Activity.THINKING, 0.97)
    assert layer.at(1.0) == IdleSet()


def test_a_flood_of_changes_is_bounded() -> None:
    """Changes that come too close to be seen apart are one, and old ones are forgotten."""
    layer = StateLayer()
    for i in range(20_000):
        layer.set(list(Activity)[i % 4], i / 5000)
        if i % 100 == 0:
            layer.at(i / 5000)
        assert len(layer._moves) <= 2.0 / MERGED_S
    assert astuple(layer.at(10.0)) == pytest.approx(astuple(IDLE_SETS[layer.state]))


def test_blinks_are_whole_across_changes() -> None:
    """However the state changes, lids move as in a blink or not at all."""
    performance, life = Performance(BLANK, IdleLife(4)), IdleLife(4)
    lids = []
    for i in range(60 * 120):
        t_s = i / 60
        if i % 37 == 0:
            performance.set_state(list(Activity)[i // 37 % 4], t_s)
        lids.append(performance.controls({"neutral": 1.0}, t_s)["eyeBlinkLeft"])
        assert lids[-1] in (0.0, pytest.approx(life.sample(t_s).blink, abs=1e-6))
    assert max(abs(b - a) for a, b in pairwise(lids)) < 0.45
    assert max(lids) == 1.0
