"""What holds for every sequence of events at every time."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.expression.crossfade import MAX_LAYERS, MIN_TRANSITION_S, Crossfade
from orchestrator.expression.easing import ONSET, RELEASE
from orchestrator.expression.layers import BRAKE_S
from orchestrator.expression.sequencer import (
    MAX_ON_FACE,
    MAX_WAITING,
    Ending,
    FaceSample,
    Sequencer,
)
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import EmotionEvent, Policy
from tests.fakes.emotions import ATTACK_S, DECAY_S, MAXIMUM, table

INF = math.inf
EMOTIONS = table()
LABELS = [label for label in EMOTIONS.labels if label != "neutral"]
FRAME_S = 1.0 / 30.0
ROUNDING = 1e-9


def examples(count: int) -> settings:
    """So many examples, the same every time."""
    return settings(max_examples=count, derandomize=True, deadline=None)


# --- programmes: what is pushed when ------------------------------------------------------


@dataclass(frozen=True)
class Stop:
    """An interrupt."""

    id: str
    fade_s: float


@dataclass(frozen=True)
class Step:
    """Something that comes at a time."""

    at_s: float
    what: EmotionEvent | Stop


Programme = list[Step]

GAPS_S = (0.0, 0.0, 1e-9, 1e-6, 2e-4, 0.004, 0.02, 0.08, 0.3, 1.0)
STRENGTHS = (1.0, 1.0, 0.5, 0.3, 0.2, 0.0, 1.6, -1.0)
HOLDS_S = (None, 0.0, 0.05, 0.4, INF)


@dataclass(frozen=True)
class Fades:
    """The times for attack, decay and interrupt that a programme draws from, beside the emotions'
    own."""

    fixed_s: tuple[float, ...]
    low_s: float
    high_s: float

    def draw(self, random: Random) -> float | None:
        if random.random() < 0.4:
            return random.choice((None, *self.fixed_s))
        return random.uniform(self.low_s, self.high_s)


ANY = Fades((0.0, 0.03, 2.0), 0.0, 1.0)
EASY = Fades((), 0.1, 1.0)
SLOW = Fades((60.0,), 0.1, 3.0)


def drawn_event(random: Random, id_: str, fades: Fades) -> EmotionEvent:
    mixed = random.sample(LABELS, random.choice((0, 0, 1, 2)))
    return EmotionEvent(
        id_,
        random.choice((*EMOTIONS.labels, "Joy")),
        random.choice((*STRENGTHS, random.random())),
        {label: random.choice((*STRENGTHS, random.random())) for label in mixed},
        attack_s=fades.draw(random),
        hold_s=random.choice((*HOLDS_S, random.random())),
        decay_s=fades.draw(random),
        at_s=random.choice((0.0, 0.0, 0.0, 0.1, 0.5, 2.0)),
        policy=random.choice(list(Policy)),
        priority=random.choice((5, 5, 5, 5, 0, 6, 9)),
        ttl_s=random.choice((None, None, None, 0.001, 0.1, 1.0)),
    )


def drawn(seed: int, count: int, fades: Fades, stops: bool) -> Programme:
    random = Random(seed)
    now_s = random.choice((0.0, 0.0, 12_345.678))
    programme: Programme = []
    for index in range(count):
        now_s += random.choice((*GAPS_S, random.random()))
        if stops and random.random() < 0.12:
            fade_s = fades.draw(random)
            what: EmotionEvent | Stop = Stop(f"i{index}", 0.12 if fade_s is None else fade_s)
        else:
            what = drawn_event(random, f"e{index}", fades)
        programme.append(Step(now_s, what))
    return programme


def programmes(
    most: int = 12, fades: Fades = ANY, stops: bool = True
) -> st.SearchStrategy[Programme]:
    """Bursts, gaps, all policies, priorities and times, and interrupts between them.

    Drawn from a seed, which spreads them better than drawing each part does; a failing one is
    cut down to its beginning.
    """
    counts = st.integers(1, most)
    return st.builds(drawn, st.integers(0, 2**32), counts, st.just(fades), st.just(stops))


def begin_s(programme: Programme) -> float:
    return programme[0].at_s


def last_s(programme: Programme) -> float:
    return programme[-1].at_s


class Watched(Sequencer):
    """A sequencer that notes when something happened by itself."""

    def __init__(self) -> None:
        super().__init__(EMOTIONS)
        self.happened_s: list[float] = []

    def _happen(self, t_s: float) -> None:
        self.happened_s.append(t_s)
        super()._happen(t_s)


@dataclass
class Played:
    """What a programme came to."""

    face: Watched
    times_s: list[float] = field(default_factory=list)
    samples: list[FaceSample] = field(default_factory=list)
    accepted: dict[str, Step] = field(default_factory=dict)
    stops: dict[str, Step] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        return np.array([[s.weights[label] for label in LABELS] for s in self.samples])

    @property
    def endings(self) -> list[Ending]:
        return [ending for sample in self.samples for ending in sample.endings]

    def ended_s(self) -> dict[str, float]:
        """When each ending or done interrupt was told."""
        told: dict[str, float] = {}
        for t_s, sample in zip(self.times_s, self.samples, strict=True):
            told |= {ending.id: t_s for ending in sample.endings}
            told |= dict.fromkeys(sample.interrupts_done, t_s)
        return told


def refusal(face: Sequencer, event: EmotionEvent, now_s: float) -> ErrorCode | None:
    """Push an event; why it is refused, if it is."""
    try:
        face.push(event, now_s)
    except InvalidEventError as error:
        return error.code
    return None


def put(step: Step, played: Played) -> None:
    """Push an event, or interrupt."""
    if isinstance(step.what, Stop):
        played.stops[step.what.id] = step
        played.face.interrupt(step.what.id, step.what.fade_s, step.at_s)
        return
    if refusal(played.face, step.what, step.at_s) is None:
        played.accepted[step.what.id] = step
    else:
        played.refused.append(step.what.id)


def play(programme: Programme, times_s: Iterable[float]) -> Played:
    """Run a programme on a new face and sample it at these times, after what comes by then."""
    played = Played(Watched())
    waiting = list(reversed(programme))
    for t_s in times_s:
        while waiting and waiting[-1].at_s <= t_s:
            put(waiting.pop(), played)
        played.times_s.append(t_s)
        played.samples.append(played.face.sample(t_s))
        # Before rounding is taken care of.
        assert float(played.face._face.value(t_s).sum()) <= 1.0 + 1e-12
    return played


def grid(programme: Programme, beyond_s: float, count: int) -> list[float]:
    times_s = np.linspace(begin_s(programme), last_s(programme) + beyond_s, count)
    return [float(t_s) for t_s in times_s]


def shortest_s(programme: Programme) -> float:
    """The shortest transition that it can ask for."""
    durations_s = [ATTACK_S / ONSET.x95, DECAY_S / RELEASE.x95]
    for step in programme:
        if isinstance(step.what, Stop):
            durations_s.append(step.what.fade_s)
            continue
        if step.what.attack_s is not None:
            durations_s.append(step.what.attack_s / ONSET.x95)
        if step.what.decay_s is not None:
            durations_s.append(step.what.decay_s / RELEASE.x95)
    return max(MIN_TRANSITION_S, min(durations_s))


# --- range --------------------------------------------------------------------------------


@examples(150)
@given(programmes(most=20))
def test_weights_are_shares_of_a_face(programme: Programme) -> None:
    """Each is in [0, 1]; without neutral their sum is at most 1, with it exactly 1."""
    for sample in play(programme, grid(programme, 5.0, 60)).samples:
        weights = dict(sample.weights)
        assert list(weights) == list(EMOTIONS.labels)
        assert all(0.0 <= weight <= 1.0 for weight in weights.values())
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
        del weights["neutral"]
        assert sum(weights.values()) <= 1.0


@examples(100)
@given(programmes(most=20))
def test_no_weight_exceeds_what_was_asked(programme: Programme) -> None:
    """No label is ever above the most that any event asked of it, and what was blended with."""
    alone, blended = dict.fromkeys(LABELS, 0.0), dict.fromkeys(LABELS, 0.0)
    for step in programme:
        if not isinstance(step.what, EmotionEvent):
            continue
        wanted = [(step.what.emotion or "", step.what.intensity), *step.what.mix.items()]
        shares = dict.fromkeys(EMOTIONS.labels, 0.0)
        for name, amount in wanted:
            label = EMOTIONS.resolve(name)
            shares[label] = min(1.0, shares[label] + min(1.0, max(0.0, amount)))
        for label in LABELS:
            if step.what.policy is Policy.BLEND:
                blended[label] += MAXIMUM * shares[label]
            else:
                alone[label] = max(alone[label], MAXIMUM * shares[label])
    highest = play(programme, grid(programme, 5.0, 60)).weights.max(axis=0)
    for label, weight in zip(LABELS, highest, strict=True):
        assert weight <= alone[label] + blended[label] + ROUNDING


# --- smoothness ---------------------------------------------------------------------------


def hardest(duration_s: float) -> float:
    """The most that velocity changes in a second along the steepest curve."""
    return ONSET.n * (ONSET.n + 1) / duration_s**2


def velocity_jump(played: Played, hardest_change: float) -> float:
    """The most that velocity changes from one pair of samples to the next beyond what it may."""
    times_s, weights = np.array(played.times_s), played.weights
    steps_s = np.diff(times_s)
    velocities = np.diff(weights, axis=0) / steps_s[:, None]
    between_s = (steps_s[1:] + steps_s[:-1]) / 2.0
    noise = 1e-15 / np.minimum(steps_s[1:], steps_s[:-1])
    allowed = hardest_change * between_s + noise + 1e-7
    return float((np.abs(np.diff(velocities, axis=0)).max(axis=1) - allowed).max())


def close_up(times_s: Iterable[float], step_s: float) -> list[float]:
    """Times closely around these."""
    close = sorted(t_s + k * step_s for t_s in times_s for k in (-3, -2, -1, 0, 1, 2, 3))
    # Not so close that rounding shows.
    return [t_s for t_s, next_s in itertools.pairwise([*close, INF]) if next_s - t_s > step_s / 4]


def assert_smooth(programme: Programme, beyond_s: float) -> None:
    """Value and velocity change no faster than the shortest transition allows.

    A cross-fade's s'' is at most n (n + 1) / duration^2, its way at most 1; a brake is no
    harder; a few of them can meet, so three times that is allowed. A jump in velocity, however
    small, shows between samples that are close enough.
    """
    allowed = 3.0 * hardest(shortest_s(programme))
    coarse = grid(programme, beyond_s, 300)
    watched = play(programme, coarse)
    events_s = {step.at_s for step in programme} | set(watched.face.happened_s)
    step_s = 1e-8 if begin_s(programme) < 100.0 else 1e-6
    around = [t_s for t_s in close_up(events_s, step_s) if t_s >= begin_s(programme)]
    assert velocity_jump(play(programme, sorted({*coarse, *around})), allowed) <= 0.0
    # And where no event is: closer and closer to where the velocity changes most.
    low_s, high_s = coarse[0], coarse[-1]
    for _ in range(5):
        closer = np.linspace(low_s, high_s, 60)
        played = play(programme, closer.tolist())
        assert velocity_jump(played, allowed) <= 0.0
        bends = np.abs(np.diff(played.weights, n=2, axis=0)).max(axis=1)
        most = int(bends.argmax())
        low_s, high_s = float(closer[most]), float(closer[most + 2])
        if high_s - low_s < 1e-6:
            break


@examples(60)
@given(programmes(fades=EASY))
def test_value_and_velocity_are_continuous(programme: Programme) -> None:
    """At every event, planned start, decay and resume, and everywhere between."""
    assert_smooth(programme, 4.0)


@examples(40)
@given(programmes(fades=ANY))
def test_they_are_continuous_even_where_there_is_no_time(programme: Programme) -> None:
    """Transitions of 0 s are steep but no jumps."""
    assert_smooth(programme, 4.0)


@examples(40)
@given(programmes(fades=SLOW, most=6))
def test_they_are_continuous_where_everything_is_slow(programme: Programme) -> None:
    """Transitions of a minute, replaced in the middle."""
    assert_smooth(programme, 90.0)


@examples(60)
@given(programmes(most=25, fades=EASY))
def test_nothing_is_much_steeper_than_the_steepest_curve(programme: Programme) -> None:
    """Bursts do not add up: no weight moves faster than twice the steepest single change."""
    slope = max(ONSET.slope(x) for x in np.linspace(0.0, 1.0, 1001))
    times_s = np.arange(begin_s(programme), last_s(programme) + 2.0, 0.005)
    weights = play(programme, times_s.tolist()).weights
    assert np.abs(np.diff(weights, axis=0)).max() <= 2.0 * slope / shortest_s(programme) * 0.005


@examples(40)
@given(st.integers(0, 10**6), st.integers(2, 10), st.floats(1e-6, 1.2))
def test_cross_fades_alone_are_smooth_and_in_range(seed: int, count: int, gap_s: float) -> None:
    """Any targets, times and manners, folded at any time or not."""
    random = np.random.default_rng(seed)
    tidy, lazy = Crossfade(4), Crossfade(4)
    now_s, shortest = 0.0, 1.0
    highest = target = np.zeros(4)
    for _ in range(count):
        now_s += gap_s * float(random.uniform()) ** 3
        fresh = random.dirichlet(np.full(5, 0.4))[:4] * random.choice([0.0, 1.0, 1.0])
        # Some go on to where they are going, which leaves the others less.
        stay = random.uniform(size=4) < random.choice([0.0, 0.6])
        room = 1.0 - float(target[stay].sum())
        target = np.where(stay, target, fresh * room)
        duration_s = float(random.uniform(0.2, 1.0)) ** 2
        shortest = min(shortest, duration_s)
        highest = np.maximum(highest, target)
        easing = (ONSET, RELEASE)[random.integers(2)]
        before, velocity = tidy.motion(now_s)
        for face in (tidy, lazy):
            manner = random.bit_generator.state
            unwanted = bool(random.integers(2))
            if face is tidy:
                random.bit_generator.state = manner
                face.fold(now_s)
            face.retarget(now_s, target, duration_s, easing, unwanted=unwanted)
        after, velocity_after = tidy.motion(now_s)
        np.testing.assert_allclose(after, before, atol=1e-12)
        np.testing.assert_allclose(velocity_after, velocity, atol=1e-9)
    step_s = 2e-3
    values = []
    for t_s in np.arange(now_s, now_s + 1.2, step_s):
        values.append(tidy.value(t_s))
        np.testing.assert_allclose(lazy.value(t_s), values[-1], atol=1e-12)
        tidy.fold(t_s)
    weights = np.array(values)
    assert weights.min() >= 0.0
    assert (weights <= highest + ROUNDING).all()
    assert weights.sum(axis=1).max() <= 1.0 + 1e-12
    bends = np.abs(np.diff(weights, n=2, axis=0)).max()
    assert bends <= 3.0 * hardest(shortest) * step_s**2
    np.testing.assert_allclose(weights[-1], target, atol=1e-12)


# --- the same however often one looks -----------------------------------------------------

TICKS = 720
RATES = {10: 72, 30: 24, 60: 12, 144: 5}


def shares(samples: Iterable[FaceSample]) -> list[list[float]]:
    """Every label's weight, `neutral` too."""
    return [[sample.weights[label] for label in EMOTIONS.labels] for sample in samples]


