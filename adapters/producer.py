"""One producer of messages, whatever carries them: `/v1/events`, or a publisher dialled out to.

What comes in is limited, read and handed to a stage; a bad message is answered and forgotten.
Only steady flooding, and answers that are not taken, end a connection.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, StrEnum, auto
from functools import partial
from typing import Final

import structlog

from adapters import event_codec
from adapters.access import HttpLimits, TokenBucket
from adapters.event_codec import Incoming
from adapters.producer_answers import INTERNAL
from adapters.producer_messages import Ping
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import DaemonPort, Metric, Metrics, Reply, StagePort
from pipeline.types import ErrorInfo, Failure, StageReply

log = structlog.get_logger()

TURN_S: Final = 0.002

_PATIENCE_S: Final = 5.0  # refusals beyond so many seconds' worth of the limit are flooding


class Parting(StrEnum):
    """Why a connection ends."""

    LEFT = "left"  # the producer closed it, or its program ended
    VANISHED = "vanished"  # its machine has gone without a goodbye
    STALLED = "stalled"  # it does not read its answers
    FLOODING = "flooding"
    BROKEN = "broken"  # no answer to a ping, no WebSocket, or a message over the size limit
    SHUTDOWN = "shutdown"


class Verdict(Enum):
    """What becomes of a message."""

    TAKE = auto()
    REFUSE = auto()  # with an answer
    IGNORE = auto()  # without: answers are limited too
    HANG_UP = auto()


class Turns:
    """Has the messages of many producers handled a few milliseconds at a time.

    Between two turns the event loop does everything else, the frames of stages above all, however
    many producers send at once.
    """

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._spent_s = 0.0

    async def take(self, handle: Callable[[], None]) -> None:
        """Handle one message when it is its turn."""
        async with self._one:
            begun_s = time.perf_counter()
            try:
                handle()
            finally:
                self._spent_s += time.perf_counter() - begun_s
            if self._spent_s >= TURN_S:
                self._spent_s = 0.0
                await asyncio.sleep(0)


class RateLimit:
    """How many messages one producer may send.

    Up to the limit, messages are taken, a second's worth at once. Beyond it they are refused,
    and refusals answered up to the same rate. A producer that keeps on is hung up on: refusals
    are forgotten at the rate of the limit, and five seconds' worth of them is too much. So
    twice the limit is borne for ever, and a tight loop ends in a moment.
    """

    def __init__(self, messages_per_s: float, now_s: float) -> None:
        self._messages = TokenBucket(messages_per_s, messages_per_s, now_s)
        self._answers = TokenBucket(messages_per_s, messages_per_s, now_s)
        self._patience = TokenBucket(messages_per_s, messages_per_s * _PATIENCE_S, now_s)

    def judge(self, now_s: float) -> Verdict:
        """Count one message that came at `now_s` (monotonic seconds)."""
        if self._messages.take(now_s):
            return Verdict.TAKE
        if not self._patience.take(now_s):
            return Verdict.HANG_UP
        return Verdict.REFUSE if self._answers.take(now_s) else Verdict.IGNORE


def rate_limited(messages_per_s: float, event_id: str | None) -> Failure:
    """The answer to a message beyond the rate limit."""
    problem = f"at most {messages_per_s:g} messages a second are taken; send this one again later"
    return Failure(event_id, ErrorInfo(ErrorCode.RATE_LIMITED.value, problem))


def dispatch(
    incoming: Incoming, home: Callable[[], StagePort], daemon: DaemonPort, reply: Reply
) -> None:
    """Hand a message (other than `ping`) to the stage that it names, else to the one at home.

    Raises:
        InvalidEventError: there is no such stage.
    """
    message = incoming.message
    assert not isinstance(message, Ping)
    try:
        stage = home() if incoming.stage is None else daemon.stage(incoming.stage)
    except InvalidEventError as error:
        raise InvalidEventError(
            error.code,
            error.message,
            field="stage",
            suggestions=error.suggestions,
            event_id=getattr(message, "id", None),
        ) from error
    stage.submit(message, reply)


class Producer(ABC):
    """What is the same for every connection that messages come over.

    It is itself the `Reply` that its messages are submitted with.

    Args:
        stage: gives the stage that its messages are for, unless they name another; may raise
            InvalidEventError.
        turns: shared with all whose messages are not to be handled at the same time.
    """

    def __init__(
        self,
        stage: Callable[[], StagePort],
        *,
        daemon: DaemonPort,
        metrics: Metrics,
        limits: HttpLimits,
        turns: Turns,
    ) -> None:
        self._stage = stage
        self._turns = turns
        self._daemon = daemon
        self._metrics = metrics
        self._limits = limits
        self._rate = RateLimit(limits.messages_per_s, time.monotonic())
        self.messages = 0
        self.bad = 0
        self.refused = 0

    @property
    @abstractmethod
    def closed(self) -> bool:
        """The connection is gone: what comes now is dropped."""

    @abstractmethod
    def part(self, parting: Parting) -> None:
        """End the connection. Never blocks; only the first call counts."""

    @abstractmethod
    def send(self, text: bytes) -> None:
        """Send JSON text, or drop it where nobody takes it. Never blocks."""

    def __call__(self, reply: StageReply) -> None:
        """Send one answer. Never blocks, never raises."""
        try:
            self.send(event_codec.encode(reply))
        except Exception:
            # Whoever publishes frames must not pay for what cannot be said about one of them.
            log.exception("answer_not_sent", answer=type(reply).__name__)

    async def received(self, data: bytes, is_text: bool) -> None:
        """Take one message when it is its turn, as far as the limits allow."""
        await self._turns.take(partial(self._received, data, is_text))

    def _received(self, data: bytes, is_text: bool) -> None:
        self.messages += 1
        match self._rate.judge(time.monotonic()):
            case Verdict.TAKE:
                self._take(data, is_text)
            case Verdict.HANG_UP:
                self._count_refusal()
                self.part(Parting.FLOODING)
            case verdict:
                self._count_refusal()
                if verdict is Verdict.REFUSE:
                    self._refuse(data)

    def _decode(self, data: bytes, is_text: bool) -> Incoming | None:
        """Read a message; None for one that is none of ours.

        Raises:
            InvalidEventError: it cannot be read.
        """
        if not is_text:
            raise InvalidEventError(
                ErrorCode.INVALID_MESSAGE, "a message is JSON in a text frame, not binary"
            )
        return event_codec.decode(data)

    def _refuse(self, data: bytes) -> None:
        """Answer a message that is beyond the rate limit."""
        self(rate_limited(self._limits.messages_per_s, event_codec.peek_id(data)))

    def _take(self, data: bytes, is_text: bool) -> None:
        try:
            incoming = self._decode(data, is_text)
            if incoming is None:
                return
            self._metrics.count(Metric.MESSAGES, type=event_codec.type_name(incoming.message))
            if isinstance(incoming.message, Ping):
                self.send(event_codec.encode_pong(incoming.message))
            else:
                dispatch(incoming, self._stage, self._daemon, self)
        except InvalidEventError as error:
            self._count_bad(error.code)
            self(event_codec.failure(error))
        except Exception:
            # Ours, not the producer's: it keeps its connection and learns that this one failed.
            log.exception("message_failed")
            problem = "the daemon failed on this message; its log says why"
            self(Failure(event_codec.peek_id(data), ErrorInfo(INTERNAL, problem)))

    def _count_bad(self, code: ErrorCode) -> None:
        self.bad += 1
        self._metrics.count(Metric.BAD_MESSAGES, code=code.value)

    def _count_refusal(self) -> None:
        self.refused += 1
        self._metrics.count(Metric.BAD_MESSAGES, code=ErrorCode.RATE_LIMITED.value)
