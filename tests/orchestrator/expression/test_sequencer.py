"""Cues over time: policies, priorities, times to live, endings, and what samples tell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from orchestrator.expression.crossfade import MIN_TRANSITION_S
from orchestrator.expression.easing import ONSET, RELEASE
from orchestrator.expression.sequencer import (
    MAX_INTERRUPTS,
    MAX_ON_FACE,
    MAX_UNTOLD,
    MAX_WAITING,
    CueProgress,
    CueView,
    Ending,
    FaceSample,
    Sequencer,
)
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import CueAccepted, EmotionEvent, Policy
from tests.fakes.emotions import ATTACK_S, DECAY_S, HOLD_S, MAXIMUM, emotion, table

INF = math.inf
OUT_S = DECAY_S / RELEASE.x95
DECAY_AT_S = ATTACK_S + HOLD_S
FINISH_S = DECAY_AT_S + OUT_S
FRAME_S = 1.0 / 30.0


@pytest.fixture
def face() -> Sequencer:
    return Sequencer(table())


class Pushing:
    """Pushes events with ids a, b, c, ..."""

    def __init__(self, face: Sequencer) -> None:
        self._face = face
        self._ids = itertools.chain("abcdefghijklmnopqrstuvwxyz", map(str, itertools.count()))

    def __call__(self, now_s: float, emotion: str | None, **fields: Any) -> CueAccepted:
        return self._face.push(EmotionEvent(next(self._ids), emotion, **fields), now_s)


@pytest.fixture
def push(face: Sequencer) -> Pushing:
    return Pushing(face)


def weight(face: Sequencer, now_s: float, label: str = "happy") -> float:
    return face.sample(now_s).weights[label]


def progress(sample: FaceSample, cue_id: str) -> CueProgress:
    return next(cue for cue in sample.cues if cue.id == cue_id)


def view(face: Sequencer, now_s: float, cue_id: str) -> CueView:
    return next(cue for cue in face.cues(now_s) if cue.id == cue_id)


def ids(face: Sequencer, now_s: float) -> list[str]:
    return [cue.id for cue in face.cues(now_s)]


def endings(face: Sequencer, *times: float) -> list[tuple[str, str, str | None]]:
    """What ended by each of these times, in order."""
    return [(e.id, e.kind, e.by) for t_s in times for e in face.sample(t_s).endings]


def neutral(sample: FaceSample) -> bool:
    return sample.weights["neutral"] == 1.0 and sum(sample.weights.values()) == 1.0


def frames(start_s: float, end_s: float) -> Iterable[float]:
    return np.arange(start_s, end_s, FRAME_S).tolist()


# --- one cue ------------------------------------------------------------------------------


def test_a_new_face_is_neutral_and_rests(face: Sequencer) -> None:
    """Nothing is on, nothing ends, nothing will change."""
    sample = face.sample(3.0)
    assert neutral(sample)
    assert [*sample.cues, *sample.endings, *sample.interrupts_done] == []
    assert sample.newest is None
    assert face.cues(3.0) == ()
    assert face.next_change(3.0) is None


def test_a_cue_comes_holds_and_goes(face: Sequencer, push: Pushing) -> None:
    """95 % in after the attack, all of it during the hold, 5 % left after the decay, then over."""
    push(10.0, "happy")
    assert weight(face, 10.0) == 0.0
    assert weight(face, 10.0 + ATTACK_S) == pytest.approx(0.95 * MAXIMUM)
    assert weight(face, 11.0) == MAXIMUM
    assert weight(face, 10.0 + DECAY_AT_S) == MAXIMUM
    sample = face.sample(10.0 + DECAY_AT_S + DECAY_S)
    assert sample.weights["happy"] == pytest.approx(0.05 * MAXIMUM)
    assert sample.endings == ()
    sample = face.sample(10.0 + FINISH_S)
    assert neutral(sample)
    assert sample.endings == (Ending("a", "finished"),)
    assert face.sample(10.0 + FINISH_S).endings == ()
    assert face.next_change(20.0) is None


def test_times_default_to_the_emotions_own(face: Sequencer, push: Pushing) -> None:
    """What the event says wins over the table, down to 0."""
    push(0.0, "happy", attack_s=0.5, hold_s=0.0, decay_s=0.25)
    assert weight(face, 0.5) == pytest.approx(0.95 * MAXIMUM)
    assert face.sample(0.5 + 0.25 / RELEASE.x95).endings == (Ending("a", "finished"),)


def test_no_time_at_all_is_the_next_frame(face: Sequencer, push: Pushing) -> None:
    """Attack, hold and decay 0 are over within a frame, and still smooth."""
    push(0.0, "happy", attack_s=0.0, hold_s=INF)
    assert 0.0 < weight(face, MIN_TRANSITION_S / 8) < MAXIMUM / 2
    assert weight(face, FRAME_S) == MAXIMUM
    push(1.0, "sad", attack_s=0.0, hold_s=0.0, decay_s=0.0)
    sample = face.sample(1.0 + FRAME_S)
    assert neutral(sample)
    assert sample.endings == (Ending("a", "superseded", "b"), Ending("b", "finished"))


def test_an_endless_hold_lasts(face: Sequencer, push: Pushing) -> None:
    """It is on until something replaces it; nothing is due meanwhile."""
    push(0.0, "happy", hold_s=INF)
    face.sample(1.0)
    assert face.next_change(1.0) is None
    assert weight(face, 1e6) == MAXIMUM
    assert view(face, 1e6, "a") == CueView("a", "happy", "hold", 1e6 - ATTACK_S, None)


def test_intensity_scales_the_calibrated_maximum(face: Sequencer, push: Pushing) -> None:
    """Half the intensity is half the maximum, and neutral is what is left."""
    push(0.0, "happy", intensity=0.5)
    weights = face.sample(1.0).weights
    assert weights["happy"] == pytest.approx(0.5 * MAXIMUM)
    assert weights["neutral"] == pytest.approx(1.0 - 0.5 * MAXIMUM)


def test_a_planned_cue_starts_at_its_time(face: Sequencer, push: Pushing) -> None:
    """It waits, then runs as if it had come then, whoever sampled when."""
    push(0.0, "happy", at_s=2.0)
    assert view(face, 0.5, "a").phase == "scheduled"
    assert face.next_change(0.5) == 2.0
    assert neutral(face.sample(2.0))
    assert weight(face, 2.0 + ATTACK_S) == pytest.approx(0.95 * MAXIMUM)
    assert progress(face.sample(2.5), "a").start_s == 2.0


# --- understanding ------------------------------------------------------------------------


def test_aliases_are_mapped_and_told(face: Sequencer, push: Pushing) -> None:
    """`used` is the label, `mapped_from` what was sent; a label in any case is no alias."""
    assert push(0.0, "Joy") == CueAccepted("a", "happy", 1.0, {}, "Joy", False)
    assert push(0.0, "HAPPY").mapped_from is None


def test_an_unknown_emotion_changes_nothing(face: Sequencer, push: Pushing) -> None:
    """It is refused with its id and near labels; what is on stays."""
    push(0.0, "happy")
    with pytest.raises(InvalidEventError) as caught:
        push(1.0, "hapy")
    error = caught.value
    assert (error.code, error.field, error.event_id) == (ErrorCode.UNKNOWN_EMOTION, "emotion", "b")
    assert "happy" in error.suggestions
    with pytest.raises(InvalidEventError) as caught:
        push(1.0, "happy", mix={"sda": 0.1})
    assert caught.value.field == "mix.sda"
    assert ids(face, 1.0) == ["a"]


@pytest.mark.parametrize(
    ("sent", "strength", "clamped"),
    [(0.5, 0.5, False), (1.7, 1.0, True), (-2.0, 0.0, True), (0.0, 0.0, False), (1, 1.0, False)],
)
def test_numbers_out_of_range_are_clamped_and_told(
    face: Sequencer, push: Pushing, sent: float, strength: float, clamped: bool
) -> None:
    """Intensity and mix alike."""
    accepted = push(0.0, "happy", intensity=sent)
    assert (accepted.intensity, accepted.clamped) == (strength, clamped)
    accepted = push(0.0, "happy", mix={"sad": sent})
    assert (accepted.mix, accepted.clamped) == ({"sad": strength}, clamped)


def test_a_number_that_is_none_is_refused(face: Sequencer, push: Pushing) -> None:
    """Not a number and infinity have no nearest strength."""
    for number in (math.nan, INF):
        with pytest.raises(InvalidEventError) as caught:
            push(0.0, "happy", intensity=number)
        assert caught.value.field == "intensity"
        with pytest.raises(InvalidEventError) as caught:
            push(0.0, None, mix={"sad": number})
        assert caught.value.field == "mix.sad"


def test_a_mix_shows_together(face: Sequencer, push: Pushing) -> None:
    """Each emotion at its strength of its own maximum, all at once."""
    accepted = push(0.0, "happy", intensity=0.5, mix={"surprised": 0.25, "JOY": 0.125})
    assert accepted.mix == {"surprised": 0.25}
    weights = face.sample(1.0).weights
    assert weights["happy"] == pytest.approx(0.625 * MAXIMUM)
    assert weights["surprised"] == pytest.approx(0.25 * MAXIMUM)


def test_a_mix_alone_is_named_after_its_strongest(face: Sequencer, push: Pushing) -> None:
    """`used` and the default times are those of the strongest."""
    accepted = push(0.0, None, mix={"sad": 0.2, "Joy": 0.6})
    assert accepted == CueAccepted("a", "happy", 0.6, {"sad": 0.2}, "Joy", False)
    with pytest.raises(InvalidEventError, match="mix"):
        push(0.0, None)


def test_a_mix_never_exceeds_a_face(face: Sequencer, push: Pushing) -> None:
    """More than 1 together is scaled down to 1, in proportion."""
    push(0.0, "happy", mix={"sad": 1.0, "angry": 0.5})
    weights = face.sample(1.0).weights
    assert weights["happy"] == weights["sad"] == pytest.approx(0.4)
    assert weights["angry"] == pytest.approx(0.2)
    assert weights["neutral"] == pytest.approx(0.0, abs=1e-12)


# --- change and nothing to change ---------------------------------------------------------


def test_neutral_on_neutral_changes_nothing(face: Sequencer, push: Pushing) -> None:
    """It says so in its first sample, is on for its time, and finishes."""
    push(0.0, "neutral")
    assert face.next_change(0.0) == 0.0
    assert face.sample(0.0).cues == (CueProgress("a", 0.0, 1.0, no_change=True),)
    assert face.next_change(0.0) == DECAY_AT_S
    assert neutral(face.sample(1.0))
    assert face.sample(FINISH_S).endings == (Ending("a", "finished"),)


def test_neutral_on_happy_is_a_change(face: Sequencer, push: Pushing) -> None:
    """Its change is the way back to a neutral face, and the face stays there."""
    push(0.0, "happy", hold_s=INF)
    face.sample(1.0)
    push(1.0, "neutral", hold_s=INF)
    assert face.sample(1.0).cues == (CueProgress("b", 1.0, 0.0, no_change=False),)
    assert progress(face.sample(1.0 + ATTACK_S), "b").change == pytest.approx(0.95)
    assert neutral(face.sample(2.0))


def test_the_same_again_changes_nothing(face: Sequencer, push: Pushing) -> None:
    """Happy on happy is there at once, without a dip."""
    push(0.0, "happy")
    face.sample(1.0)
    push(1.0, "happy")
    sample = face.sample(1.0)
    assert sample.cues == (CueProgress("b", 1.0, 1.0, no_change=True),)
    assert all(weight(face, t_s) == MAXIMUM for t_s in frames(1.0, 1.5))


def test_the_same_again_does_not_hold_itself_up(face: Sequencer, push: Pushing) -> None:
    """Happy ten times during its attack comes in as fast as once."""
    for t_s in np.linspace(0.0, 0.15, 10):
        push(t_s, "happy")
    assert weight(face, ATTACK_S) == pytest.approx(0.95 * MAXIMUM)


def test_change_is_what_the_weights_say(face: Sequencer, push: Pushing) -> None:
    """On a neutral face it is the share of the wanted weight."""
    push(0.0, "happy", intensity=0.7)
    for t_s in frames(0.0, 1.0):
        sample = face.sample(t_s)
        share = sample.weights["happy"] / (0.7 * MAXIMUM)
        assert progress(sample, "a").change == pytest.approx(share)


def test_the_change_of_what_replaces_is_its_own(face: Sequencer, push: Pushing) -> None:
    """In mid-attack, 10 and 90 % are those of the emotion that comes, not of the one that goes."""
    push(0.0, "happy", attack_s=1.0)
    face.sample(0.2)
    push(0.2, "sad")
    for t_s in frames(0.2, 1.0):
        sample = face.sample(t_s)
        assert progress(sample, "b").change == pytest.approx(sample.weights["sad"] / MAXIMUM)


def test_a_slow_blend_does_not_hold_up_the_change_of_a_quick_cue(
    face: Sequencer, push: Pushing
) -> None:
    """What is on has peaked when its own emotion has, whatever else still comes."""
    push(0.0, "happy", intensity=0.5)
    push(0.05, "sad", intensity=0.5, policy=Policy.BLEND, attack_s=5.0)
    sample = face.sample(ATTACK_S)
    assert progress(sample, "a").change == pytest.approx(0.95)
    assert progress(sample, "b").change < 0.1


def test_a_cue_that_is_suspended_shows_no_change(face: Sequencer, push: Pushing) -> None:
    """It is not on, so it can neither start nor peak; resumed, it can."""
    push(0.0, "happy", attack_s=2.0)
    push(0.05, "sad", policy=Policy.OVERRIDE, hold_s=0.5)
    assert [cue.id for cue in face.sample(0.3).cues] == ["b"]
    sample = face.sample(0.05 + ATTACK_S + 0.5 + DECAY_S)
    assert progress(sample, "a").change > 0.9


# --- replace ------------------------------------------------------------------------------


def test_replace_takes_the_face_over(face: Sequencer, push: Pushing) -> None:
    """The old fades out while the new fades in, in the new one's attack."""
    push(0.0, "happy")
    assert face.sample(1.0).newest == "a"
    push(1.0, "sad", attack_s=0.3)
    sample = face.sample(1.0)
    assert sample.endings == (Ending("a", "superseded", "b"),)
    assert sample.weights["happy"] == MAXIMUM
    assert sample.newest == "b"
    sample = face.sample(1.3)
    assert sample.weights["sad"] == pytest.approx(0.95 * MAXIMUM)
    assert sample.weights["happy"] == pytest.approx(0.05 * MAXIMUM)