def changes(samples: Iterable[FaceSample]) -> list[float]:
    """How far each cue has come."""
    return [cue.change for sample in samples for cue in sample.cues]


@examples(30)
@given(programmes())
def test_the_rate_of_sampling_makes_no_difference(programme: Programme) -> None:
    """10, 30, 60 and 144 samples a second show the same, and tell the same in the same order."""
    first = round(begin_s(programme) * TICKS)
    last = round((last_s(programme) + 3.0) * TICKS)
    ticks = {
        rate: [n for n in range(first - first % every, last) if n % every == 0]
        for rate, every in RATES.items()
    }
    every_tick = sorted(set(itertools.chain(*ticks.values())))
    full = play(programme, [n / TICKS for n in every_tick])
    at_tick = dict(zip(every_tick, full.samples, strict=True))
    told_s = full.ended_s()
    for rate, chosen in ticks.items():
        played = play(programme, [n / TICKS for n in chosen])
        assert played.refused == full.refused
        others = [at_tick[n] for n in chosen]
        for sample, other in zip(played.samples, others, strict=True):
            assert sample.newest == other.newest
            assert [cue.id for cue in sample.cues] == [cue.id for cue in other.cues]
        np.testing.assert_allclose(shares(played.samples), shares(others), rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(changes(played.samples), changes(others), rtol=0.0, atol=1e-6)
        told = played.ended_s()
        order = [ending for ending in full.endings if told_s[ending.id] <= played.times_s[-1]]
        assert played.endings == order
        for id_, t_s in told.items():
            due = next(n for n in chosen if n / TICKS >= told_s[id_])
            assert t_s == due / TICKS, (rate, id_)


# --- pace ---------------------------------------------------------------------------------

MIXES = st.dictionaries(st.sampled_from(LABELS), st.floats(-0.5, 1.5), max_size=3)
FADES_S = st.floats(MIN_TRANSITION_S, 60.0)
STARTS_S = st.sampled_from([0.0, 1.0, 54_321.0])


@examples(60)
@given(
    STARTS_S,
    st.builds(
        EmotionEvent,
        id=st.just("a"),
        emotion=st.just("happy"),
        intensity=st.floats(0.05, 1.0),
        mix=MIXES,
        attack_s=FADES_S,
        hold_s=st.floats(0.0, 3600.0),
        decay_s=FADES_S,
    ),
)
def test_95_percent_in_and_out_in_time(start_s: float, event: EmotionEvent) -> None:
    """Of the way in after the attack, of the way out after the decay; not much sooner."""
    attack_s, hold_s, decay_s = event.attack_s or 0.0, event.hold_s or 0.0, event.decay_s or 0.0
    face = Sequencer(EMOTIONS)
    face.push(event, start_s)
    settled = Sequencer(EMOTIONS)
    settled.push(replace(event, hold_s=INF), start_s)
    full = settled.sample(start_s + 200.0).weights
    for at_s, share in ((attack_s * 0.8, 0.0), (attack_s, 0.95)):
        weights = face.sample(start_s + at_s).weights
        for label in LABELS:
            done = weights[label] / full[label] if full[label] else 0.95
            assert done == pytest.approx(0.95, abs=1e-6) if share else done <= 0.95
    over_s = start_s + attack_s + hold_s
    for label in LABELS:
        assert face.sample(over_s + decay_s * 0.8).weights[label] >= 0.05 * full[label] * 0.94
    weights = face.sample(over_s + decay_s).weights
    for label in LABELS:
        assert weights[label] <= 0.05 * full[label] + 1e-6
    sample = face.sample(over_s + decay_s / RELEASE.x95 + 1e-6)
    assert [ending.kind for ending in sample.endings] == ["finished"]
    assert sample.weights["neutral"] == 1.0


@examples(60)
@given(
    st.floats(0.0, 3.0),
    st.tuples(FADES_S, st.floats(0.1, 1.0)),
    st.tuples(FADES_S, st.floats(0.1, 1.0)),
    st.sampled_from([Policy.REPLACE, Policy.OVERRIDE]),
)
def test_replaced_in_mid_flight(
    at_s: float, first: tuple[float, float], second: tuple[float, float], policy: Policy
) -> None:
    """The new one is 95 % in in time; the old leaves the range between the face at the start and
    the targets by no more than the brake takes to hold it, and never what it was going to."""
    (first_s, strong), (second_s, weak) = first, second
    face = Sequencer(EMOTIONS)
    face.push(EmotionEvent("a", "happy", strong, attack_s=first_s, hold_s=INF), 0.0)
    before = face.sample(at_s).weights
    step_s = 1e-6
    speed = (face.sample(at_s + step_s).weights["happy"] - before["happy"]) / step_s
    now_s = at_s + step_s
    event = EmotionEvent("b", "sad", weak, attack_s=second_s, hold_s=INF, policy=policy)
    face.push(event, now_s)
    # Its s grows by no more than that of the curve in the time that the brake lets pass.
    brake_s = min(BRAKE_S, 2.0 * now_s) / 3.0
    reach = MAXIMUM * strong * ONSET.at((now_s + brake_s) * ONSET.x95 / first_s)
    highest = 0.0
    times_s = np.unique(np.concatenate([np.linspace(0, 0.3, 100), [second_s, 2 * second_s]]))
    for t_s in times_s:
        weights = face.sample(now_s + float(t_s)).weights
        highest = max(highest, weights["happy"])
        assert weights["sad"] <= MAXIMUM * weak + ROUNDING
        if t_s >= second_s:
            assert weights["sad"] >= 0.95 * MAXIMUM * weak - 1e-6
            assert weights["happy"] <= 0.05 * reach + 1e-6
    assert highest <= max(before["happy"] + speed * step_s, reach) + 1e-6


@examples(60)
@given(
    st.floats(0.0, 0.6),
    st.floats(0.1, 1.0),
    st.floats(0.1, 1.0),
    st.sampled_from(["attack", "hold", "decay"]),
    st.floats(0.05, 30.0),
)
def test_the_same_emotion_in_mid_flight(
    share: float, strong: float, other: float, phase: str, attack_s: float
) -> None:
    """Asked for again at another strength, it stays between the face at the start and the
    target, but for what the brake takes."""
    face = Sequencer(EMOTIONS)
    event = EmotionEvent("a", "happy", strong, attack_s=1.0, hold_s=1.0, decay_s=1.0)
    face.push(event, 0.0)
    now_s = share + {"attack": 0.0, "hold": 1.0, "decay": 2.0}[phase]
    start = face.sample(now_s).weights["happy"]
    drift = face.sample(now_s + 1e-6).weights["happy"] - start
    now_s += 1e-6
    face.push(EmotionEvent("b", "happy", other, attack_s=attack_s, hold_s=INF), now_s)
    target = MAXIMUM * other
    # 1.5: a curve that is still getting steeper goes on for a little more than its speed says.
    slack = 1.5 * abs(drift) / 1e-6 * BRAKE_S / 3.0 + 1e-5
    for t_s in (*np.linspace(0.0, 0.5, 60), attack_s, 2 * attack_s, 200.0):
        weight = face.sample(max(now_s + float(t_s), face._now_s)).weights["happy"]
        assert min(start, target) - slack <= weight <= max(start, target) + slack
    assert weight == pytest.approx(target, abs=1e-12)


@examples(40)
@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), FADES_S, FADES_S), min_size=2, max_size=4),
    st.floats(0.0, 2.0),
)
def test_blended_cues_keep_their_pace(
    cues: list[tuple[float, float, float]], hold_s: float
) -> None:
    """Where there is room for all, each comes and goes as if it were alone."""
    strength = 1.0 / len(cues)
    face = Sequencer(EMOTIONS)
    alone = []
    for index, (start_s, attack_s, decay_s) in enumerate(sorted(cues)):
        event = EmotionEvent(
            str(index),
            LABELS[index],
            strength,
            attack_s=attack_s,
            hold_s=hold_s,
            decay_s=decay_s,
            policy=Policy.BLEND,
        )
        # Not within the time in which cues that come together are taken for one.
        now_s = start_s + 0.02 * index
        face.push(event, now_s)
        alone.append(Sequencer(EMOTIONS))
        alone[-1].push(event, now_s)
    for t_s in np.linspace(1.1, 130.0, 200):
        weights = face.sample(float(t_s)).weights
        for index, other in enumerate(alone):
            label = LABELS[index]
            assert weights[label] == pytest.approx(other.sample(float(t_s)).weights[label])


