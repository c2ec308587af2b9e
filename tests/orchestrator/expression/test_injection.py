"""Direct controls: what `set` and `add` do to a face, how they come, lapse and combine."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expression.blending import compose
from orchestrator.expression.emotions import EmotionTable, shape_of
from orchestrator.expression.idle import IdleOffsets
from orchestrator.expression.injection import FADE_S, LAPSE_S, MAX_SOURCES, SMOOTHING_S, Injection
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import ARKIT_BLENDSHAPES, ControlsMode, DirectControls, FaceControls

TABLE = EmotionTable.load(Path(__file__).parents[3] / "config" / "emotions.toml")
NEUTRAL = {"neutral": 1.0}
HAPPY = {"neutral": 0.2, "happy": 0.8}
SETTLED_S = 0.5
ANGLES = ("pitch", "yaw", "roll")

unit = st.floats(0.0, 1.0)
messages = st.builds(
    DirectControls,
    mode=st.sampled_from(ControlsMode),
    weights=st.dictionaries(st.sampled_from(ARKIT_BLENDSHAPES), unit, max_size=60),
    head=st.dictionaries(st.sampled_from(ANGLES), st.floats(-45, 45)),
    weight=unit,
)


def message(mode: str = "set", weight: float = 1.0, **named: float) -> DirectControls:
    head = {name: value for name, value in named.items() if name in ANGLES}
    weights = {name: value for name, value in named.items() if name not in ANGLES}
    return DirectControls(None, ControlsMode(mode), weights, head, weight)


def face_with(
    *sent: DirectControls, weights: dict[str, float] = NEUTRAL, **layers: Any
) -> FaceControls:
    """The face half a second after each of these producers has sent its message."""
    injection = Injection()
    for source, each in enumerate(sent):
        injection.send(source, each, 0.0)
    return compose(weights, TABLE, injected=injection.sample(SETTLED_S), **layers)


# --- what they do ---------------------------------------------------------------------------


def test_set_gives_these_controls_over_whatever_is_on() -> None:
    """At full weight the named controls and angles are what was sent, idle life or not."""
    idle = IdleOffsets(blink=1.0, gaze_x=0.2, gaze_y=-0.1, pitch=1.0, yaw=2.0, roll=3.0)
    sent = message(jawOpen=0.8, eyeBlinkLeft=0.1, eyeLookUpLeft=0.3, yaw=-9.0)
    face = face_with(sent, weights={"neutral": 0.1, "surprised": 0.9}, idle=idle)
    for name in ("jawOpen", "eyeBlinkLeft", "eyeLookUpLeft"):
        assert face[name] == pytest.approx(sent.weights[name], abs=1e-6)
    assert face["eyeLookDownLeft"] == 0.0
    assert face.yaw == pytest.approx(-9.0, abs=1e-5)
    without = compose({"neutral": 0.1, "surprised": 0.9}, TABLE, idle=idle)
    for name in ("browInnerUp", "eyeBlinkRight", "mouthFunnel"):
        assert face[name] == pytest.approx(without[name], abs=1e-6)
    assert face.roll == pytest.approx(without.roll, abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_set_cross_fades_by_its_weight(weight: float) -> None:
    """Half the weight is half way from what the emotions give."""
    happy = compose(HAPPY, TABLE)
    face = face_with(message(weight=weight, mouthSmileLeft=0.1, pitch=10.0), weights=HAPPY)
    expected = (1 - weight) * happy["mouthSmileLeft"] + weight * 0.1
    assert face["mouthSmileLeft"] == pytest.approx(expected, abs=1e-6)
    assert face.pitch == pytest.approx((1 - weight) * happy.pitch + weight * 10.0, abs=1e-5)
    assert face["mouthSmileRight"] == pytest.approx(happy["mouthSmileRight"], abs=1e-6)


def test_add_adds_within_the_range() -> None:
    """On top of the emotion, times the weight, clamped."""
    happy = compose(HAPPY, TABLE)
    face = face_with(message("add", 0.5, jawOpen=0.4, mouthSmileLeft=1.0, roll=8.0), weights=HAPPY)
    assert face["jawOpen"] == pytest.approx(happy["jawOpen"] + 0.2, abs=1e-6)
    assert face["mouthSmileLeft"] == 1.0
    assert face.roll == pytest.approx(happy.roll + 4.0, abs=1e-5)


def test_producers_combine_in_the_written_order() -> None:
    """Sets from the first at the bottom to the last on top, then the sum of all adds."""
    face = face_with(
        message("add", jawOpen=0.1),
        message(weight=1.0, jawOpen=0.8, browInnerUp=0.4),
        message(weight=0.5, jawOpen=0.2),
        message("add", jawOpen=0.05),
    )
    assert face["jawOpen"] == pytest.approx(0.5 * 0.8 + 0.5 * 0.2 + 0.15, abs=1e-6)
    assert face["browInnerUp"] == pytest.approx(0.4, abs=1e-6)


def test_a_producers_newest_message_counts() -> None:
    """What an earlier one named and this one does not is the emotions' again."""
    injection = Injection()
    injection.send("a", message(jawOpen=0.8), 0.0)
    injection.send("a", message("add", cheekPuff=0.6), 0.3)
    face = compose(NEUTRAL, TABLE, injected=injection.sample(0.3 + SETTLED_S))
    assert face["jawOpen"] == pytest.approx(0.0, abs=1e-6)
    assert face["cheekPuff"] == pytest.approx(0.6, abs=1e-6)