def test_replace_supersedes_what_decays(face: Sequencer, push: Pushing) -> None:
    """What has not finished yet is superseded, and no more is heard of it."""
    push(0.0, "happy")
    face.sample(DECAY_AT_S + 0.1)
    push(DECAY_AT_S + 0.1, "sad", hold_s=INF)
    assert endings(face, DECAY_AT_S + 0.1, 9.0) == [("a", "superseded", "b")]


def test_replace_leaves_the_queue(face: Sequencer, push: Pushing) -> None:
    """What waits goes on waiting, now for what has replaced."""
    push(0.0, "happy")
    push(0.1, "sad", policy=Policy.QUEUE)
    push(0.2, "angry")
    assert [(cue.id, cue.phase) for cue in face.cues(1.0)] == [("c", "hold"), ("b", "queued")]
    assert endings(face, 9.0) == [
        ("a", "superseded", "c"),
        ("c", "finished", None),
        ("b", "finished", None),
    ]


def test_what_never_showed_is_superseded_all_the_same(face: Sequencer, push: Pushing) -> None:
    """Of three in one instant, the last shows and the others end."""
    for emotion_ in ("happy", "sad", "angry"):
        push(0.0, emotion_)
    sample = face.sample(0.0)
    assert sample.endings == (Ending("a", "superseded", "b"), Ending("b", "superseded", "c"))
    assert [cue.id for cue in sample.cues] == ["c"]
    weights = face.sample(ATTACK_S).weights
    assert weights["happy"] == weights["sad"] == 0.0
    assert weights["angry"] == pytest.approx(0.95 * MAXIMUM)