# --- endings ------------------------------------------------------------------------------


def drained(programme: Programme, step_s: float = 0.05) -> Played:
    """Played to its end: everything that is left is interrupted after a while."""
    end_s = last_s(programme) + 4.0
    times_s = np.arange(begin_s(programme), end_s + 1.0, step_s).tolist()
    return play([*programme, Step(end_s, Stop("end", 0.1))], times_s)


@examples(120)
@given(programmes(most=25))
def test_every_accepted_cue_ends_once(programme: Programme) -> None:
    """And no other; every interrupt is done once, in its time."""
    played = drained(programme)
    assert Counter(e.id for e in played.endings) == Counter(list(played.accepted))
    assert not played.face.cues(played.times_s[-1])
    done = Counter(id_ for sample in played.samples for id_ in sample.interrupts_done)
    assert done == Counter(list(played.stops))
    told_s = played.ended_s()
    for id_, step in played.stops.items():
        assert isinstance(step.what, Stop)
        limit_s = step.at_s + max(step.what.fade_s, MIN_TRANSITION_S)
        assert told_s[id_] < limit_s + 0.05 + 1e-9
    assert played.samples[-1].weights["neutral"] == 1.0


@examples(120)
@given(programmes(most=25))
def test_endings_are_what_they_say(programme: Programme) -> None:
    """Superseded is by what came later or was stronger, expired is without ever having been on
    and at its time, finished is at rest again."""
    played = drained(programme)
    seen = {cue.id for sample in played.samples for cue in sample.cues}
    told_s = played.ended_s()
    for ending in played.endings:
        step = played.accepted[ending.id]
        assert isinstance(step.what, EmotionEvent)
        match ending.kind:
            case "superseded":
                assert ending.by is not None
                by = played.accepted.get(ending.by) or played.stops[ending.by]
                if isinstance(by.what, EmotionEvent):
                    assert by.what.priority >= step.what.priority
                else:
                    assert by.at_s >= step.at_s
            case "expired":
                assert ending.id not in seen
                assert step.what.ttl_s is not None
                expired_s = step.at_s + step.what.ttl_s
                assert expired_s <= told_s[ending.id] + 1e-9
                assert told_s[ending.id] < expired_s + 0.05 + 1e-9
            case _:
                assert ending.by is None


