"""Which published frame showed which cue: started, peaked, finished.

A receipt is owed to a producer from the moment its cue is accepted. It is given with the
first *published* frame that really shows what it says: a frame of a lower rung of the
fallback ladder shows another face than the one asked for and earns no `started` or `peaked`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import ref

from cachetools import LRUCache

from orchestrator.expression.sequencer import CueProgress, Ending, FaceSample
from pipeline.errors import ErrorCode
from pipeline.ports import Metric, Metrics, Reply
from pipeline.types import (
    CueExpired,
    CueFinished,
    CuePeaked,
    CueStarted,
    CueSuperseded,
    EmotionEvent,
    ErrorInfo,
    Failure,
    InterruptDone,
    Policy,
    StageReply,
)

STARTED_CHANGE: Final = 0.10
PEAKED_CHANGE: Final = 0.90
AT_REST: Final = 1.0 - 1e-6
REMEMBERED_ENDINGS: Final = 2048
CONNECTIONS_OF_A_CUE: Final = 4


@dataclass(slots=True)
class _OwedCue:
    """What a cue is owed, by whom it was asked for, and what they have been told.

    Attributes:
        replies: one for each connection that sent it, the newest last.
        given: the receipts so far, in order.
    """

    replies: list[Reply]
    received_s: float
    planned: bool
    started: bool = False
    peaked: bool = False
    given: list[StageReply] = field(default_factory=list)

    def give(self, receipt: StageReply) -> None:
        self.given.append(receipt)
        for reply in self.replies:
            reply(receipt)


@dataclass(slots=True)
class _EndedCue:
    """What was said of a cue that is over, and over which connections, which may be gone."""

    given: tuple[StageReply, ...]
    told: tuple[ref[Reply], ...]


@dataclass(slots=True)
class _OwedInterrupt:
    reply: Reply
    received_s: float
    superseded: tuple[str, ...]
    left: bool = False


@dataclass(frozen=True, slots=True)
class Publication:
    """A frame that has gone out.

    Attributes:
        seq, pts_s: the frame's own.
        published_s: monotonic seconds when it was handed to the sinks.
        exact: it shows the face that was sampled.
        neutral: weight of `neutral` on the face that it shows, 0 to 1.
    """

    seq: int
    pts_s: float
    published_s: float
    exact: bool
    neutral: float


class Receipts:
    """Keeps what is owed, pays it when frames are published.

    Bounded by the sequencer, which bounds accepted cues; interrupts leave with the next
    face at rest. Of cues that have ended, the newest are remembered, for producers that lost
    their connection before they heard of it.
    """

    def __init__(self, stage: str, metrics: Metrics) -> None:
        self._stage = stage
        self._metrics = metrics
        self._cues: dict[str, _OwedCue] = {}
        self._ended_cues: LRUCache[str, _EndedCue] = LRUCache(REMEMBERED_ENDINGS)
        self._interrupts: dict[str, list[_OwedInterrupt]] = {}

    @property
    def owed(self) -> bool:
        """Some producer still waits for an answer that a frame must bring."""
        return bool(self._cues or self._interrupts)

    def cue_accepted(self, event: EmotionEvent, reply: Reply, received_s: float) -> None:
        """Owe the receipts of a cue."""
        planned = event.at_s > 0.0 or event.policy is Policy.QUEUE
        self._ended_cues.pop(event.id, None)
        self._cues[event.id] = _OwedCue([reply], received_s, planned)

    def cue_resent(self, cue_id: str, reply: Reply) -> None:
        """Follow a producer that sent the cue again over another connection.

        It is told what it may have missed; over the same connection there is nothing to tell.
        """
        owed, ended = self._cues.get(cue_id), self._ended_cues.get(cue_id)
        if owed is not None and reply not in owed.replies:
            # The old connection may seem alive long after the producer has left it.
            owed.replies = [each for each in owed.replies if not each.closed]
            owed.replies = [*owed.replies[-CONNECTIONS_OF_A_CUE + 1 :], reply]
            for receipt in owed.given:
                reply(receipt)
        elif ended is not None and all(told() != reply for told in ended.told):
            ended.told = (*ended.told[-CONNECTIONS_OF_A_CUE + 1 :], ref(reply))
            for receipt in ended.given:
                reply(receipt)

    def interrupted(
        self, interrupt_id: str, superseded: tuple[str, ...], reply: Reply, received_s: float
    ) -> None:
        """Owe an `interrupt.done`."""
        owed = _OwedInterrupt(reply, received_s, superseded)
        self._interrupts.setdefault(interrupt_id, []).append(owed)

    def published(self, sample: FaceSample, frame: Publication) -> None:
        """Give every receipt that this frame earns."""
        if frame.exact:
            for progress in sample.cues:
                self._progressed(progress, frame)
        self._ended(sample.endings, frame)
        self._left(sample.interrupts_done, frame)

    def close(self, seq: int, pts_s: float, why: str) -> None:
        """No frame will follow: every cue ends now, and interrupts are not carried out.

        Args:
            seq, pts_s: of the newest frame.
            why: for producers that wait for an interrupt.
        """
        for cue_id, owed in self._cues.items():
            self._metrics.count(Metric.CUES_ENDED, stage=self._stage, ending="superseded")
            owed.give(CueSuperseded(cue_id, "", seq, pts_s))
        for interrupt_id, interrupts in self._interrupts.items():
            for each in interrupts:
                each.reply(Failure(interrupt_id, ErrorInfo(ErrorCode.UNKNOWN_STAGE.value, why)))
        self._cues.clear()
        self._interrupts.clear()

    def _progressed(self, progress: CueProgress, frame: Publication) -> None:
        owed = self._cues.get(progress.id)
        if owed is None or owed.peaked or progress.change < STARTED_CHANGE:
            return
        begun_s = max(owed.received_s, progress.start_s) if owed.planned else owed.received_s
        latency_s = frame.published_s - begun_s
        if not owed.started:
            owed.started = True
            self._metrics.observe(Metric.STARTED_SECONDS, latency_s, stage=self._stage)
            owed.give(
                CueStarted(progress.id, frame.seq, frame.pts_s, latency_s, progress.no_change)
            )
        if progress.change >= PEAKED_CHANGE:
            owed.peaked = True
            self._metrics.observe(Metric.PEAKED_SECONDS, latency_s, stage=self._stage)
            owed.give(CuePeaked(progress.id, frame.seq, frame.pts_s, latency_s, progress.no_change))

    def _ended(self, endings: Sequence[Ending], frame: Publication) -> None:
        for ending in endings:
            self._metrics.count(Metric.CUES_ENDED, stage=self._stage, ending=ending.kind)
            owed = self._cues.pop(ending.id, None)
            if owed is None:
                continue
            match ending.kind:
                case "finished":
                    owed.give(CueFinished(ending.id, frame.seq, frame.pts_s))
                case "superseded":
                    by = ending.by or ""
                    owed.give(CueSuperseded(ending.id, by, frame.seq, frame.pts_s))
                case _:
                    owed.give(CueExpired(ending.id))
            told = tuple(ref(reply) for reply in owed.replies)
            self._ended_cues[ending.id] = _EndedCue(tuple(owed.given), told)

    def _left(self, interrupts_done: Sequence[str], frame: Publication) -> None:
        for interrupt_id in interrupts_done:
            for owed in self._interrupts.get(interrupt_id, ()):
                owed.left = True
        if not (frame.exact or frame.neutral >= AT_REST):
            return
        for interrupt_id in [i for i, owed in self._interrupts.items() if owed[0].left]:
            for owed in self._interrupts.pop(interrupt_id):
                latency_s = frame.published_s - owed.received_s
                owed.reply(
                    InterruptDone(interrupt_id, owed.superseded, frame.seq, frame.pts_s, latency_s)
                )
