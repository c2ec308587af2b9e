"""Cues: accepted events on the timeline, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from orchestrator.expression.crossfade import MIN_TRANSITION_S
from orchestrator.expression.easing import ONSET, RELEASE
from orchestrator.expression.layers import Labels, Weights
from pipeline.types import EmotionEvent, Policy

NO_CHANGE: Final = 1e-6

EndingKind = Literal["finished", "superseded", "expired"]
Phase = Literal["scheduled", "queued", "attack", "hold", "decay", "suspended"]


@dataclass(frozen=True, slots=True)
class CueProgress:
    """How much of its change a cue shows.

    Attributes:
        start_s: when it started.
        change: share of the way from the face at its start to the face it leads to, 0 to 1, as
            far as its own emotions go; the whole face where they stay.
        no_change: there is nothing to show, such as neutral on a neutral face; `change` is 1.
    """

    id: str
    start_s: float
    change: float
    no_change: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """The one ending of an accepted cue; `by` is the message that superseded it."""

    id: str
    kind: EndingKind
    by: str | None = None


@dataclass(frozen=True, slots=True)
class CueView:
    """A cue as `/v1/state` tells it.

    Attributes:
        since_s: seconds since it entered its phase.
        remaining_s: seconds until it is finished, as things stand, or will be once it is
            resumed; None if that is open.
    """

    id: str
    emotion: str
    phase: Phase
    since_s: float
    remaining_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """The face at one moment.

    Attributes:
        weights: label to weight on the face, `neutral` included; they sum to 1.
        cues: the cues that are on or decaying.
        endings: cues that ended since the last sample.
        interrupts_done: interrupts whose last cue has left the face since the last sample.
        newest: id of the newest cue on the face.
    """

    weights: Mapping[str, float]
    cues: tuple[CueProgress, ...]
    endings: tuple[Ending, ...]
    interrupts_done: tuple[str, ...]
    newest: str | None


@dataclass(slots=True, eq=False)
class Cue:
    """An accepted cue; times are absolute.

    Attributes:
        serial: rises with each event.
        order: rises with each start.
        own: the labels that it asks for.
        origin: the face at its start.
        goal: the face it leads to.
    """

    event: EmotionEvent
    serial: int
    label: str
    shares: Mapping[str, float]
    attack_s: float
    hold_s: float
    decay_s: float
    due_s: float
    expires_s: float
    phase: Phase
    phase_since_s: float
    start_s: float = math.inf
    decay_at_s: float = math.inf
    finish_s: float = math.inf
    order: int = -1
    own: Labels = field(default_factory=lambda: np.zeros(0, np.bool_))
    origin: Weights = field(default_factory=lambda: np.zeros(0))
    goal: Weights = field(default_factory=lambda: np.zeros(0))

    @property
    def id(self) -> str:
        return self.event.id

    @property
    def way_in_s(self) -> float:
        """How long 95 % of the way in take."""
        return max(self.attack_s, MIN_TRANSITION_S * ONSET.x95)

    @property
    def way_out_s(self) -> float:
        """How long all of the way out takes."""
        return max(self.decay_s / RELEASE.x95, MIN_TRANSITION_S)

    def enter(self, phase: Phase, now_s: float) -> None:
        self.phase = phase
        self.phase_since_s = now_s

    def progress(self, value: Weights) -> CueProgress:
        """How much of its change the face `value` shows."""
        way = self.goal - self.origin
        own = way * self.own
        if float(own @ own) >= NO_CHANGE**2:
            way = own
        length = float(way @ way)
        if length < NO_CHANGE**2:
            return CueProgress(self.id, self.start_s, 1.0, no_change=True)
        change = float((value - self.origin) @ way) / length
        return CueProgress(self.id, self.start_s, min(1.0, max(0.0, change)), no_change=False)

    def view(self, now_s: float) -> CueView:
        """What `/v1/state` tells of it."""
        phase, since_s = self.phase, self.phase_since_s
        if phase == "attack" and now_s >= self.start_s + self.way_in_s:
            phase, since_s = "hold", self.start_s + self.way_in_s
        match phase:
            case "decay":
                end_s = self.finish_s
            case "scheduled" if self.event.policy is not Policy.QUEUE:
                end_s = self.due_s + self.way_in_s + self.hold_s + self.way_out_s
            case "suspended":
                end_s = self.decay_at_s + self.way_out_s + now_s - self.phase_since_s
            case _:
                end_s = self.decay_at_s + self.way_out_s
        remaining_s = None if math.isinf(end_s) else end_s - now_s
        return CueView(self.id, self.label, phase, now_s - since_s, remaining_s)


def together(scene: Iterable[Cue]) -> dict[str, float]:
    """What the cues of a scene ask for together, scaled down where it is more than a face has.

    Neutral takes its share like the others, though what it takes has no weight of its own.
    """
    shares: dict[str, float] = {}
    for cue in scene:
        for label, share in cue.shares.items():
            shares[label] = shares.get(label, 0.0) + share
    total = max(1.0, sum(shares.values()))
    return {label: share / total for label, share in shares.items()}