@examples(40)
@given(programmes(most=10, stops=False))
def test_every_cue_is_on_for_its_time(programme: Programme) -> None:
    """What finishes was in its attack and hold for exactly as long as asked, however often and
    however deeply it was suspended in between."""
    step_s = 0.01
    played = Played(Watched())
    on_s: defaultdict[str, float] = defaultdict(float)
    waiting = list(reversed(programme))
    for t_s in np.arange(begin_s(programme), last_s(programme) + 8.0, step_s).tolist():
        while waiting and waiting[-1].at_s <= t_s:
            put(waiting.pop(), played)
        played.samples.append(played.face.sample(t_s))
        for view in played.face.cues(t_s):
            on_s[view.id] += step_s if view.phase in ("attack", "hold") else 0.0
    for ending in played.endings:
        if ending.kind != "finished":
            continue
        event = played.accepted[ending.id].what
        assert isinstance(event, EmotionEvent)
        accepted_label = EMOTIONS.resolve(event.emotion or "")
        emotion = EMOTIONS[accepted_label]
        attack_s = emotion.attack_s if event.attack_s is None else event.attack_s
        hold_s = emotion.hold_s if event.hold_s is None else event.hold_s
        # Each stretch is counted to within one step.
        stretches = len(programme) + 1
        wanted_s = max(attack_s, MIN_TRANSITION_S * ONSET.x95) + hold_s
        assert on_s[ending.id] == pytest.approx(wanted_s, abs=stretches * step_s)


