"""The error tree of the product.

    AvatarError
    ├── ConfigError              settings, emotions or characters are wrong; trying again is no use
    ├── PortTakenError           somebody else listens where the daemon is to; may be free soon
    ├── InvalidEventError        a producer's message cannot be taken (code, field, suggestions)
    ├── PortraitError            a portrait cannot be used: unreadable, too large, no face
    ├── RenderError              a frame could not be drawn; a lower rung of the ladder may serve
    │   ├── OutOfMemoryError     the device is out of memory; frees up by itself
    │   ├── BadFrameError        what was drawn is not a frame of the wanted shape
    │   ├── JobDroppedError      a job for the render thread was not carried out, or given up
    │   └── DeviceLostError      the device or its context is gone; only a new process helps
    ├── StorageError             something could not be written to the state directory
    └── SinkError                a frame could not be delivered to an outside party

Each error says in `retryable` whether trying the same again can help.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar


class AvatarError(Exception):
    """Root of everything this product raises on purpose."""

    retryable: ClassVar[bool] = False


class ErrorCode(StrEnum):
    """Codes of the wire protocol, section 1."""

    INVALID_JSON = "invalid_json"
    INVALID_MESSAGE = "invalid_message"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_EMOTION = "unknown_emotion"
    UNKNOWN_STAGE = "unknown_stage"
    UNKNOWN_CHARACTER = "unknown_character"
    OUTRANKED = "outranked"
    ID_REUSED = "id_reused"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    NOT_READY = "not_ready"
    # Of HTTP requests alone: section 4.
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INVALID_IMAGE = "invalid_image"
    UNKNOWN_EXPRESSION = "unknown_expression"
    NO_FACE = "no_face"
    FETCH_FAILED = "fetch_failed"


class ConfigError(AvatarError):
    """A setting or configuration file is wrong.

    Args:
        where: full path of the key (`server.port`) or of the file.
        problem: what is wrong and what would be right.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class PortTakenError(AvatarError):
    """Another process listens where the daemon is to: often one before it that still closes.

    Args:
        where: full path of the key (`server.port`).
        kind: `TCP` or `UDP`.
        port: its number.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, where: str, kind: str, port: int) -> None:
        super().__init__(where, kind, port)
        self.where = where
        self.kind = kind
        self.port = port

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.kind} port {self.port} is in use, most likely by another "
            "avatar-orchestrator that runs or is still closing (`avatar-orchestrator doctor` "
            "says who has it); stop that, or choose another port"
        )


class InvalidEventError(AvatarError):
    """A producer's message cannot be taken; nothing has changed.

    Args:
        code: the protocol's error code.
        message: one sentence that says what would be right.
        field: name of the offending field, if one is to blame.
        suggestions: near labels for an unknown one.
        event_id: the message's `id`, if it had a usable one.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        field: str | None = None,
        suggestions: Sequence[str] = (),
        event_id: str | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.field = field
        self.suggestions = tuple(suggestions)
        self.event_id = event_id

    def __str__(self) -> str:
        return self.message


class PortraitError(AvatarError):
    """A portrait cannot be used.

    Args:
        portrait: what was being read (a path or a name).
        problem: what is wrong and what would help.
        no_face: the picture is readable but shows no usable face.
        too_large: the file or the picture exceeds a limit.
    """

    def __init__(
        self, portrait: str, problem: str, *, no_face: bool = False, too_large: bool = False
    ) -> None:
        super().__init__(portrait, problem)
        self.portrait = portrait
        self.problem = problem
        self.no_face = no_face
        self.too_large = too_large

    def __str__(self) -> str:
        return f"{self.portrait}: {self.problem}"


class RenderError(AvatarError):
    """A frame could not be drawn."""

    retryable: ClassVar[bool] = True


class OutOfMemoryError(RenderError):
    """The device has no memory left for this frame."""


class BadFrameError(RenderError):
    """What was drawn is not a frame of the wanted shape and type."""


class DropReason(StrEnum):
    """Why a job for a worker thread has no outcome."""

    REPLACED = "replaced by a newer one"
    FULL = "too many are waiting"
    ABANDONED = "given up, its thread is stuck"
    CLOSED = "the worker is closed"


class JobDroppedError(RenderError):
    """A job for a worker thread was not carried out, or given up."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason.value


class DeviceLostError(RenderError):
    """The device or its context is gone; only a new process can use it again."""

    retryable: ClassVar[bool] = False


class StorageError(AvatarError):
    """Something could not be kept in the state directory; nothing has changed."""

    retryable: ClassVar[bool] = True


class SinkError(AvatarError):
    """A frame could not be delivered."""

    retryable: ClassVar[bool] = True
