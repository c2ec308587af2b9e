"""Answers that come later, as awaitables; and the cue that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Final, Generic, TypeVar

from orchestrator.client.answers import Accepted, Ended, Shown
from orchestrator.client.errors import ClientError, NotShownError, ReceiptLostError

_Value = TypeVar("_Value")


class Receipt(Generic[_Value]):
    """Something that is said once. Await it as often as you like, also afterwards.

    Giving up on it (a timeout, a cancelled task) takes it from nobody else.
    """

    def __init__(self) -> None:
        self._outcome: asyncio.Future[_Value] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, _Value]:
        return asyncio.shield(self._outcome).__await__()

    @property
    def known(self) -> bool:
        """It has come, or is known not to come."""
        return self._outcome.done()

    def give(self, value: _Value) -> None:
        """Say it; only the first outcome counts."""
        if not self._outcome.done():
            self._outcome.set_result(value)

    def fail(self, error: ClientError) -> None:
        """Say that it does not come; only the first outcome counts."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # nobody has to wait for it


class Cue:
    """An emotion on the daemon's timeline.

    Attributes:
        id: on the wire, and in the header of the frames that show it.
        emotion: canonical label.
        intensity: in [0, 1].
        accepted: all that the daemon said when it accepted the emotion; None for a tag of a
            text, whose acceptance is not waited for.
        started, peaked: the first frames with 10 % and 90 % of the change. Awaiting them
            raises NotShownError if the cue ended before.
        ended: how it ended; exactly one `Ended` for every cue.

    All three raise EmotionRejected if a tag's emotion was refused, ClosedError if the
    producer was closed first, and ReceiptLostError where a receipt was lost.
    """

    def __init__(
        self, cue_id: str, emotion: str, intensity: float, accepted: Accepted | None = None
    ) -> None:
        self.id: Final = cue_id
        self.emotion: Final = emotion
        self.intensity: Final = intensity
        self.accepted: Final = accepted
        self.started: Final = Receipt[Shown]()
        self.peaked: Final = Receipt[Shown]()
        self.ended: Final = Receipt[Ended]()

    def __repr__(self) -> str:
        return f"Cue(id={self.id!r}, emotion={self.emotion!r}, intensity={self.intensity:g})"

    def has_started(self, shown: Shown) -> None:
        """The receipt `emotion.started` has come."""
        self.started.give(shown)

    def has_peaked(self, shown: Shown) -> None:
        """The receipt `emotion.peaked` has come."""
        # Over one connection they come in order, so this one is not coming any more.
        self.started.fail(ReceiptLostError(f"the start of {self.id!r}"))
        self.peaked.give(shown)

    def has_ended(self, ended: Ended) -> None:
        """The last receipt has come."""
        self.started.fail(NotShownError(self.id, "started", ended))
        self.peaked.fail(NotShownError(self.id, "peaked", ended))
        self.ended.give(ended)

    def fail(self, error: ClientError) -> None:
        """No receipt comes any more."""
        for receipt in (self.started, self.peaked, self.ended):
            receipt.fail(error)