@examples(60)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 0.5), st.sampled_from([None, 0.3, 5.0]), st.floats(0.0, 0.3)),
        min_size=2,
        max_size=8,
    )
)
def test_the_queue_keeps_its_order(cues: list[tuple[float, float | None, float]]) -> None:
    """Cues start in the order of arrival, each when the one before has finished or at once."""
    now_s, events = 0.0, []
    for index, (gap_s, ttl_s, hold_s) in enumerate(cues):
        now_s += gap_s
        label = LABELS[index % 6]
        event = EmotionEvent(
            str(index), label, hold_s=hold_s, policy=Policy.QUEUE, ttl_s=ttl_s, decay_s=0.2
        )
        events.append(Step(now_s, event))
    played = play(events, np.arange(0.0, 12.0, 0.02).tolist())
    starts: dict[str, float] = {}
    for sample in played.samples:
        assert len(sample.cues) <= 1
        for cue in sample.cues:
            starts.setdefault(cue.id, cue.start_s)
    assert list(starts) == sorted(starts, key=int)
    free_s = 0.0
    for step in events:
        assert isinstance(step.what, EmotionEvent)
        if step.what.id not in starts:
            assert step.what.ttl_s is not None
            assert step.at_s + step.what.ttl_s < free_s
            continue
        assert starts[step.what.id] == pytest.approx(max(step.at_s, free_s))
        assert step.what.hold_s is not None
        free_s = starts[step.what.id] + ATTACK_S + step.what.hold_s + 0.2 / RELEASE.x95