# --- queue --------------------------------------------------------------------------------


def test_queued_cues_follow_one_another(face: Sequencer, push: Pushing) -> None:
    """Each starts when the one before has finished, in order of arrival."""
    push(0.0, "happy", policy=Policy.QUEUE)
    push(0.1, "sad", policy=Policy.QUEUE)
    push(0.1, "angry", policy=Policy.QUEUE)
    assert [cue.phase for cue in face.cues(0.1)] == ["attack", "queued", "queued"]
    starts: dict[str, float] = {}
    for t_s in frames(0.1, 6.0):
        for cue in face.sample(t_s).cues:
            starts.setdefault(cue.id, cue.start_s)
    assert starts == pytest.approx({"a": 0.0, "b": FINISH_S, "c": 2 * FINISH_S})


def test_a_queued_cue_waits_for_all_that_is_on(face: Sequencer, push: Pushing) -> None:
    """Blended and suspended cues count."""
    push(0.0, "happy")
    push(0.1, "sad", policy=Policy.BLEND, hold_s=3.0)
    push(0.2, "angry", policy=Policy.OVERRIDE)
    push(0.3, "fearful", policy=Policy.QUEUE)
    order = [id_ for id_, *_ in endings(face, *frames(0.3, 20.0))]
    assert order[-1] == "d"
    assert sorted(order) == ["a", "b", "c", "d"]


def test_a_queued_cue_does_not_wait_for_planned_ones(face: Sequencer, push: Pushing) -> None:
    """What is not on yet is not waited for."""
    push(0.0, "happy", at_s=5.0)
    push(0.0, "sad", policy=Policy.QUEUE)
    assert view(face, 0.0, "b").phase == "attack"


def test_a_planned_queue_cue_joins_the_queue_at_its_time(face: Sequencer, push: Pushing) -> None:
    """It takes its place then, behind those that were there."""
    push(0.0, "happy")
    push(0.0, "angry", policy=Policy.QUEUE, at_s=1.0)
    push(0.5, "sad", policy=Policy.QUEUE)
    assert [cue.id for cue in face.cues(1.0) if cue.phase == "queued"] == ["c", "b"]


