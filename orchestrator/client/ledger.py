"""What was asked and is not settled yet, in the order of asking; no I/O.

At-least-once delivery rests on this: whatever is still here when a new connection opens is
sent again, with the same ids, and the daemon sees to it that it happens once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.client.answers import Message
from orchestrator.client.errors import ClientError, FullError, ReceiptLostError, RequestError
from orchestrator.client.receipts import Cue

# The daemon knows an id for ten minutes; a cue that it has forgotten would begin anew.
REMEMBERED_S: Final = 570.0

_ANSWERED_LATER: Final = frozenset({"interrupt", "character"})


def _new_answer() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Request:
    """One message that wants an answer, and for an emotion all its receipts.

    Attributes:
        key: what the answers are found by: the message's id, or something unique.
        message: as it goes out.
        repeatable: it may be sent again over another connection.
        answer: the first answer, or why there is none.
        sent_s: monotonic seconds of the last sending; None before the first.
        received: the daemon certainly has it, because it has answered something later.
        cue: of an accepted emotion.
    """

    key: Hashable
    message: Message
    repeatable: bool = True
    answer: asyncio.Future[Any] = field(default_factory=_new_answer)
    sent_s: float | None = None
    accepted_s: float | None = None
    received: bool = False
    cue: Cue | None = None

    @property
    def kind(self) -> str:
        return str(self.message["type"])

    def fail(self, error: ClientError) -> None:
        """Nothing comes any more."""
        if self.cue is not None:
            self.cue.fail(error)
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()


class Ledger:
    """Bounded; in the order of asking.

    Args:
        limit: how many requests, cues that have not ended included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._requests: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests))

    def add(self, request: Request) -> None:
        """Take one more.

        Raises:
            FullError: there are too many.
        """
        if len(self._requests) >= self._limit:
            raise FullError(self._limit)
        self._requests.append(request)

    def find(self, key: Hashable) -> Request | None:
        """The oldest of that key; the messages of one text have the same."""
        return next((each for each in self._requests if each.key == key), None)

    def drop(self, request: Request) -> None:
        """It is settled, or nobody wants it any more."""
        if request in self._requests:
            self._requests.remove(request)

    def unanswered(self) -> list[Request]:
        """Those without even a first answer."""
        return [each for each in self._requests if not each.answer.done()]

    def next_answered(self) -> Request | None:
        """Whose answer is due next, for one that does not say whose it is."""
        due = (each for each in self.unanswered() if each.sent_s is not None)
        return next((each for each in due if each.kind not in _ANSWERED_LATER), None)

    def answered(self, request: Request, value: Any) -> None:
        """The first answer has come, so whatever was sent before has been received, too."""
        if not request.answer.done():
            request.answer.set_result(value)
        for earlier in self._requests:
            if earlier is request:
                break
            earlier.received = earlier.sent_s is not None

    def settled(self, request: Request, value: Any) -> None:
        """The only answer has come."""
        self.answered(request, value)
        self.drop(request)

    def lost_connection(self, now_s: float, on_stage: set[str]) -> None:
        """Give up what must not be sent again over the next connection.

        Args:
            now_s: monotonic seconds.
            on_stage: ids of the cues that the daemon has.
        """
        # An interrupt has no memory in the daemon: sent twice, it would end what came after it.
        for request in reversed(self._requests.copy()):
            if request.sent_s is None:
                continue
            if request.key in on_stage:
                self._all_before_were_received(request)
            too_old = request.accepted_s is not None and now_s - request.accepted_s > REMEMBERED_S
            done = request.kind == "interrupt" and request.received
            if too_old or done or not request.repeatable:
                self.drop(request)
                request.fail(ReceiptLostError(f"{request.kind} {request.key!r}"))

    def too_large(self, reason: str) -> None:
        """The daemon hung up on a message because of its size: do not send that one again."""
        suspects = [each for each in self.unanswered() if each.sent_s is not None]
        if suspects:
            largest = max(suspects, key=lambda each: len(repr(each.message)))
            self.drop(largest)
            largest.fail(RequestError("too_large", reason or "the message is too large"))

    def fail_all(self, error: ClientError) -> None:
        """Nothing comes any more, for anybody."""
        requests, self._requests = self._requests, []
        for request in requests:
            request.fail(error)

    def _all_before_were_received(self, request: Request) -> None:
        for earlier in self._requests[: self._requests.index(request)]:
            earlier.received = earlier.sent_s is not None