# --- interrupts ---------------------------------------------------------------------------


@examples(120)
@given(programmes(most=20), st.floats(0.0, 1.0), st.sampled_from([0.0, 0.12, 0.7]))
def test_an_interrupt_brings_rest_in_time(
    programme: Programme, later_s: float, fade_s: float
) -> None:
    """Whatever was going on: neutral to the last bit after the fade; told in the first sample
    from then on at the latest, and in none that still shows something."""
    at_s = last_s(programme) + later_s**3
    rest_s = at_s + max(fade_s, MIN_TRANSITION_S)
    played = play(programme, [at_s])
    left = {cue.id for cue in played.face.cues(at_s)}
    assert set(played.face.interrupt("stop", fade_s, at_s)) == left
    done_s = None
    for t_s in [*np.linspace(at_s, rest_s, 20)[:-1].tolist(), rest_s]:
        sample = played.face.sample(t_s)
        assert {ending.id for ending in sample.endings} == (left if t_s == at_s else set())
        if "stop" in sample.interrupts_done:
            done_s = t_s
        if done_s is not None:
            assert sample.weights["neutral"] == 1.0
        assert not sample.cues
    assert done_s is not None
    assert played.face.next_change(rest_s + FRAME_S) is None


@examples(60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(GAPS_S),
            st.sampled_from(LABELS[1:]),
            st.sampled_from([None, 0.0, 0.03, 1.0, 60.0]),
            st.sampled_from(Policy),
        ),
        max_size=6,
    ),
    st.sampled_from([0.0, 0.12, 2.0]),
)
def test_what_comes_after_an_interrupt_does_not_hold_it_up(
    after: list[tuple[float, str, float | None, Policy]], fade_s: float
) -> None:
    """The cue before it is gone when done is told, and that is in time."""
    face = Sequencer(EMOTIONS)
    face.push(EmotionEvent("old", "happy", hold_s=INF), 0.0)
    face.interrupt("stop", fade_s, 1.0)
    now_s = 1.0
    waiting = []
    for index, (gap_s, label, attack_s, policy) in enumerate(after):
        now_s += gap_s * 0.05
        event = EmotionEvent(str(index), label, attack_s=attack_s, policy=policy)
        waiting.append(Step(now_s, event))
    rest_s = 1.0 + max(fade_s, MIN_TRANSITION_S)
    done = False
    for t_s in sorted({*np.linspace(1.0, rest_s, 40).tolist(), rest_s}):
        while waiting and waiting[0].at_s <= t_s:
            step = waiting.pop(0)
            assert isinstance(step.what, EmotionEvent)
            face.push(step.what, step.at_s)
        sample = face.sample(t_s)
        done = done or sample.interrupts_done == ("stop",)
        assert done == (sample.weights["happy"] == 0.0)
    assert done