# --- blend --------------------------------------------------------------------------------


def test_blend_adds_to_what_is_on(face: Sequencer, push: Pushing) -> None:
    """Both show, each for its own time; nothing ends early."""
    push(0.0, "happy", intensity=0.5, hold_s=INF)
    push(1.0, "sad", intensity=0.25, policy=Policy.BLEND)
    weights = face.sample(2.0).weights
    assert weights["happy"] == pytest.approx(0.5 * MAXIMUM)
    assert weights["sad"] == pytest.approx(0.25 * MAXIMUM)
    assert endings(face, 9.0) == [("b", "finished", None)]
    assert weight(face, 9.0) == pytest.approx(0.5 * MAXIMUM)


def test_blend_is_normalised(face: Sequencer, push: Pushing) -> None:
    """Where together they ask for more than a face has, they share it; and give it back."""
    push(0.0, "happy", hold_s=INF)
    push(1.0, "sad", policy=Policy.BLEND)
    weights = face.sample(2.0).weights
    assert weights["happy"] == weights["sad"] == pytest.approx(0.5)
    assert weight(face, 1.0 + FINISH_S) == pytest.approx(MAXIMUM)


def test_blending_neutral_tones_down(face: Sequencer, push: Pushing) -> None:
    """Neutral takes its share of the face like any other."""
    push(0.0, "happy", hold_s=INF)
    push(1.0, "neutral", policy=Policy.BLEND)
    weights = face.sample(2.0).weights
    assert weights["happy"] == pytest.approx(MAXIMUM / (MAXIMUM + 1.0))


def test_blended_cues_keep_their_own_pace(face: Sequencer, push: Pushing) -> None:
    """Where there is room, each is 95 % in after its attack and out after its decay."""
    push(0.0, "happy", intensity=0.5, attack_s=1.0, hold_s=0.0, decay_s=1.0)
    push(0.5, "sad", intensity=0.5, policy=Policy.BLEND, attack_s=0.1, hold_s=0.0, decay_s=0.2)
    full = 0.5 * MAXIMUM
    assert weight(face, 0.6, "sad") == pytest.approx(0.95 * full)
    assert weight(face, 0.8, "sad") == pytest.approx(0.05 * full, rel=0.01)
    assert weight(face, 1.0) == pytest.approx(0.95 * full)
    assert weight(face, 2.0) == pytest.approx(0.05 * full, rel=0.01)


@pytest.mark.parametrize(("first_s", "second_s"), [(0.1, 2.0), (2.0, 0.1), (0.3, 0.3)])
def test_decays_at_one_instant_keep_their_times(
    face: Sequencer, push: Pushing, first_s: float, second_s: float
) -> None:
    """Two blended cues that end together go out each in its own time."""
    push(0.0, "happy", intensity=0.5, decay_s=first_s)
    push(0.0, "sad", intensity=0.5, decay_s=second_s, policy=Policy.BLEND)
    out = {"happy": first_s, "sad": second_s}
    for label, decay_s in sorted(out.items(), key=lambda each: each[1]):
        left = weight(face, DECAY_AT_S + decay_s, label)
        assert left == pytest.approx(0.05 * 0.5 * MAXIMUM, rel=1e-6)


# --- override -----------------------------------------------------------------------------


def test_override_resumes_with_the_remaining_time(face: Sequencer, push: Pushing) -> None:
    """What is on is suspended, and afterwards has exactly the hold that it had left."""
    push(0.0, "happy", hold_s=2.0)
    push(1.0, "sad", policy=Policy.OVERRIDE)
    assert view(face, 1.5, "a").phase == "suspended"
    weights = face.sample(2.0).weights
    assert weights["happy"] == 0.0
    assert weights["sad"] == MAXIMUM
    resumed_s = 1.0 + DECAY_AT_S
    sample = face.sample(resumed_s + DECAY_S)
    assert sample.weights["happy"] == pytest.approx(0.95 * MAXIMUM)
    assert sample.weights["sad"] == pytest.approx(0.05 * MAXIMUM)
    decay_at_s = ATTACK_S + 2.0 + (resumed_s - 1.0)
    assert view(face, decay_at_s - 1e-6, "a").phase == "hold"
    assert view(face, decay_at_s + 1e-6, "a").phase == "decay"
    assert endings(face, 20.0) == [("b", "finished", None), ("a", "finished", None)]


def test_override_of_an_endless_hold_brings_it_back(face: Sequencer, push: Pushing) -> None:
    """It is back, and stays."""
    push(0.0, "happy", hold_s=INF)
    push(1.0, "sad", policy=Policy.OVERRIDE)
    assert weight(face, 1e5) == MAXIMUM
    assert ids(face, 1e5) == ["a"]


def test_overrides_nest(face: Sequencer, push: Pushing) -> None:
    """Each resumes the one below it with its own remaining time."""
    push(0.0, "happy", hold_s=1.0)
    push(0.5, "sad", policy=Policy.OVERRIDE, hold_s=1.0)
    push(1.0, "angry", policy=Policy.OVERRIDE, hold_s=1.0)
    third_s = 1.0 + ATTACK_S + 1.0
    second_s = third_s + (0.5 + ATTACK_S + 1.0) - 1.0
    first_s = second_s + (ATTACK_S + 1.0) - 0.5
    decays = []
    for t_s in (third_s, second_s, first_s):
        decays.append([cue.id for cue in face.cues(t_s - 1e-6) if cue.phase == "hold"])
        decays.append([cue.id for cue in face.cues(t_s + 1e-6) if cue.phase == "decay"])
    assert [each[-1:] for each in decays] == [["c"], ["c"], ["b"], ["b"], ["a"], ["a"]]
    assert endings(face, 20.0) == [(id_, "finished", None) for id_ in "cba"]


