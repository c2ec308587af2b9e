"""Cues over time: which emotions are meant to be on the face, from when, until when.

Events become cues. A cue starts (at once, at its planned time, or when its turn in the queue
comes), is in its attack until 95 % of the way is done, holds, decays, and is finished. Every
start and every decay is a retarget of the cross-fade at its exact time, whoever samples when.

What is on is a stack of scenes. A scene is a set of cues that show together (`blend`);
`override` puts a scene on top, which suspends the ones below until the cue that opened it is
over; what was blended with that stays on, among what was suspended. Decaying cues belong to no
scene any more: nothing is meant to be on for them.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from orchestrator.expression.asking import understand
from orchestrator.expression.crossfade import Crossfade
from orchestrator.expression.cues import (
    Cue,
    CueProgress,
    CueView,
    Ending,
    FaceSample,
    together,
)
from orchestrator.expression.easing import ONSET, RELEASE, Easing
from orchestrator.expression.emotions import NEUTRAL, EmotionTable
from orchestrator.expression.layers import Weights
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import CueAccepted, EmotionEvent, Policy

__all__ = ["CueProgress", "CueView", "Ending", "FaceSample", "Sequencer"]

MAX_WAITING: Final = 256
MAX_ON_FACE: Final = 32
MAX_INTERRUPTS: Final = 1024
MAX_UNTOLD: Final = 4096
MAX_LOOKED_AT: Final = 32
LARGEST_SUM: Final = 1.0 - 1e-15


class Sequencer:
    """Events in, weights out. Depends on nothing but what was pushed and the time asked for.

    Args:
        emotions: what labels and aliases mean.
    """

    def __init__(self, emotions: EmotionTable) -> None:
        self._emotions = emotions
        self._labels = _weighted(emotions)
        self._face = Crossfade(len(self._labels))
        self._now_s = -math.inf
        self._sampled_s = -math.inf
        self._serial = 0
        self._started = 0
        self._scenes: list[list[Cue]] = [[]]
        self._decaying: list[Cue] = []
        self._queue: deque[Cue] = deque()
        self._scheduled: list[Cue] = []
        self._endings: list[Ending] = []
        self._interrupts: dict[int, str] = {}
        self._started_since = False

    # --- events ---------------------------------------------------------------------------

    def push(self, event: EmotionEvent, now_s: float) -> CueAccepted:
        """Put an event on the timeline.

        Args:
            now_s: receipt. What has been sampled cannot change any more: what comes before a
                sample that looked ahead takes effect from that on, with its times from receipt.

        Raises:
            InvalidEventError: unknown emotion, outranked, or no room; nothing has changed.
        """
        received_s, now_s = now_s, max(now_s, self._now_s)
        accepted, shares = understand(event, self._emotions)
        self._advance(now_s)
        self._serial += 1
        cue = self._cue(event, accepted.used, shares, received_s)
        self._check_rank(cue)
        self._check_room(cue)
        if event.at_s > 0.0:
            self._scheduled.append(cue)
            self._scheduled.sort(key=lambda each: each.due_s)
        else:
            self._apply(cue, now_s)
        self._start_queued(now_s)
        return accepted

    def interrupt(self, interrupt_id: str, fade_s: float, now_s: float) -> tuple[str, ...]:
        """End every cue and let the face go neutral within `fade_s` seconds.

        Returns:
            The ids of the cues that it superseded, oldest first.

        Raises:
            InvalidEventError: too many are under way; nothing has changed.
        """
        end_s, now_s = now_s + fade_s, max(now_s, self._now_s)
        self._advance(now_s)
        if len(self._interrupts) >= MAX_INTERRUPTS:
            raise InvalidEventError(
                ErrorCode.RATE_LIMITED,
                f"{MAX_INTERRUPTS} interrupts are under way, which is the most",
                event_id=interrupt_id,
            )
        ended = [*self._on(), *self._decaying, *self._queue, *self._scheduled]
        ended.sort(key=lambda each: each.serial)
        self._end_all(ended, interrupt_id)
        self._scenes, self._decaying, self._scheduled = [[]], [], []
        self._queue.clear()
        self._serial += 1
        self._interrupts[self._serial] = interrupt_id
        rest = np.zeros(len(self._labels))
        self._face.retarget(now_s, rest, end_s - now_s, RELEASE, unwanted=True, mark=self._serial)
        return tuple(cue.id for cue in ended)

    def replace_emotions(self, emotions: EmotionTable) -> None:
        """Use another table; running cues keep their targets as far as the labels remain."""
        before = {label: index for index, label in enumerate(self._labels)}
        self._emotions, self._labels = emotions, _weighted(emotions)
        order = np.array([before.get(label, -1) for label in self._labels], np.intp)
        self._face.resized(order)
        for cue in (*self._on(), *self._decaying):
            cue.origin = np.where(order >= 0, cue.origin[order], 0.0)
            cue.goal = np.where(order >= 0, cue.goal[order], 0.0)
            cue.own = (order >= 0) & cue.own[order]

    # --- time -----------------------------------------------------------------------------

    def sample(self, now_s: float) -> FaceSample:
        """The face at `now_s`, which must not be before an earlier sample or push."""
        now_s = max(now_s, self._now_s)
        self._advance(now_s)
        self._face.fold(now_s)
        value = self._face.value(now_s)
        on = [*self._scenes[-1], *self._decaying]
        newest = max(on, key=lambda cue: cue.order, default=None)
        done = tuple(self._interrupts.pop(mark) for mark in self._face.cleared())
        endings, self._endings = tuple(self._endings), []
        self._sampled_s, self._started_since = now_s, False
        return FaceSample(
            weights=self._named(value),
            cues=tuple(cue.progress(value) for cue in on),
            endings=endings,
            interrupts_done=done,
            newest=newest.id if newest is not None else None,
        )

    def next_change(self, now_s: float) -> float | None:
        """When a sample will next differ from the last: `now_s` while the face moves, None if
        never."""
        now_s = max(now_s, self._now_s)
        due_s = self._next_due_s()
        if due_s <= now_s or self._started_since or self._endings or self._interrupts:
            return now_s
        self._face.fold(now_s)
        if self._face.settles_s > self._sampled_s:
            return now_s
        return None if math.isinf(due_s) else due_s

    def upcoming(
        self, now_s: float, horizon_s: float, step_s: float
    ) -> Iterator[Mapping[str, float]]:
        """The weights that the cues on the timeline lead to, from `now_s` on; nothing changes.

        Empty while nothing is on and nothing waits, and where too much does to look at.
        """
        under_way = sum(1 for _ in self._on()) + len(self._decaying)
        waiting = len(self._queue) + len(self._scheduled)
        if not 0 < under_way + waiting <= MAX_LOOKED_AT:
            return
        twin = copy.deepcopy(self, {id(self._emotions): self._emotions})
        for step in range(1, int(horizon_s / step_s) + 1):
            yield twin.sample(now_s + step * step_s).weights

    def cues(self, now_s: float) -> tuple[CueView, ...]:
        """Every cue that has not ended: what is on, suspended, decaying, queued, scheduled."""
        self._advance(max(now_s, self._now_s))
        cues = (*self._on(), *self._decaying, *self._queue, *self._scheduled)
        return tuple(cue.view(self._now_s) for cue in cues)

    # --- taking an event ------------------------------------------------------------------

    def _cue(
        self, event: EmotionEvent, label: str, shares: dict[str, float], received_s: float
    ) -> Cue:
        emotion = self._emotions[label]
        ttl_s = math.inf if event.ttl_s is None else event.ttl_s
        return Cue(
            event=event,
            serial=self._serial,
            label=label,
            shares={name: share * self._emotions[name].maximum for name, share in shares.items()},
            attack_s=emotion.attack_s if event.attack_s is None else event.attack_s,
            hold_s=emotion.hold_s if event.hold_s is None else event.hold_s,
            decay_s=emotion.decay_s if event.decay_s is None else event.decay_s,
            due_s=max(self._now_s, received_s + event.at_s),
            expires_s=max(self._now_s, received_s + ttl_s),
            phase="scheduled",
            phase_since_s=self._now_s,
        )

    def _check_rank(self, cue: Cue) -> None:
        stronger = self._outranking(cue, cue.due_s)
        if stronger is not None:
            raise InvalidEventError(
                ErrorCode.OUTRANKED,
                f"{stronger.id!r} of priority {stronger.event.priority} is on; send with at least "
                "that priority, or with policy queue or blend",
                field="priority",
                event_id=cue.id,
            )

    def _outranking(self, cue: Cue, at_s: float) -> Cue | None:
        """A cue of higher priority that this one would push aside at that time."""
        if cue.event.policy not in (Policy.REPLACE, Policy.OVERRIDE):
            return None
        for other in self._on():
            over = other.phase != "suspended" and other.decay_at_s <= at_s
            if other.event.priority > cue.event.priority and not over:
                return other
        return None

    def _check_room(self, cue: Cue) -> None:
        full = self._full(cue)
        if full is not None:
            raise InvalidEventError(
                ErrorCode.RATE_LIMITED,
                f"{full}, which is the most; send it later",
                field="policy",
                event_id=cue.id,
            )

    def _full(self, cue: Cue) -> str | None:
        """What there is no room for, if so."""
        joining = (Policy.BLEND, Policy.OVERRIDE)
        if len(self._endings) >= MAX_UNTOLD:
            return f"{MAX_UNTOLD} cues have ended since the last frame"
        if cue.event.policy is Policy.QUEUE or cue.event.at_s > 0.0:
            waiting = len(self._queue) + len(self._scheduled)
            if waiting >= MAX_WAITING:
                return f"{waiting} cues wait"
        if cue.event.policy in joining:
            coming = sum(each.event.policy in joining for each in self._scheduled)
            on = coming + len(self._decaying) + sum(len(scene) for scene in self._scenes)
            if on >= MAX_ON_FACE:
                return f"{on} cues are on or planned to join"
        return None

    # --- what happens when ----------------------------------------------------------------

    def _advance(self, now_s: float) -> None:
        while (due_s := self._next_due_s()) <= now_s:
            self._happen(due_s)
        self._now_s = now_s

    def _next_due_s(self) -> float:
        waiting = (*self._queue, *self._scheduled)
        return min(
            min((cue.decay_at_s for cue in self._scenes[-1]), default=math.inf),
            min((cue.finish_s for cue in self._decaying), default=math.inf),
            min((cue.expires_s for cue in waiting), default=math.inf),
            self._scheduled[0].due_s if self._scheduled else math.inf,
        )

    def _happen(self, t_s: float) -> None:
        """Everything that is due at `t_s`, in an order that lets a cue start at its deadline."""
        for cue in [cue for cue in self._scenes[-1] if cue.decay_at_s <= t_s]:
            self._decay(cue, t_s)
        for cue in [cue for cue in self._decaying if cue.finish_s <= t_s]:
            self._decaying.remove(cue)
            self._endings.append(Ending(cue.id, "finished"))
        while self._scheduled and self._scheduled[0].due_s <= t_s:
            self._apply(self._scheduled.pop(0), t_s)
        self._start_queued(t_s)
        for waiting in (self._queue, self._scheduled):
            for cue in [cue for cue in waiting if cue.expires_s <= t_s]:
                waiting.remove(cue)
                self._endings.append(Ending(cue.id, "expired"))

    def _apply(self, cue: Cue, t_s: float) -> None:
        """Let the cue's policy act."""
        stronger = self._outranking(cue, t_s)
        if stronger is not None:
            self._endings.append(Ending(cue.id, "superseded", stronger.id))
            return
        match cue.event.policy:
            case Policy.QUEUE:
                cue.enter("queued", t_s)
                self._queue.append(cue)
            case Policy.REPLACE:
                self._end_all(list(self._on()), cue.id)
                self._end_decaying(cue)
                self._scenes = [[]]
                self._start(cue, t_s, unwanted=True)
            case Policy.BLEND:
                self._start(cue, t_s, unwanted=False)
            case Policy.OVERRIDE:
                self._end_decaying(cue)
                if self._scenes[-1]:
                    for other in self._scenes[-1]:
                        other.enter("suspended", t_s)
                    self._scenes.append([])
                self._start(cue, t_s, unwanted=True)

    def _start_queued(self, t_s: float) -> None:
        if self._queue and not self._decaying and not any(self._scenes):
            self._start(self._queue.popleft(), t_s, unwanted=False)

    def _start(self, cue: Cue, t_s: float, *, unwanted: bool) -> None:
        """Put the cue into the scene on top.

        Args:
            unwanted: nothing that is on is to rise any further.
        """
        cue.start_s = t_s
        cue.order = self._started
        self._started += 1
        self._started_since = True
        cue.enter("attack", t_s)
        cue.decay_at_s = t_s + cue.way_in_s + cue.hold_s
        cue.own = np.array([cue.shares.get(label, 0.0) > 0.0 for label in self._labels])
        cue.origin = self._face.value(t_s)
        self._scenes[-1].append(cue)
        self._retarget(t_s, cue.attack_s / ONSET.x95, ONSET, unwanted=unwanted)

    def _decay(self, cue: Cue, t_s: float) -> None:
        """Take the cue off; what lies below or beside it is what remains."""
        scene = self._scenes[-1]
        opened = len(self._scenes) > 1 and scene[0] is cue
        scene.remove(cue)
        if opened:
            self._scenes.pop()
            for resumed in self._scenes[-1]:
                self._resume(resumed, t_s)
            self._scenes[-1].extend(scene)
        cue.enter("decay", t_s)
        self._decaying.append(cue)
        cue.finish_s = self._retarget(t_s, cue.way_out_s, RELEASE, unwanted=False)

    def _resume(self, cue: Cue, t_s: float) -> None:
        """Go on where the cue was suspended, with all of its time that remained."""
        paused_s = t_s - cue.phase_since_s
        cue.decay_at_s += paused_s
        cue.enter("hold", t_s)

    def _end_all(self, cues: list[Cue], by: str) -> None:
        self._endings.extend(Ending(cue.id, "superseded", by) for cue in cues)

    def _end_decaying(self, by: Cue) -> None:
        """Supersede what decays, but nothing of higher priority: that finishes."""
        rank = by.event.priority
        self._end_all([cue for cue in self._decaying if cue.event.priority <= rank], by.id)
        self._decaying = [cue for cue in self._decaying if cue.event.priority > rank]

    def _retarget(self, t_s: float, duration_s: float, easing: Easing, *, unwanted: bool) -> float:
        """Lead the face to what the scene on top asks for; returns when it will be there."""
        shares = together(self._scenes[-1])
        target = np.array([shares.get(label, 0.0) for label in self._labels])
        for cue in self._scenes[-1]:
            cue.goal = target
        return self._face.retarget(t_s, target, duration_s, easing, unwanted=unwanted)

    # --- telling --------------------------------------------------------------------------

    def _on(self) -> Iterator[Cue]:
        for scene in self._scenes:
            yield from scene

    def _named(self, value: Weights) -> Mapping[str, float]:
        named = dict(zip(self._labels, value.tolist(), strict=True))
        total = sum(named.values())
        if total > 1.0:
            # By rounding only; the sum without neutral is at most 1 to the last bit.
            named = {label: weight * (LARGEST_SUM / total) for label, weight in named.items()}
        return {NEUTRAL: max(0.0, 1.0 - sum(named.values())), **named}


def _weighted(emotions: EmotionTable) -> tuple[str, ...]:
    """The labels that have a weight of their own: all but neutral."""
    return tuple(label for label in emotions.labels if label != NEUTRAL)