# --- when to look -------------------------------------------------------------------------


def twin(face: Watched) -> Watched:
    """A face that goes on alike and on its own."""
    return copy.deepcopy(face, {id(EMOTIONS): EMOTIONS})


@examples(80)
@given(programmes(most=8), st.floats(0.0, 3.0))
def test_the_next_change_is_never_missed(programme: Programme, later_s: float) -> None:
    """Until then every sample is the same, and if there is none, for ever."""
    at_s = last_s(programme) + later_s
    played = play(programme, [at_s])
    for t_s in (at_s, at_s + 0.3, at_s + 5.0, at_s + 200.0):
        now = played.face.sample(t_s)
        change_s = twin(played.face).next_change(t_s)
        assert change_s is None or change_s >= t_s
        end_s = t_s + 4000.0 if change_s is None else math.nextafter(change_s, 0.0)
        if end_s <= t_s:
            continue
        brute = twin(played.face)
        for later in sorted({*np.geomspace(1e-6, end_s - t_s, 30).tolist(), end_s - t_s}):
            sample = brute.sample(min(t_s + later, end_s))
            assert sample.weights == now.weights
            assert sample.cues == now.cues
            assert not sample.endings
            assert not sample.interrupts_done
            assert brute.next_change(min(t_s + later, end_s)) == change_s


@examples(60)
@given(programmes(most=8))
def test_a_face_comes_to_rest(programme: Programme) -> None:
    """When all that is left is endless, nothing is due any more."""
    end_s = last_s(programme) + 400.0
    played = play(programme, grid(programme, 400.0, 20))
    assert played.face.next_change(end_s) is None
    for view in played.face.cues(end_s):
        assert view.phase == "suspended" or view.remaining_s is None


@examples(40)
@given(programmes(most=8))
def test_jumping_from_change_to_change_misses_nothing(programme: Programme) -> None:
    """Sampling at a frame rate while it moves, and otherwise only when told, tells the same."""
    every = play(programme, np.arange(begin_s(programme), last_s(programme) + 9.0, 0.01).tolist())
    face = Watched()
    told: list[Ending] = []
    waiting = list(reversed(programme))
    played = Played(face)
    now_s, end_s = begin_s(programme), every.times_s[-1]
    while now_s <= end_s:
        while waiting and waiting[-1].at_s <= now_s:
            put(waiting.pop(), played)
        change_s = face.next_change(now_s)
        if change_s is not None and change_s <= now_s:
            told.extend(face.sample(now_s).endings)
            now_s += 0.01
        else:
            wake_s = min(change_s or INF, waiting[-1].at_s if waiting else INF)
            now_s = max(wake_s, math.nextafter(now_s, INF))
    told.extend(face.sample(end_s).endings)
    assert told == every.endings
    assert face.sample(end_s).weights == pytest.approx(every.samples[-1].weights, abs=1e-9)


# --- floods -------------------------------------------------------------------------------


def held(face: Sequencer) -> tuple[int, int, int]:
    """How much a face keeps: cross-fades, cues that wait, other cues."""
    waiting = len(face._queue) + len(face._scheduled)
    return face._face.depth, waiting, len(list(face._on())) + len(face._decaying)