def test_an_override_resumes_a_blend_as_a_whole(face: Sequencer, push: Pushing) -> None:
    """All that was on comes back, each cue with its own remaining time."""
    push(0.0, "happy", intensity=0.5, hold_s=2.0)
    push(0.0, "sad", intensity=0.5, hold_s=3.0, policy=Policy.BLEND)
    push(1.0, "angry", policy=Policy.OVERRIDE, hold_s=1.0)
    away_s = ATTACK_S + 1.0
    assert [cue.phase for cue in face.cues(1.5)] == ["suspended", "suspended", "hold"]
    weights = face.sample(1.0 + away_s + OUT_S).weights
    assert weights["happy"] == weights["sad"] == pytest.approx(0.5 * MAXIMUM)
    assert view(face, 2.2 + away_s + 1e-6, "a").phase == "decay"
    assert view(face, 3.2 + away_s - 1e-6, "b").phase == "hold"
    assert view(face, 3.2 + away_s + 1e-6, "b").phase == "decay"


def test_an_override_ends_although_something_was_blended_with_it(
    face: Sequencer, push: Pushing
) -> None:
    """What it suspended resumes when it is over; what was blended with it stays on beside."""
    push(0.0, "happy", intensity=0.5, hold_s=2.0)
    push(1.0, "sad", intensity=0.5, policy=Policy.OVERRIDE, hold_s=1.0)
    push(1.1, "angry", intensity=0.5, policy=Policy.BLEND, hold_s=INF)
    over_s = 1.0 + ATTACK_S + 1.0
    assert view(face, over_s - 1e-6, "a").phase == "suspended"
    assert view(face, over_s + 1e-6, "a").phase == "hold"
    weights = face.sample(over_s + OUT_S).weights
    assert weights["happy"] == weights["angry"] == pytest.approx(0.5 * MAXIMUM)
    assert weights["sad"] == 0.0
    assert ids(face, 20.0) == ["c"]


def test_what_is_blended_with_an_override_can_end_first(face: Sequencer, push: Pushing) -> None:
    """The override goes on, and what it suspended stays suspended."""
    push(0.0, "happy", hold_s=INF)
    push(1.0, "sad", intensity=0.5, policy=Policy.OVERRIDE, hold_s=5.0)
    push(1.0, "angry", intensity=0.5, policy=Policy.BLEND, hold_s=0.5)
    assert {cue.id: cue.phase for cue in face.cues(5.0)} == {"a": "suspended", "b": "hold"}


def test_override_of_a_neutral_face_is_a_cue(face: Sequencer, push: Pushing) -> None:
    """There is nothing to suspend or resume."""
    push(0.0, "happy", policy=Policy.OVERRIDE)
    assert endings(face, 9.0) == [("a", "finished", None)]
    assert face.next_change(9.0) is None


def test_override_in_mid_attack_gives_the_rest_of_it_back(face: Sequencer, push: Pushing) -> None:
    """The time that remained of attack and hold is the time on after resuming."""
    push(0.0, "happy", attack_s=1.0, hold_s=1.0)
    push(0.25, "sad", policy=Policy.OVERRIDE, hold_s=0.0)
    resumed_s = 0.25 + ATTACK_S
    assert view(face, resumed_s + 1.75 - 1e-6, "a").phase == "hold"
    assert view(face, resumed_s + 1.75 + 1e-6, "a").phase == "decay"


def test_replace_ends_what_is_suspended_too(face: Sequencer, push: Pushing) -> None:
    """Nothing resumes after it."""
    push(0.0, "happy", hold_s=INF)
    push(0.5, "sad", policy=Policy.OVERRIDE, hold_s=INF)
    push(1.0, "angry")
    assert endings(face, 1.0, 9.0) == [
        ("a", "superseded", "c"),
        ("b", "superseded", "c"),
        ("c", "finished", None),
    ]
    assert neutral(face.sample(9.0))


def test_override_supersedes_what_decays(face: Sequencer, push: Pushing) -> None:
    """There is nothing left of it to resume."""
    push(0.0, "happy")
    push(DECAY_AT_S + 0.1, "sad", policy=Policy.OVERRIDE)
    assert endings(face, 9.0) == [("a", "superseded", "b"), ("b", "finished", None)]


# --- priority -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Policy.REPLACE, Policy.OVERRIDE])
def test_lower_priority_cannot_take_over(face: Sequencer, push: Pushing, policy: Policy) -> None:
    """It is refused, and nothing has changed; an equal or higher one may."""
    push(0.0, "happy", priority=6)
    with pytest.raises(InvalidEventError) as caught:
        push(0.5, "sad", priority=5, policy=policy)
    assert (caught.value.code, caught.value.event_id) == (ErrorCode.OUTRANKED, "b")
    assert ids(face, 0.5) == ["a"]
    push(0.6, "sad", priority=6, policy=policy)
    push(0.7, "angry", priority=7, policy=policy)
    assert face.sample(0.7).newest == "d"


@pytest.mark.parametrize("policy", [Policy.QUEUE, Policy.BLEND])
def test_lower_priority_can_wait_or_join(face: Sequencer, push: Pushing, policy: Policy) -> None:
    """Queue and blend push nothing aside."""
    push(0.0, "happy", priority=9)
    push(0.5, "sad", priority=0, policy=policy)
    assert set(ids(face, 0.5)) == {"a", "b"}


def test_what_is_suspended_keeps_its_rank(face: Sequencer, push: Pushing) -> None:
    """Neither replace nor override gets past a suspended cue of higher priority."""
    push(0.0, "happy", priority=7, hold_s=INF)
    push(0.5, "sad", priority=7, policy=Policy.OVERRIDE)
    push(0.5, "angry", priority=1, policy=Policy.BLEND, hold_s=9.0)
    for t_s, at_s in ((1.0, 0.0), (1.0, 5.0), (1.0 + DECAY_AT_S, 0.0)):
        for policy in (Policy.REPLACE, Policy.OVERRIDE):
            with pytest.raises(InvalidEventError):
                push(t_s, "fearful", priority=6, policy=policy, at_s=at_s)


