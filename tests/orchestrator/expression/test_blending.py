"""Layers to one face: mixtures, gains, resting correction, mood, idle life, ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expression.blending import compose, idle_amplitude
from orchestrator.expression.emotions import BASIC_EMOTIONS, Emotion, EmotionTable, shape_of
from orchestrator.expression.idle import IdleAmplitude, IdleOffsets
from orchestrator.expression.mood import MoodOffsets
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls

TABLE = EmotionTable.load(Path(__file__).parents[3] / "config" / "emotions.toml")
OPPOSITES = [
    ("eyeLookUpLeft", "eyeLookDownLeft"), ("eyeLookUpRight", "eyeLookDownRight"),
    ("eyeLookInLeft", "eyeLookOutLeft"), ("eyeLookInRight", "eyeLookOutRight"),
    ("jawLeft", "jawRight"), ("mouthLeft", "mouthRight"),
]  # fmt: skip


def table_with(**faces: FaceControls) -> EmotionTable:
    """The seven emotions, blank but for the given faces."""
    return EmotionTable(
        Emotion(label, (), 0.8, 0.1, 1.0, 0.1, faces.get(label, FaceControls()))
        for label in BASIC_EMOTIONS
    )


def mood(idle: float = 1.0, **named: float) -> MoodOffsets:
    return MoodOffsets(FaceControls.of(**named).weights, idle)


unit = st.floats(0.0, 1.0)


@st.composite
def face_weights(draw: st.DrawFn) -> dict[str, float]:
    """Weights that sum to 1, neutral included, as the sequencer hands them over."""
    parts = {label: draw(unit) for label in BASIC_EMOTIONS}
    total = sum(parts.values()) or 1.0
    weights = {label: part / total for label, part in parts.items() if label != "neutral"}
    return {"neutral": max(0.0, 1.0 - sum(weights.values()))} | weights


@st.composite
def faces(draw: st.DrawFn) -> FaceControls:
    return FaceControls(
        np.array(draw(st.lists(unit, min_size=52, max_size=52)), np.float32),
        *(draw(st.floats(-45, 45)) for _ in range(3)),
    )


angle = st.floats(-60, 60)
idles = st.builds(
    IdleOffsets, unit, st.floats(-2, 2), st.floats(-2, 2), pitch=angle, yaw=angle, roll=angle
)


# --- emotions -------------------------------------------------------------------------------


def test_neutral_alone_is_a_still_face() -> None:
    """Nothing on the face: nothing moves."""
    assert not shape_of(compose({"neutral": 1.0}, TABLE)).any()


@pytest.mark.parametrize("label", TABLE.labels)
def test_a_full_weight_is_the_emotion_itself(label: str) -> None:
    """At weight 1 the face is what the table says."""
    face = compose({"neutral": 0.0, label: 1.0}, TABLE)
    np.testing.assert_allclose(shape_of(face), shape_of(TABLE[label].controls), atol=1e-6)


def test_two_emotions_look_like_a_mixture_of_both() -> None:
    """A mixture is the weighted sum: each keeps its share of its own controls and head."""
    face = compose({"neutral": 0.2, "happy": 0.5, "surprised": 0.3}, TABLE)
    happy, surprised = TABLE["happy"].controls, TABLE["surprised"].controls
    for name in ("mouthSmileLeft", "jawOpen", "browOuterUpRight"):
        assert face[name] == pytest.approx(0.5 * happy[name] + 0.3 * surprised[name], abs=1e-6)
    assert face.pitch == pytest.approx(0.5 * happy.pitch + 0.3 * surprised.pitch, abs=1e-5)


def test_a_label_that_is_gone_shows_nothing() -> None:
    """A cue whose emotion a reload has removed leaves the rest of the face alone."""
    with_it = compose({"neutral": 0.2, "gone": 0.5, "sad": 0.3}, TABLE)
    without = compose({"neutral": 0.7, "sad": 0.3}, TABLE)
    np.testing.assert_array_equal(shape_of(with_it), shape_of(without))


def test_gains_make_a_character_show_more_or_less_of_an_emotion() -> None:
    """A gain scales its own emotion, head included, and no other."""
    weights = {"neutral": 0.3, "happy": 0.4, "sad": 0.3}
    full = shape_of(compose({"neutral": 0.6, "happy": 0.4}, TABLE))
    sad = shape_of(compose({"neutral": 0.7, "sad": 0.3}, TABLE))
    half = shape_of(compose(weights, TABLE, gains={"happy": 0.5}))
    np.testing.assert_allclose(half, 0.5 * full + sad, atol=1e-5)


# --- resting correction -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "share"),
    [
        ({"neutral": 1.0}, 1.0),
        ({"neutral": 0.2, "sad": 0.8}, 1.0),
        ({"neutral": 0.6, "happy": 0.4}, 0.5),
        ({"neutral": 0.2, "happy": 0.8}, 0.0),
        ({"neutral": 0.0, "happy": 1.0}, 0.0),
    ],
)
def test_the_resting_correction_goes_as_the_smile_comes(
    weights: dict[str, float], share: float
) -> None:
    """It is there in full but for `happy`, and gone at that emotion's maximum."""
    table = table_with(happy=FaceControls.of(mouthSmileLeft=1.0))
    rest = FaceControls.of(mouthFrownLeft=0.3, pitch=2.0)
    face = compose(weights, table, rest=rest)
    assert face["mouthFrownLeft"] == pytest.approx(0.3 * share, abs=1e-6)
    assert face.pitch == pytest.approx(2.0 * share, abs=1e-6)


