"""Simplified faces for renderers that draw ahead."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.expression.emotions import NEUTRAL, EmotionTable
from orchestrator.expression.idle import IdleLife
from orchestrator.expression.performance import Performance
from orchestrator.expression.sequencer import Sequencer
from orchestrator.expression.steps import LIDS, STEPS, every_step, lids, stepped
from orchestrator.settings import default_config_dir
from pipeline.ahead import is_near
from pipeline.frame_cache import face_code
from pipeline.types import Activity, ControlsMode, DirectControls, EmotionEvent, Policy

EMOTIONS = EmotionTable.load(default_config_dir() / "emotions.toml")
LABELS = [label for label in EMOTIONS.labels if label != NEUTRAL]


@st.composite
def weights_on_a_face(draw: st.DrawFn) -> dict[str, float]:
    """Label to weight, each within its emotion's maximum, in all at most 1."""
    shares = {
        label: draw(st.floats(0.0, EMOTIONS[label].maximum))
        for label in draw(st.sets(st.sampled_from(LABELS), max_size=4))
    }
    total = sum(shares.values())
    return {label: share / max(1.0, total) for label, share in shares.items()}


@given(weights_on_a_face())
def test_steps_are_near_and_never_too_much(weights: dict[str, float]) -> None:
    """Each weight moves by a step at most, is a step of its emotion, and the sum stays 1."""
    simple = stepped(weights, EMOTIONS)
    assert math.isclose(sum(simple.values()), 1.0)
    for label in LABELS:
        step = EMOTIONS[label].maximum / STEPS
        assert abs(simple.get(label, 0.0) - weights.get(label, 0.0)) <= step + 1e-9
        assert math.isclose(simple.get(label, 0.0) / step % 1.0, 0.0, abs_tol=1e-6) or math.isclose(
            simple.get(label, 0.0) / step % 1.0, 1.0, abs_tol=1e-6
        )


@given(weights_on_a_face())
def test_simplifying_twice_changes_nothing(weights: dict[str, float]) -> None:
    """A step's steps are itself, so that what was drawn ahead is found."""
    simple = stepped(weights, EMOTIONS)
    assert stepped(simple, EMOTIONS) == pytest.approx(simple)


def test_an_unknown_label_counts_as_neutral() -> None:
    """A label that a reload has taken away shows nothing."""
    assert stepped({"bliss": 0.5}, EMOTIONS) == {NEUTRAL: 1.0}


def test_every_step_starts_with_the_resting_face_and_covers_each_emotion_evenly() -> None:
    """Neutral with its blink first; the peaks of all emotions before anything in between."""
    steps = list(every_step(EMOTIONS))
    assert {lid for weights, lid in steps[: len(LIDS)]} == set(LIDS)
    assert all(weights == {NEUTRAL: 1.0} for weights, _ in steps[: len(LIDS)])
    peaks = steps[len(LIDS) : len(LIDS) + len(LABELS)]
    assert [max(w, key=lambda label: (label != NEUTRAL, w[label])) for w, _ in peaks] == LABELS
    assert len(steps) == len(LIDS) + len(LABELS) * (STEPS + len(LIDS) - 1)
    assert len({(tuple(weights.items()), lid) for weights, lid in steps}) == len(steps)


@pytest.mark.parametrize(("blink", "lid"), [(0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (1.0, 1.0)])
def test_lids_are_open_half_shut_or_shut(blink: float, lid: float) -> None:
    """A blink in between is the nearest of the three."""
    assert lids(blink) == lid


@pytest.mark.parametrize("label", LABELS)
def test_a_transition_passes_through_faces_that_are_drawn_ahead(label: str) -> None:
    """Whatever the weight on the way, its step is one of those, and near the real face."""
    performance = Performance(EMOTIONS, IdleLife(7))
    ahead = {face_code(face) for face, _ in performance.every_step()}
    for share in (0.0, 0.13, 0.5, 0.77, 1.0):
        weight = share * EMOTIONS[label].maximum
        weights = {NEUTRAL: 1.0 - weight, label: weight}
        now_s = 10.0 + share
        steps = performance.steps(weights, now_s)
        assert face_code(steps[-1][0]) in ahead
        assert is_near(steps[-1][0], performance.controls(weights, now_s))


def test_a_blink_comes_first_and_can_be_left_out() -> None:
    """With the lids shut, the same face with open ones is the second choice."""
    performance = Performance(EMOTIONS, IdleLife(3))
    rest = {NEUTRAL: 1.0}
    blinking = next(
        steps for tick in range(2000) if len(steps := performance.steps(rest, tick / 30)) == 2
    )
    shut, opened = (face for face, _ in blinking)
    assert shut["eyeBlinkLeft"] > opened["eyeBlinkLeft"] == 0.0


def test_direct_controls_have_no_simple_face() -> None:
    """A face tracker's face is not one of a few."""
    performance = Performance(EMOTIONS, IdleLife(3))
    message = DirectControls("c", ControlsMode.SET, {"jawOpen": 0.7})
    performance.inject("tracker", message, 1.0)
    assert performance.steps({NEUTRAL: 1.0}, 1.1) == ()


def test_speech_takes_its_share_of_the_mouth_from_the_steps_too() -> None:
    """While speaking an emotion has a third of its mouth."""
    performance = Performance(EMOTIONS, IdleLife(3, enabled=False))
    weights = {NEUTRAL: 0.15, "happy": 0.85}
    ((silent, _),) = performance.steps(weights, 1.0)
    performance.set_state(Activity.SPEAKING, 1.0)
    ((speaking, _),) = performance.steps(weights, 5.0)
    assert speaking["mouthSmileLeft"] < 0.5 * silent["mouthSmileLeft"]


# --- what is coming -----------------------------------------------------------------------


def test_what_is_coming_is_told_and_nothing_changes() -> None:
    """The weights of the next seconds are those that will be sampled then."""
    sequencer, twin = Sequencer(EMOTIONS), Sequencer(EMOTIONS)
    for each in (sequencer, twin):
        each.push(EmotionEvent("a", "happy", 0.8, hold_s=0.5), 1.0)
        each.push(EmotionEvent("b", "sad", 0.8, policy=Policy.QUEUE), 1.0)
        each.sample(1.1)
    coming = [dict(weights) for weights in sequencer.upcoming(1.1, 3.0, 0.1)]
    later = [dict(twin.sample(1.1 + 0.1 * step).weights) for step in range(1, 31)]
    assert coming == [pytest.approx(weights) for weights in later]
    assert max(weights["sad"] for weights in coming) > 0.5
    after = [dict(sequencer.sample(1.1 + 0.1 * step).weights) for step in range(1, 31)]
    assert after == [pytest.approx(weights) for weights in later]


def test_nothing_is_coming_on_an_empty_timeline() -> None:
    """A face at rest has no faces ahead."""
    assert list(Sequencer(EMOTIONS).upcoming(1.0, 3.0, 0.1)) == []


def test_the_faces_ahead_are_each_told_once_in_order() -> None:
    """An attack of eight steps is at most eight faces, rising."""
    sequencer = Sequencer(EMOTIONS)
    sequencer.push(EmotionEvent("a", "happy", 1.0), 0.0)
    performance = Performance(EMOTIONS, IdleLife(1))
    faces = list(performance.steps_ahead(sequencer.upcoming(0.0, 1.0, 1 / 60), 0.0))
    smiles = [weights.get("happy", 0.0) for _, weights in faces]
    assert 3 <= len(smiles) <= STEPS + 1
    assert all(a < b for a, b in pairwise(smiles))