@pytest.mark.parametrize("policy", [Policy.REPLACE, Policy.OVERRIDE])
def test_nothing_is_superseded_by_less(face: Sequencer, push: Pushing, policy: Policy) -> None:
    """A decaying cue leaves the face to a lower one, and finishes at its time."""
    push(0.0, "happy", priority=9)
    push(DECAY_AT_S + 0.1, "sad", priority=1, policy=policy, hold_s=INF)
    sample = face.sample(DECAY_AT_S + 0.1)
    assert sample.newest == "b"
    assert sample.endings == ()
    assert endings(face, FINISH_S - 1e-6, FINISH_S) == [("a", "finished", None)]
    assert weight(face, 9.0, "sad") == MAXIMUM


def test_rank_is_looked_at_for_the_planned_time(face: Sequencer, push: Pushing) -> None:
    """What will be over by then does not stand in the way; what will not, does."""
    push(0.0, "happy", priority=9)
    push(0.0, "sad", priority=1, at_s=DECAY_AT_S)
    with pytest.raises(InvalidEventError):
        push(0.0, "angry", priority=1, at_s=DECAY_AT_S - 0.001)
    assert face.sample(DECAY_AT_S).newest == "b"


def test_a_planned_cue_can_be_outranked_when_it_is_due(face: Sequencer, push: Pushing) -> None:
    """What has come in between stays, and supersedes it."""
    push(0.0, "sad", priority=1, at_s=2.0)
    push(1.0, "happy", priority=9, hold_s=INF)
    assert endings(face, 1.999, 2.0) == [("a", "superseded", "b")]
    assert face.sample(2.0).newest == "b"


# --- time to live -------------------------------------------------------------------------


def test_what_cannot_start_in_time_expires(face: Sequencer, push: Pushing) -> None:
    """Exactly then, whether it waits in the queue or for its time."""
    push(0.0, "happy", hold_s=INF)
    push(0.5, "sad", policy=Policy.QUEUE, ttl_s=1.0)
    push(0.5, "angry", at_s=2.0, ttl_s=1.5)
    assert face.next_change(1.0) == 1.0
    face.sample(1.0)
    assert face.next_change(1.0) == 1.5
    assert endings(face, 1.5 - 1e-9) == []
    assert endings(face, 1.5) == [("b", "expired", None)]
    assert endings(face, 2.0 - 1e-9) == []
    assert endings(face, 2.0, 9.0) == [("c", "expired", None)]


def test_a_cue_may_start_at_its_last_moment(face: Sequencer, push: Pushing) -> None:
    """The time to live includes its end."""
    push(0.0, "happy", at_s=1.0, ttl_s=1.0)
    push(0.0, "sad", policy=Policy.QUEUE, at_s=1.0, ttl_s=1.0 + FINISH_S)
    assert endings(face, 1.0 + FINISH_S) == [("a", "finished", None)]
    assert face.sample(1.0 + FINISH_S).newest == "b"


def test_what_has_started_does_not_expire(face: Sequencer, push: Pushing) -> None:
    """Not in its hold, and not while it is suspended."""
    push(0.0, "happy", ttl_s=0.001, hold_s=3.0)
    push(1.0, "sad", policy=Policy.OVERRIDE, ttl_s=0.001)
    assert endings(face, *frames(1.0, 20.0)) == [("b", "finished", None), ("a", "finished", None)]


# --- interrupt ----------------------------------------------------------------------------


@pytest.mark.parametrize("fade_s", [0.0, 0.12, 1.5])
@pytest.mark.parametrize("at_s", [0.01, 0.1, ATTACK_S, 0.9, DECAY_AT_S + 0.1])
def test_an_interrupt_has_the_face_at_rest_in_time(
    face: Sequencer, push: Pushing, at_s: float, fade_s: float
) -> None:
    """In mid-attack, hold or decay: neutral to the last bit, and told in that sample and no
    other."""
    push(0.0, "happy")
    assert face.interrupt("stop", fade_s, at_s) == ("a",)
    before = face.sample(at_s)
    assert before.endings == (Ending("a", "superseded", "stop"),)
    assert before.interrupts_done == ()
    assert before.newest is None
    sample = face.sample(at_s + max(fade_s, MIN_TRANSITION_S))
    assert neutral(sample)
    assert sample.interrupts_done == ("stop",)
    assert face.sample(9.0).interrupts_done == ()
    assert face.next_change(9.0) is None


def test_an_interrupt_is_not_done_too_soon(face: Sequencer, push: Pushing) -> None:
    """As long as anything shows, it is under way."""
    push(0.0, "happy")
    face.interrupt("stop", 0.5, 1.0)
    for t_s in frames(1.0, 1.499):
        sample = face.sample(t_s)
        assert sample.weights["happy"] > 0.0
        assert sample.interrupts_done == ()
        assert face.next_change(t_s) == t_s
    assert face.sample(1.5).interrupts_done == ("stop",)


def test_a_decay_may_be_over_before_the_fade(face: Sequencer, push: Pushing) -> None:
    """Then the interrupt is done when the face is at rest."""
    push(0.0, "happy")
    face.sample(DECAY_AT_S + 0.1)
    face.interrupt("stop", 30.0, DECAY_AT_S + 0.1)
    assert face.sample(FINISH_S - 1e-6).interrupts_done == ()
    sample = face.sample(FINISH_S)
    assert neutral(sample)
    assert sample.interrupts_done == ("stop",)


def test_a_decay_that_begins_with_the_interrupt_does_not_end_it_early(
    face: Sequencer, push: Pushing
) -> None:
    """Done is told when the face is neutral, by the sooner of the two."""
    push(0.0, "happy", decay_s=0.05)
    face.interrupt("stop", 3.0, DECAY_AT_S)
    for t_s in np.arange(DECAY_AT_S, DECAY_AT_S + 4.0, 0.01):
        sample = face.sample(float(t_s))
        if sample.interrupts_done:
            break
        assert sample.weights["happy"] > 0.0
    assert neutral(sample)
    assert t_s <= DECAY_AT_S + 0.07


