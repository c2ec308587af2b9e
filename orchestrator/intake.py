"""The messages of producers that act on the face of one stage: checked, carried out, answered.

An event that comes again with the id of an earlier one is not carried out twice, so that
producers may resend what they had no answer to. A text becomes the cues of its tags.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, cast

from cachetools import TTLCache

from orchestrator.accepted import KEPT_S, AcceptedEvents
from orchestrator.acting import Acted
from orchestrator.expression.asking import understand
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.performance import Performance
from orchestrator.expression.sequencer import Sequencer
from orchestrator.expression.tags import OpenTexts, Tag
from orchestrator.receipts import Receipts
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import Metric, Metrics, Reply
from pipeline.types import (
    CueAccepted,
    CueRejected,
    DirectControls,
    EmotionEvent,
    ErrorInfo,
    Failure,
    Interrupt,
    Mood,
    MoodOk,
    StageMessage,
    StateChange,
    StateOk,
    TextClean,
    TextCue,
    TextDelta,
)

CUES_PER_DELTA: Final = 64
TEXT_IDS: Final = 16_384
FORMER_TABLES: Final = 4
STEM_CHARS: Final = 56  # of a text's id in those of its cues, which have 64 at most

Note = Callable[[Acted, Reply, float], None]
"""Told of a message that was carried out, of who sent it, and when it came."""


class Intake:
    """Takes what producers send to one stage.

    Args:
        stage: its name.
        sequencer, performance: what the messages act on.
        receipts: owes what a frame must bring.
        clock: monotonic seconds.
        note: hears of each message before it is answered.
        emotions: what the tags of texts may name, until others are used.
    """

    def __init__(
        self,
        stage: str,
        *,
        emotions: EmotionTable,
        sequencer: Sequencer,
        performance: Performance,
        receipts: Receipts,
        metrics: Metrics,
        clock: Callable[[], float],
        note: Note,
    ) -> None:
        self._stage = stage
        self._emotions = emotions
        self._former: deque[EmotionTable] = deque(maxlen=FORMER_TABLES)
        self._sequencer = sequencer
        self._performance = performance
        self._receipts = receipts
        self._metrics = metrics
        self._note = note
        self._accepted = AcceptedEvents()
        self._texts = OpenTexts()
        self._cues_of_texts: TTLCache[str, int] = TTLCache(TEXT_IDS, KEPT_S, timer=clock)

    def take(self, message: Acted | TextDelta, reply: Reply, now_s: float) -> None:
        """Carry out one message, and answer it.

        Args:
            now_s: receipt.

        Raises:
            InvalidEventError: it cannot be carried out; of a text, what came before its fault has.
        """
        match message:
            case EmotionEvent():
                self._take_emotion(message, reply, now_s)
            case Interrupt():
                superseded = self._sequencer.interrupt(message.id, message.fade_s, now_s)
                self._note(message, reply, now_s)
                self._receipts.interrupted(message.id, superseded, reply, now_s)
            case Mood():
                self._performance.set_mood(message, now_s)
                self._note(message, reply, now_s)
                reply(MoodOk(message.id))
            case StateChange():
                self._performance.set_state(message.state, now_s)
                self._note(message, reply, now_s)
                reply(StateOk(message.id))
            case DirectControls():
                self._performance.inject(reply, message, now_s)
                self._note(message, reply, now_s)
            case TextDelta():
                self._take_text(message, reply, now_s)

    def use(self, emotions: EmotionTable) -> None:
        """Understand texts by another table; what was accepted by earlier ones stays so."""
        self._former.appendleft(self._emotions)
        self._emotions = emotions

    def refuse(self, message: StageMessage, error: InvalidEventError, reply: Reply) -> None:
        """Answer a message that is not carried out."""
        info = ErrorInfo(error.code.value, error.message, error.field, error.suggestions)
        self._metrics.count(Metric.CUES_REJECTED, code=error.code.value)
        if isinstance(message, EmotionEvent):
            reply(CueRejected(message.id, info))
        else:
            reply(Failure(message.id, info))

    def _take_emotion(self, event: EmotionEvent, reply: Reply, now_s: float) -> None:
        same = self._accepted.same(event, now_s)
        if same is not None:
            if not same:
                raise InvalidEventError(
                    ErrorCode.ID_REUSED,
                    "this id was used for another event within the last 10 minutes; "
                    "take a new id, or resend the same body",
                    field="id",
                    event_id=event.id,
                )
            reply(replace(self._understood(event), duplicate=True))
            self._receipts.cue_resent(event.id, reply)
            return
        accepted = self._sequencer.push(event, now_s)
        self._note(event, reply, now_s)
        self._accepted.add(event, now_s)
        self._metrics.count(Metric.CUES_ACCEPTED, stage=self._stage)
        self._receipts.cue_accepted(event, reply, now_s)
        reply(accepted)

    def _understood(self, event: EmotionEvent) -> CueAccepted:
        """What to say of an event that was accepted: by the newest table that knows its emotions.

        Raises:
            InvalidEventError: there have been too many tables since.
        """
        for emotions in (self._emotions, *self._former):
            with contextlib.suppress(InvalidEventError):
                return understand(event, emotions)[0]
        raise InvalidEventError(
            ErrorCode.UNKNOWN_EMOTION,
            "this event was accepted with emotions that are no longer known",
            field="emotion",
            event_id=event.id,
        )

    def _take_text(self, message: TextDelta, reply: Reply, now_s: float) -> None:
        clean, tags = self._texts.read(
            reply, message.id, message.delta, self._emotions, now_s, final=message.final
        )
        self._read(message.id, clean, tags, reply, now_s)
        if len(tags) > CUES_PER_DELTA:
            raise InvalidEventError(
                ErrorCode.RATE_LIMITED,
                f"{CUES_PER_DELTA} tags of one delta become cues; {len(tags) - CUES_PER_DELTA} "
                "more were taken out and did not",
                field="delta",
                event_id=message.id,
            )

    @property
    def decides_s(self) -> float | None:
        """When `decide` next has something to do."""
        return self._texts.decides_s

    def decide(self, now_s: float) -> None:
        """Take brackets at the end of texts that do not go on for tags."""
        for source, text_id, tag in self._texts.decide(now_s):
            self._read(text_id, "", [tag], cast(Reply, source), now_s)

    def _read(
        self, text_id: str, clean: str, tags: Sequence[Tag], reply: Reply, now_s: float
    ) -> None:
        """Tell what a text says without its tags, and let these become cues."""
        events = [self._event_of(tag, text_id, now_s) for tag in tags[:CUES_PER_DELTA]]
        cues = (
            TextCue(
                event.id,
                self._emotions.resolve(tag.name),
                min(max(tag.intensity, 0.0), 1.0),
                tag.at,
            )
            for tag, event in zip(tags, events, strict=False)
        )
        reply(TextClean(text_id, clean, tuple(cues)))
        for event in events:
            try:
                self._take_emotion(event, reply, now_s)
            except InvalidEventError as error:
                self.refuse(event, error, reply)

    def _event_of(self, tag: Tag, text_id: str, now_s: float) -> EmotionEvent:
        """The event of a tag, with the next free id that the text's own leads to."""
        stem = text_id
        if len(text_id) > STEM_CHARS:
            digest = hashlib.sha256(text_id.encode()).hexdigest()
            stem = f"{text_id[: STEM_CHARS - 9]}-{digest[:8]}"
        number = self._cues_of_texts.get(stem, 0) + 1
        while self._accepted.has(f"{stem}.{number}", now_s):
            number += 1
        self._cues_of_texts[stem] = number
        return EmotionEvent(f"{stem}.{number}", tag.name, tag.intensity)