REST = FaceControls.of(mouthClose=0.5, mouthFrownLeft=0.2, mouthFrownRight=0.2, browInnerUp=0.1)


def test_controls_are_relative_to_the_characters_neutral_face() -> None:
    """All at 0 is the resting face; an open jaw parts the lips that the correction closes."""
    nothing = DirectControls(
        weights=dict.fromkeys(ARKIT_BLENDSHAPES, 0.0), head=dict.fromkeys(ANGLES, 0.0)
    )
    angry = {"neutral": 0.1, "angry": 0.9}
    face = face_with(nothing, weights=angry, rest=REST)
    np.testing.assert_allclose(
        shape_of(face), shape_of(compose(NEUTRAL, TABLE, rest=REST)), atol=1e-5
    )
    opened = face_with(message(jawOpen=0.8), rest=REST)
    assert opened["jawOpen"] == pytest.approx(0.8)
    assert opened["mouthClose"] == 0.0
    closed = face_with(message(jawOpen=0.0), weights={"neutral": 0.0, "surprised": 1.0}, rest=REST)
    assert closed["mouthClose"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("label", TABLE.labels[1:])
def test_an_emotions_controls_sent_directly_are_its_face(label: str) -> None:
    """The same controls look the same whoever they come from, resting correction included."""
    maximum = TABLE[label].maximum
    weights = {"neutral": 1 - maximum, label: maximum}
    shown = compose(weights, TABLE)
    named = {name: shown[name] for name in ARKIT_BLENDSHAPES}
    head = {"pitch": shown.pitch, "yaw": shown.yaw, "roll": shown.roll}
    sent = DirectControls(weights=named, head=head)
    wanted = compose(weights, TABLE, rest=REST)
    np.testing.assert_allclose(shape_of(face_with(sent, rest=REST)), shape_of(wanted), atol=1e-4)


@given(st.lists(messages, max_size=4), st.sampled_from([0.005, 0.05, SETTLED_S, 1.1]))
@settings(deadline=None)
def test_whatever_is_sent_the_face_is_in_range(sent: list[DirectControls], t_s: float) -> None:
    """Any producers, any controls: a face that can be drawn."""
    injection = Injection()
    for source, each in enumerate(sent):
        injection.send(source % 3, each, 0.002 * source)
    face = compose(HAPPY, TABLE, injected=injection.sample(t_s), rest=REST)
    for one, other in (("eyeLookUpLeft", "eyeLookDownLeft"), ("jawLeft", "jawRight")):
        assert min(face[one], face[other]) == 0.0


# --- when they do it ------------------------------------------------------------------------


def jaw(injection: Injection, now_s: float) -> float:
    injected = injection.sample(now_s)
    return 0.0 if injected is None else float(injected.add[ARKIT_BLENDSHAPES.index("jawOpen")])


@pytest.mark.parametrize("rate_hz", [30.0, 60.0])
def test_a_stream_looks_continuous_and_is_hardly_late(rate_hz: float) -> None:
    """Between two messages it moves on smoothly; on the whole it is late by less than a frame."""
    injection, track, wanted = Injection(), [], []
    for number in range(int(rate_hz)):
        t_s = number / rate_hz
        injection.send("a", message(jawOpen=0.5 + 0.5 * np.sin(6.0 * t_s)), t_s)
        for step in range(10):
            at_s = t_s + step / rate_hz / 10
            track.append(jaw(injection, at_s))
            wanted.append(0.5 + 0.5 * np.sin(6.0 * (at_s - SMOOTHING_S - 0.5 / rate_hz)))
    error = np.abs(np.array(track) - wanted)[100:]
    assert error.max() < 0.5 * 6.0 / rate_hz
    steps = np.abs(np.diff(track[100:]))
    assert steps.max() < 0.5 * np.abs(np.diff(wanted[100::10])).max()
    assert SMOOTHING_S < 1 / 60


def test_they_come_at_once_and_lapse_softly() -> None:
    """There within a frame, held for a second, gone a fifth of a second later, without a jump."""
    injection = Injection()
    injection.send("a", message(jawOpen=0.8), 10.0)
    assert jaw(injection, 10.0) == 0.0
    assert jaw(injection, 10.0 + 1 / 30) > 0.75
    assert jaw(injection, 10.0 + LAPSE_S) == pytest.approx(0.8)
    fading = [jaw(injection, 10.0 + LAPSE_S + FADE_S * i / 100) for i in range(101)]
    assert fading == sorted(fading, reverse=True)
    assert max(a - b for a, b in pairwise(fading)) < 0.015
    assert fading[-1] == 0.0
    assert injection.sample(10.0 + LAPSE_S + FADE_S) is None


def test_every_message_holds_off_the_lapse() -> None:
    """A slow stream stays; what comes while it fades brings it back from where it is."""
    injection = Injection()
    for number in range(5):
        injection.send("a", message(jawOpen=0.8), 0.9 * number)
        assert jaw(injection, 0.9 * number + 0.89) == pytest.approx(0.8)
    half_s = 0.9 * 4 + LAPSE_S + FADE_S / 2
    before = jaw(injection, half_s)
    assert before == pytest.approx(0.4, abs=0.01)
    injection.send("a", message(jawOpen=0.8), half_s)
    assert jaw(injection, half_s) == pytest.approx(before)
    assert jaw(injection, half_s + 0.1) == pytest.approx(0.8, abs=1e-3)


def test_it_is_active_until_a_sample_was_without() -> None:
    """Whoever draws knows that one more face is needed to be rid of them."""
    injection = Injection()
    assert not injection.active
    injection.send("a", message(jawOpen=0.8), 0.0)
    injection.sample(LAPSE_S + FADE_S - 0.01)
    assert injection.active
    injection.sample(50.0)
    assert not injection.active


def test_the_number_of_producers_is_bounded() -> None:
    """One too many is refused; those that have lapsed leave room."""
    injection = Injection()
    for source in range(MAX_SOURCES):
        injection.send(source, message(jawOpen=0.1), 0.0)
    with pytest.raises(InvalidEventError) as caught:
        injection.send("late", message(jawOpen=0.1), 0.0)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    injection.send(0, message(jawOpen=0.1), 1.0)
    injection.send("late", message(jawOpen=0.1), LAPSE_S + FADE_S)
    assert len(injection) == 2