def test_an_interrupt_empties_everything(face: Sequencer, push: Pushing) -> None:
    """On, suspended, decaying, queued and planned: all are superseded, in order of receipt."""
    push(0.0, "happy", hold_s=0.0, decay_s=10.0)
    push(0.0, "sad", policy=Policy.QUEUE, at_s=5.0)
    push(1.0, "angry", hold_s=INF, policy=Policy.BLEND)
    push(1.0, "fearful", policy=Policy.QUEUE)
    push(1.0, "disgusted", policy=Policy.BLEND)
    assert face.interrupt("stop", 0.1, 1.5) == ("a", "b", "c", "d", "e")
    assert face.cues(1.5) == ()
    assert [e.by for e in face.sample(1.5).endings] == ["stop"] * 5
    assert neutral(face.sample(1.6))
    assert endings(face, *frames(1.6, 20.0)) == []


def test_an_interrupt_on_a_neutral_face_is_done_at_once(face: Sequencer) -> None:
    """In the next sample."""
    assert face.interrupt("stop", 60.0, 1.0) == ()
    assert face.next_change(1.0) == 1.0
    assert face.sample(1.0).interrupts_done == ("stop",)


@pytest.mark.parametrize("gap_s", [0.0, 1e-6, 0.004, 0.05])
@pytest.mark.parametrize("attack_s", [0.0, 0.2, 60.0])
def test_what_follows_an_interrupt_does_not_hold_it_up(
    face: Sequencer, push: Pushing, gap_s: float, attack_s: float
) -> None:
    """A new cue right behind it, however slow: the old one is gone in time, and done says so."""
    push(0.0, "happy")
    face.interrupt("stop", 0.12, 1.0)
    push(1.0 + gap_s, "sad", attack_s=attack_s)
    push(1.0 + 2 * gap_s, "angry", attack_s=attack_s, policy=Policy.OVERRIDE)
    for t_s in np.linspace(1.0 + 2 * gap_s, 1.12, 40):
        sample = face.sample(float(t_s))
        assert (sample.weights["happy"] == 0.0) == bool(sample.interrupts_done)
        if sample.interrupts_done:
            break
    assert sample.interrupts_done == ("stop",)


def test_interrupts_during_interrupts_are_each_done(face: Sequencer, push: Pushing) -> None:
    """A slower one in between is done with the quicker one that makes the face neutral."""
    push(0.0, "happy")
    face.interrupt("one", 0.5, 1.0)
    face.interrupt("two", 9.0, 1.1)
    face.interrupt("three", 0.05, 1.2)
    assert face.sample(1.25 - 1e-6).interrupts_done == ()
    sample = face.sample(1.25)
    assert neutral(sample)
    assert sample.interrupts_done == ("one", "two", "three")


def test_an_interrupt_after_a_flood_is_in_time(face: Sequencer) -> None:
    """Thousands of events just before do not matter."""
    labels = ("happy", "sad", "angry", "fearful")
    for index in range(3000):
        face.push(EmotionEvent(str(index), labels[index % 4], policy=Policy.REPLACE), index * 1e-4)
    face.interrupt("stop", 0.12, 0.3)
    assert not neutral(face.sample(0.419))
    sample = face.sample(0.42)
    assert neutral(sample)
    assert sample.interrupts_done == ("stop",)


def test_too_many_interrupts_at_once_are_refused(face: Sequencer, push: Pushing) -> None:
    """What is under way is bounded; the next one goes through when they are done."""
    push(0.0, "happy")
    for index in range(MAX_INTERRUPTS):
        face.interrupt(f"stop {index}", 1.0, 0.5)
    with pytest.raises(InvalidEventError) as caught:
        face.interrupt("one more", 1.0, 0.5)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert len(face.sample(1.5).interrupts_done) == MAX_INTERRUPTS
    face.interrupt("one more", 1.0, 1.5)


# --- bounds -------------------------------------------------------------------------------


def test_the_queue_is_bounded_and_replace_still_gets_through(
    face: Sequencer, push: Pushing
) -> None:
    """What must wait is refused; what starts at once needs no room to wait in."""
    push(0.0, "happy", hold_s=INF)
    for _ in range(MAX_WAITING):
        push(0.0, "sad", policy=Policy.QUEUE)
    for fields in ({"policy": Policy.QUEUE}, {"at_s": 1.0}):
        with pytest.raises(InvalidEventError) as caught:
            push(0.0, "sad", **fields)
        assert caught.value.code is ErrorCode.RATE_LIMITED
    push(0.0, "angry")
    push(0.0, "angry", policy=Policy.BLEND)
    push(0.0, "angry", policy=Policy.OVERRIDE)


def test_what_is_on_is_bounded(face: Sequencer) -> None:
    """Endless blends, or ever new ones that decay slowly: what joins is refused, replace is not."""
    for index in range(MAX_ON_FACE):
        fields: dict[str, Any] = (
            {"hold_s": INF} if index % 2 else {"attack_s": 0.0, "hold_s": 0.0, "decay_s": 60.0}
        )
        at_s = 0.5 * (index % 3 == 0)
        event = EmotionEvent(str(index), "happy", policy=Policy.BLEND, at_s=at_s, **fields)
        face.push(event, 0.0)
    for policy in (Policy.BLEND, Policy.OVERRIDE):
        for now_s in (0.2, 0.6):
            with pytest.raises(InvalidEventError) as caught:
                face.push(EmotionEvent("x", "happy", policy=policy), now_s)
            assert caught.value.code is ErrorCode.RATE_LIMITED
    face.push(EmotionEvent("y", "happy"), 1.0)
    assert ids(face, 1.0) == ["y"]


def test_endings_that_nobody_fetches_are_bounded(face: Sequencer, push: Pushing) -> None:
    """Without samples, cues are refused before what is to be told of them piles up."""
    for _ in range(MAX_UNTOLD + 1):
        push(0.0, "happy")
    with pytest.raises(InvalidEventError) as caught:
        push(0.0, "happy")
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert len(face.sample(0.0).endings) == MAX_UNTOLD
    push(0.0, "happy")


# --- telling ------------------------------------------------------------------------------