FLOODS: Sequence[tuple[str, int, float, dict[str, Any]]] = (
    ("anything", 5_000, 1e-4, {}),
    ("anything", 2_000, 5e-3, {}),
    (
        "blends",
        3_000,
        2e-2,
        {"policy": Policy.BLEND, "attack_s": 0.02, "hold_s": 0.0, "decay_s": 0.3},
    ),
    ("overrides", 10_000, 2e-4, {"policy": Policy.OVERRIDE, "hold_s": 0.01}),
    ("the same", 10_000, 1e-3, {"policy": Policy.REPLACE, "emotion": "happy"}),
    ("slow ones", 2_000, 1.1e-2, {"policy": Policy.REPLACE, "attack_s": 60.0, "decay_s": 60.0}),
)


@pytest.mark.parametrize(
    ("name", "count", "gap_s", "fields"), FLOODS, ids=[f"{f[0]}-{f[2]}" for f in FLOODS]
)
def test_a_flood_is_bounded_smooth_and_accounted_for(
    name: str, count: int, gap_s: float, fields: dict[str, Any]
) -> None:
    """Thousands of events: what is kept is bounded, value and velocity carry over at each of
    them, each accepted cue ends once, and an interrupt brings rest in time."""
    random = np.random.default_rng(len(name))
    face = Sequencer(EMOTIONS)
    now_s, next_s, ended, accepted = 0.0, 0.0, Counter[str](), Counter[str]()
    for index in range(count):
        now_s += gap_s * float(random.uniform())
        if now_s >= next_s:
            ended.update(ending.id for ending in face.sample(now_s).endings)
            next_s = now_s + FRAME_S
        body: dict[str, Any] = {
            "emotion": LABELS[random.integers(6)],
            "intensity": float(random.uniform()),
            "policy": list(Policy)[random.integers(4)],
            "at_s": float(random.choice([0.0, 0.0, 0.01])),
            "hold_s": float(random.choice([0.0, 0.05, 1.0])),
            "priority": int(random.choice([5, 5, 5, 6])),
        } | fields
        event = EmotionEvent(str(index), **body)
        before = None
        if index % 5 == 0:
            face.cues(now_s)  # brings about what is due before the event
            before = face._face.motion(now_s)
        why_not = refusal(face, event, now_s)
        assert why_not in (None, ErrorCode.OUTRANKED, ErrorCode.RATE_LIMITED)
        accepted[event.id] += why_not is None
        if before is not None:
            value, velocity = face._face.motion(now_s)
            assert float(np.abs(value - before[0]).max()) <= 1e-9
            assert float(np.abs(velocity - before[1]).max()) <= 1e-6
        depth, waiting, others = held(face)
        assert depth <= 2 * MAX_LAYERS
        assert waiting <= MAX_WAITING
        assert others <= MAX_ON_FACE + 2
    face.interrupt("stop", 0.12, now_s)
    sample = face.sample(now_s + 0.12)
    ended.update(ending.id for ending in sample.endings)
    assert ended == +accepted
    assert len(+accepted) >= MAX_ON_FACE
    assert sample.weights["neutral"] == 1.0
    assert sample.interrupts_done == ("stop",)
    assert held(face) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_the_cap_on_cross_fades_does_not_show(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pile cut down again and again, value and velocity stay continuous, the range
    holds, no interrupt is late, and everything ends well."""
    cuts = 0
    cut = Crossfade._collapse

    def counted(self: Crossfade, t_s: float) -> None:
        nonlocal cuts
        cuts += 1
        cut(self, t_s)

    monkeypatch.setattr(Crossfade, "_collapse", counted)
    monkeypatch.setattr("orchestrator.expression.crossfade.MAX_LAYERS", 3)
    random = np.random.default_rng(seed)
    programme: Programme = []
    now_s = 0.0
    for index in range(40):
        now_s += float(random.choice([1e-5, 0.003, 0.012, 0.05]))
        what: EmotionEvent | Stop
        if seed % 2 and random.uniform() < 0.1:
            what = Stop(f"i{index}", 0.3)
        else:
            what = EmotionEvent(
                f"e{index}",
                LABELS[random.integers(6)],
                float(random.uniform(0.2, 1.0)),
                attack_s=float(random.uniform(0.15, 0.5)),
                hold_s=float(random.choice([0.0, 0.1, INF])),
                decay_s=float(random.uniform(0.3, 2.0)),
                policy=list(Policy)[random.integers(4)],
            )
        programme.append(Step(now_s, what))
    played = play(programme, grid(programme, 3.0, 400))
    assert cuts >= 3
    assert (played.weights.sum(axis=1) <= 1.0).all()
    if seed % 2 == 0:
        # What an interrupt still has to clear at a cut may be steeper: it has what is left of
        # its time.
        assert_smooth(programme, 3.0)
    told_s = drained(programme, 0.01).ended_s()
    for id_, step in played.stops.items():
        assert told_s[id_] <= step.at_s + 0.3 + MIN_TRANSITION_S + 0.01
