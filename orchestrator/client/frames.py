"""The `avf1` frame message: bytes in, a frame out, no I/O."""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from msgspec import Struct

from orchestrator.client.errors import ClientError

_PREFIX: Final = struct.Struct("<4sI")
_MAGIC: Final = b"AVF1"


class FrameError(ClientError):
    """A message is no `avf1` frame."""


class FrameHeader(Struct, frozen=True, kw_only=True):
    """What a frame says about itself; see `Frame`."""

    seq: int
    pts_ms: float
    ts_ms: float = 0.0
    width: int = 0
    height: int = 0
    format: str = "jpeg"
    emotion: dict[str, float] = {}
    event: str | None = None
    cached: bool = False
    degraded: str | None = None
    dropped: int = 0


class Frame(FrameHeader, frozen=True, kw_only=True):
    """One picture of the face.

    Attributes:
        seq: rises by one per published frame.
        pts_ms: the stage's media clock, milliseconds since the stage started.
        ts_ms: wall clock at publishing, milliseconds since the epoch.
        width, height: in pixels.
        format: jpeg, webp or png.
        emotion: label to weight on the face.
        event: id of the newest cue on the face.
        cached: the picture came from the frame cache.
        degraded: None, or why this is not the wanted renderer's picture.
        dropped: frames that this viewer has missed so far, at the daemon and here.
        image: the complete image file.
    """

    image: bytes


_decode_header = msgspec.json.Decoder(FrameHeader).decode


def decode_frame(message: bytes) -> tuple[FrameHeader, bytes]:
    """Take one message apart.

    Raises:
        FrameError: it is no frame.
    """
    if len(message) < _PREFIX.size:
        raise FrameError(f"a frame needs at least {_PREFIX.size} bytes, got {len(message)}")
    magic, length = _PREFIX.unpack_from(message)
    if magic != _MAGIC:
        raise FrameError("a frame starts with the four bytes AVF1")
    end = _PREFIX.size + length
    if end > len(message):
        raise FrameError(f"the header wants {length} bytes and the message is shorter")
    try:
        return _decode_header(message[_PREFIX.size : end]), message[end:]
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FrameError(f"the header is none: {error}") from error