def test_views_tell_phase_and_times(face: Sequencer, push: Pushing) -> None:
    """Seconds since the phase began, and until the cue is finished, where that is known."""
    push(0.0, "happy", hold_s=2.0)
    push(0.0, "sad", at_s=0.5, policy=Policy.OVERRIDE)
    push(0.0, "angry", policy=Policy.QUEUE)
    total_s = ATTACK_S + 2.0 + OUT_S

    def told(cue_id: str, now_s: float) -> tuple[str, float, float | None]:
        cue = view(face, now_s, cue_id)
        remaining_s = cue.remaining_s if cue.remaining_s is None else round(cue.remaining_s, 9)
        return cue.phase, round(cue.since_s, 9), remaining_s

    assert told("a", 0.1) == ("attack", 0.1, round(total_s - 0.1, 9))
    assert told("b", 0.1) == ("scheduled", 0.1, round(0.4 + FINISH_S, 9))
    assert told("c", 0.1) == ("queued", 0.1, None)
    assert told("a", 0.3) == ("hold", 0.1, round(total_s - 0.3, 9))
    assert told("a", 0.6) == ("suspended", 0.1, round(total_s - 0.5, 9))
    resumed_s = 0.5 + DECAY_AT_S
    assert told("b", resumed_s + 0.1) == ("decay", 0.1, round(OUT_S - 0.1, 9))
    assert told("a", resumed_s + 0.1) == ("hold", 0.1, round(total_s - 0.6, 9))


def test_the_newest_is_the_one_that_started_last(face: Sequencer, push: Pushing) -> None:
    """Not the one that was sent last; suspended ones are not on the face."""
    push(0.0, "happy", at_s=0.5, policy=Policy.BLEND)
    push(0.1, "sad", hold_s=INF)
    assert face.sample(0.2).newest == "b"
    assert face.sample(0.5).newest == "a"
    assert face.sample(9.0).newest == "b"


def test_the_sum_is_1_to_the_last_bit_below(face: Sequencer, push: Pushing) -> None:
    """Rounding never takes the weights without neutral above 1."""
    random = np.random.default_rng(1)
    for now_s in np.arange(0.0, 20.0, 0.1):
        mix = {label: float(random.uniform()) for label in ("happy", "sad", "angry", "fearful")}
        push(float(now_s), None, mix=mix)
        weights = dict(face.sample(float(now_s)).weights)
        assert weights.pop("neutral") >= 0.0
        assert sum(weights.values()) <= 1.0


# --- when to look -------------------------------------------------------------------------


def test_the_last_of_a_motion_is_not_missed(face: Sequencer, push: Pushing) -> None:
    """After a sample just before the end, there is one more to take."""
    push(0.0, "happy", hold_s=INF)
    end_s = ATTACK_S / ONSET.x95
    face.sample(end_s - 0.01)
    assert face.next_change(end_s + 1.0) == end_s + 1.0
    face.sample(end_s + 1.0)
    assert face.next_change(end_s + 1.0) is None


def test_asking_does_not_change_anything(face: Sequencer) -> None:
    """Not even where something is due in between that has not happened yet."""
    other = Sequencer(table())
    for each in (face, other):
        each.push(EmotionEvent("a", "happy", attack_s=1.0), 0.0)
        each.push(EmotionEvent("b", "sad", attack_s=5.0, at_s=0.3), 0.0)
        each.sample(0.1)
    assert face.next_change(4.0) == 4.0
    assert face.sample(4.0).weights == other.sample(4.0).weights


def test_time_does_not_run_backwards(face: Sequencer, push: Pushing) -> None:
    """What comes before a sample that looked ahead takes effect from that on."""
    face.sample(5.0)
    push(4.99, "happy")
    assert weight(face, 5.0) == 0.0
    assert weight(face, 5.0 + ATTACK_S) == pytest.approx(0.95 * MAXIMUM)


def test_times_count_from_receipt(face: Sequencer, push: Pushing) -> None:
    """Planned starts, times to live and fades, though a sample has looked ahead."""
    push(0.0, "happy", hold_s=INF)
    face.sample(5.0)
    push(4.99, "sad", at_s=1.0, policy=Policy.QUEUE)
    push(4.99, "sad", ttl_s=0.5, policy=Policy.QUEUE)
    push(4.99, "angry", at_s=0.001, policy=Policy.BLEND)
    assert face.next_change(5.0) == 5.0
    assert progress(face.sample(5.1), "d").start_s == 5.0
    assert endings(face, 5.49 - 1e-6, 5.49) == [("c", "expired", None)]
    assert view(face, 5.5, "b").phase == "scheduled"
    assert view(face, 5.99, "b").phase == "queued"
    face.sample(6.0)
    face.interrupt("stop", 0.12, 5.98)
    assert not neutral(face.sample(6.1 - 1e-6))
    assert neutral(face.sample(6.1))
    face.interrupt("late", 0.0, 6.05)
    assert neutral(face.sample(6.1 + MIN_TRANSITION_S))


# --- another table ------------------------------------------------------------------------


def test_a_new_table_leaves_running_cues_alone(face: Sequencer, push: Pushing) -> None:
    """They go on towards what they were promised; new cues follow the new table."""
    push(0.0, "happy", hold_s=INF)
    before = face.sample(0.1).weights
    face.replace_emotions(table(emotion("bored", "meh")))
    after = face.sample(0.1).weights
    assert after["bored"] == 0.0
    assert all(after[label] == before[label] for label in before)
    assert weight(face, 1.0) == MAXIMUM
    assert push(1.0, "meh", policy=Policy.BLEND, intensity=0.1).used == "bored"
    assert weight(face, 2.0, "bored") == pytest.approx(0.1 * MAXIMUM)
    assert progress(face.sample(2.0), "b").change == 1.0


def test_a_label_that_goes_away_leaves_the_face(push: Pushing) -> None:
    """Cues that asked for it run out their time without it; so do those that still wait."""
    face = Sequencer(table(emotion("bored")))
    push = Pushing(face)
    push(0.0, "bored", mix={"sad": 0.5})
    push(0.0, "bored", policy=Policy.QUEUE)
    face.sample(0.5)
    face.replace_emotions(table())
    sample = face.sample(0.6)
    assert "bored" not in sample.weights
    assert sample.weights["sad"] > 0.3
    assert endings(face, 9.0) == [("a", "finished", None), ("b", "finished", None)]