@pytest.mark.parametrize(("weight", "share"), [(0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (1.0, 0.0)])
def test_the_resting_correction_lets_the_jaw_open(weight: float, share: float) -> None:
    """What keeps the lips together goes as an emotion parts them; the rest of it stays."""
    table = table_with(surprised=FaceControls.of(jawOpen=0.5))
    rest = FaceControls.of(mouthClose=0.6, mouthPressLeft=0.2, mouthFrownLeft=0.4)
    face = compose({"surprised": weight}, table, rest=rest)
    assert face["mouthClose"] == pytest.approx(0.6 * share, abs=1e-6)
    assert face["mouthPressLeft"] == pytest.approx(0.2 * share, abs=1e-6)
    assert face["mouthFrownLeft"] == pytest.approx(0.4)


# --- mouth ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", TABLE.labels)
def test_emotions_keep_part_of_their_mouth(label: str) -> None:
    """Jaw and lips are scaled, brows, eyes, cheeks and head are not."""
    full = compose({"neutral": 0.0, label: 1.0}, TABLE)
    third = compose({"neutral": 0.0, label: 1.0}, TABLE, mouth=1 / 3)
    for name in ARKIT_BLENDSHAPES:
        share = 1 / 3 if name.startswith(("jaw", "mouth")) else 1.0
        assert third[name] == pytest.approx(share * full[name], abs=1e-6), name
    assert (third.pitch, third.yaw, third.roll) == (full.pitch, full.yaw, full.roll)


def test_a_smaller_smile_leaves_more_of_the_resting_correction() -> None:
    """What a smile works against goes as far as the smile comes; mood and idle stay whole."""
    rest = FaceControls.of(mouthFrownLeft=0.3, browInnerUp=0.2)
    happy = {"neutral": 0.0, "happy": 1.0}
    face = compose(happy, table_with(), rest=rest, mouth=0.25)
    assert face["mouthFrownLeft"] == pytest.approx(0.225)
    assert face["browInnerUp"] == 0.0
    calm = compose({"neutral": 1.0}, TABLE, rest=rest, mood=mood(mouthFrownLeft=0.1), mouth=0.25)
    assert calm["mouthFrownLeft"] == pytest.approx(0.4)


# --- mood -------------------------------------------------------------------------------------


def test_a_mood_shows_as_far_as_the_face_is_neutral() -> None:
    """Under a cue the mood fades by the neutral weight, given or left over."""
    offsets = mood(cheekPuff=0.2)
    for weights in ({"neutral": 0.25, "angry": 0.75}, {"angry": 0.75}):
        assert compose(weights, TABLE, mood=offsets)["cheekPuff"] == pytest.approx(0.05)


def test_a_mood_is_not_scaled_by_the_gain_of_neutral() -> None:
    """Gains belong to emotions."""
    face = compose({"neutral": 1.0}, TABLE, gains={"neutral": 0.0}, mood=mood(cheekPuff=0.2))
    assert face["cheekPuff"] == pytest.approx(0.2)


# --- idle life --------------------------------------------------------------------------------


@given(face_weights(), unit)
@settings(deadline=None)
def test_blinks_survive_every_expression(weights: dict[str, float], blink: float) -> None:
    """Lids are at least as shut as the blink and as the expression wants, and shut at its peak."""
    alone = compose(weights, TABLE)
    face = compose(weights, TABLE, idle=IdleOffsets(blink=blink))
    shut = compose(weights, TABLE, idle=IdleOffsets(blink=1.0))
    for side in ("Left", "Right"):
        lid, wide = f"eyeBlink{side}", f"eyeWide{side}"
        assert face[lid] >= max(blink, alone[lid]) - 1e-6
        assert face[lid] == pytest.approx(1 - (1 - alone[lid]) * (1 - blink), abs=1e-6)
        assert face[wide] <= alone[wide]
        assert (shut[lid], shut[wide]) == (1.0, 0.0)


def test_a_blink_does_nothing_to_closed_eyes() -> None:
    """Where an expression has shut the eyes, they stay exactly as they are through a blink."""
    table = table_with(sad=FaceControls.of(eyeBlinkLeft=1.0, eyeBlinkRight=1.0))
    weights = {"neutral": 0.0, "sad": 1.0}
    for blink in (0.0, 0.3, 1.0):
        face = compose(weights, table, idle=IdleOffsets(blink=blink, gaze_x=0.2, gaze_y=0.1))
        assert face.as_mapping() == table["sad"].controls.as_mapping()


def test_eyes_that_are_more_than_shut_do_not_glance() -> None:
    """A gain that would close the lids twice over closes them, and no glance turns round."""
    table = table_with(sad=FaceControls.of(eyeBlinkLeft=1.0, eyeBlinkRight=1.0))
    idle = IdleOffsets(blink=0.1, gaze_x=0.2, gaze_y=0.1)
    face = compose({"sad": 1.0}, table, gains={"sad": 2.0}, idle=idle)
    assert face.as_mapping() == table["sad"].controls.as_mapping()


def test_glances_turn_both_eyes_the_same_way() -> None:
    """A glance to the character's left is out for its left eye and in for its right."""
    face = compose({"neutral": 1.0}, TABLE, idle=IdleOffsets(gaze_x=0.2, gaze_y=0.1))
    assert face["eyeLookOutLeft"] == face["eyeLookInRight"] == pytest.approx(0.2)
    assert face["eyeLookUpLeft"] == face["eyeLookUpRight"] == pytest.approx(0.1)
    back = compose({"neutral": 1.0}, TABLE, idle=IdleOffsets(gaze_x=-0.2, gaze_y=-0.1))
    assert back["eyeLookInLeft"] == back["eyeLookOutRight"] == pytest.approx(0.2)
    assert back["eyeLookDownLeft"] == back["eyeLookDownRight"] == pytest.approx(0.1)


def test_a_glance_fades_under_closing_lids() -> None:
    """Half shut lids leave half a glance."""
    face = compose({"neutral": 1.0}, TABLE, idle=IdleOffsets(blink=0.5, gaze_x=0.2, gaze_y=-0.1))
    assert face["eyeLookOutLeft"] == pytest.approx(0.1)
    assert face["eyeLookDownRight"] == pytest.approx(0.05)


def test_head_movements_add_up() -> None:
    """Sway comes on top of the emotion's head and the resting correction's."""
    table = table_with(sad=FaceControls.of(pitch=8.0, yaw=-2.0))
    idle = IdleOffsets(pitch=1.0, yaw=0.5, roll=-0.25)
    weights = {"neutral": 0.5, "sad": 0.5}
    face = compose(weights, table, idle=idle, rest=FaceControls.of(roll=3.0))
    assert (face.pitch, face.yaw, face.roll) == (5.0, -0.5, 2.75)


# --- ranges -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", OPPOSITES)
def test_opposites_net_out(pair: tuple[str, str]) -> None:
    """Of two controls that work against each other the difference is left."""
    one, other = pair
    table = table_with(happy=FaceControls.of(**{one: 0.9}), sad=FaceControls.of(**{other: 0.4}))
    face = compose({"neutral": 0.0, "happy": 0.5, "sad": 0.5}, table)
    assert face[one] == pytest.approx(0.25)
    assert face[other] == 0.0


layers = st.fixed_dictionaries(
    {},
    optional={
        "gains": st.dictionaries(st.sampled_from(BASIC_EMOTIONS), st.floats(0.0, 2.0)),
        "idle": idles,
        "mood": faces().map(lambda face: MoodOffsets(face.weights * np.float32(0.25))),
        "rest": faces(),
    },
)


@given(face_weights(), faces(), faces(), layers)
@settings(deadline=None)
def test_every_face_is_in_range_and_free_of_contradictions(
    weights: dict[str, float], one: FaceControls, other: FaceControls, above: dict[str, Any]
) -> None:
    """Whatever the layers are, the face can be shown (`FaceControls` checks its ranges)."""
    face = compose(weights, table_with(happy=one, angry=other), **above)
    assert all(min(face[a], face[b]) == 0.0 for a, b in OPPOSITES)


@given(face_weights(), face_weights())
@settings(deadline=None)
def test_near_weights_make_near_faces(before: dict[str, float], after: dict[str, float]) -> None:
    """No control moves faster than the weights do: no weight can make the face jump."""
    moved = sum(abs(after[label] - before[label]) for label in BASIC_EMOTIONS)
    step = compose(after, TABLE).weights - compose(before, TABLE).weights
    assert np.abs(step).max() <= moved + 1e-5


def test_composing_changes_no_argument() -> None:
    """Tables, offsets and corrections are the same afterwards."""
    shapes = TABLE.shapes.copy()
    offsets, rest = mood(cheekPuff=0.2), FaceControls.of(mouthClose=0.3, eyeLookUpLeft=0.2)
    compose({"sad": 0.8}, TABLE, idle=IdleOffsets(1.0, 0.1, 0.1), mood=offsets, rest=rest)
    np.testing.assert_array_equal(TABLE.shapes, shapes)
    assert offsets.controls.sum() == pytest.approx(0.2)
    assert rest.as_mapping()["mouthClose"] == pytest.approx(0.3)


# --- size of idle life ------------------------------------------------------------------------


def test_idle_life_is_as_large_as_the_emotions_want_it() -> None:
    """Sizes mix by weight; a plain neutral face has size 1."""
    assert idle_amplitude({"neutral": 1.0}, TABLE) == IdleAmplitude()
    half = idle_amplitude({"neutral": 0.5, "sad": 0.5}, TABLE)
    sad = TABLE["sad"].idle
    assert half.gaze == pytest.approx(0.5 + 0.5 * sad.gaze)
    assert half.sway == pytest.approx(0.5 + 0.5 * sad.sway)
    assert half.breath == pytest.approx(0.5 + 0.5 * sad.breath)


def test_a_mood_livens_the_neutral_share() -> None:
    """The mood's factor counts as far as the face is neutral."""
    lively = mood(idle=1.5)
    assert idle_amplitude({"neutral": 1.0}, TABLE, lively).sway == pytest.approx(1.5)
    sad = TABLE["sad"].idle.sway
    mixed = idle_amplitude({"neutral": 0.5, "sad": 0.5}, TABLE, lively).sway
    assert mixed == pytest.approx(0.75 + 0.5 * sad)


def test_a_label_that_is_gone_leaves_idle_life_at_its_size() -> None:
    """What the table does not have counts as 1."""
    assert idle_amplitude({"neutral": 0.2, "gone": 0.8}, TABLE).gaze == pytest.approx(1.0)


def test_every_control_is_composed() -> None:
    """Each of the 52 controls comes through by its own name."""
    for name in ARKIT_BLENDSHAPES:
        face = compose({"happy": 1.0}, table_with(happy=FaceControls.of(**{name: 0.7})))
        assert face.as_mapping() == pytest.approx(
            {name: 0.7, "pitch": 0.0, "yaw": 0.0, "roll": 0.0}
        )
