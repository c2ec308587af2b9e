"""What can go wrong for a client.

    AvatarError
    └── ClientError
        ├── AddressError         the address is none that a client can dial
        ├── ConnectError         there is no connection, and why
        ├── ClosedError          the client was closed
        ├── FullError            too much waits for an answer already
        ├── RequestError         the daemon refused a message (code, message, field, suggestions)
        │   └── EmotionRejected
        ├── NotShownError        the cue ended before it started, or before it peaked
        └── ReceiptLostError     the answer went with a connection and cannot be asked for again

Each says in `retryable` whether trying the same again can help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import AvatarError, ErrorCode

if TYPE_CHECKING:
    from orchestrator.client.answers import Ended


class ClientError(AvatarError):
    """Root of what a client raises."""


class AddressError(ClientError):
    """The address is none that a client can dial."""


class ConnectError(ClientError):
    """There is no connection to the daemon.

    Args:
        url: what was dialled.
        problem: why it failed.
        status: of the daemon's answer, where it refused the handshake; else None.
    """

    def __init__(self, url: str, problem: str, status: int | None = None) -> None:
        super().__init__(url, problem)
        self.url = url
        self.problem = problem
        self.status = status

    @property
    def refused(self) -> bool:
        """The daemon does not want this client: trying the same again does not help."""
        return self.status in {400, 401, 403, 404}

    def __str__(self) -> str:
        return f"no connection to {self.url}: {self.problem}"


class ClosedError(ClientError):
    """The client was closed, or not opened yet."""


class FullError(ClientError):
    """Too much waits for an answer already; this was not sent.

    Args:
        limit: how much may wait.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.limit} messages and cues wait for their answers, which is the most; "
            "wait for some, or raise max_pending"
        )


class RequestError(ClientError):
    """The daemon refused a message; nothing has changed.

    Args:
        code: of the protocol, such as `unknown_character`.
        message: a sentence that says what would be right.
        field: the offending field, if one is to blame.
        suggestions: what may have been meant.
    """

    def __init__(
        self, code: str, message: str, field: str | None = None, suggestions: Sequence[str] = ()
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.field = field
        self.suggestions = tuple(suggestions)

    @property
    def may_pass_later(self) -> bool:
        """The same message may be taken at another time."""
        return self.code in {ErrorCode.RATE_LIMITED, ErrorCode.NOT_READY, ErrorCode.OUTRANKED}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class EmotionRejected(RequestError):  # noqa: N818 - the protocol's word for it
    """The daemon did not accept an emotion; what is on the face stays."""


class NotShownError(ClientError):
    """A cue ended before the frame came that was waited for.

    Args:
        cue_id: of the cue.
        wanted: `started` or `peaked`.
        ended: how it ended.
    """

    def __init__(self, cue_id: str, wanted: str, ended: Ended) -> None:
        super().__init__(cue_id, wanted, ended)
        self.cue_id = cue_id
        self.wanted = wanted
        self.ended = ended

    def __str__(self) -> str:
        how = f"{self.ended.kind} by {self.ended.by!r}" if self.ended.by else self.ended.kind
        return f"the cue {self.cue_id!r} was {how} before it had {self.wanted}"


class ReceiptLostError(ClientError):
    """The answer went with a lost connection and cannot be asked for again.

    Args:
        what: what was waited for.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}: the answer was lost with the connection"
