"""The `avf1` frame message and the WebSocket frame around it: bytes in, values out, no I/O.

"AVF1" | uint32 little-endian: length of the header | header: UTF-8 JSON | image file
"""

from __future__ import annotations

import struct
from typing import Annotated, Final

import msgspec

from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import FrameInfo, ImageFormat

MAGIC: Final = b"AVF1"
MAX_HEADER_BYTES: Final = 65_536  # ours are about 300; a bound for what others claim

_PREFIX: Final = struct.Struct("<4sI")
_WEIGHT_DIGITS: Final = 4  # 0.0001 of a weight is far below what 8-bit pixels can show
_TIME_DIGITS: Final = 3  # microseconds

# RFC 6455, section 5.2: FIN set, no extension, opcode 2 (binary).
_BINARY: Final = 0x82

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Size = Annotated[int, msgspec.Meta(ge=1)]


class FrameHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON header of one `avf1` message, field for field as on the wire.

    Attributes:
        seq: rises by one per published frame.
        pts_ms: the stage's media clock, milliseconds since the stage started.
        ts_ms: wall clock at publishing, milliseconds since the epoch.
        width, height: of the image, in pixels.
        format: encoding of the image that follows.
        emotion: label to weight on the face, `neutral` included.
        event: id of the newest cue on the face.
        cached: the image came from the frame cache.
        degraded: None, or why this is not the wanted renderer's frame.
        dropped: frames that this receiver has missed so far.
    """

    seq: _Count
    pts_ms: float
    ts_ms: float
    width: _Size
    height: _Size
    format: ImageFormat
    emotion: dict[str, float]
    event: str | None
    cached: bool
    degraded: str | None
    dropped: _Count


_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(FrameHeader).decode


def header(info: FrameInfo, fmt: ImageFormat, dropped: int) -> FrameHeader:
    """What a frame in this format says about itself to a receiver that missed `dropped`."""
    return FrameHeader(
        seq=info.seq,
        pts_ms=round(info.pts_s * 1000.0, _TIME_DIGITS),
        ts_ms=round(info.ts_ms, _TIME_DIGITS),
        width=info.width,
        height=info.height,
        format=fmt,
        emotion={label: round(weight, _WEIGHT_DIGITS) for label, weight in info.emotion.items()},
        event=info.event,
        cached=info.cached,
        degraded=None if info.degraded is None else _encodable(info.degraded),
        dropped=dropped,
    )


def encode_header(info: FrameInfo, fmt: ImageFormat, dropped: int) -> bytes:
    """The header of an `avf1` message as UTF-8 JSON, without its length."""
    return _to_json(header(info, fmt, dropped))


def encode(info: FrameInfo, image: bytes, fmt: ImageFormat, dropped: int) -> bytes:
    """One `avf1` message around an image file.

    Args:
        info: what the frame says about itself.
        image: the complete image file, encoded as `fmt`.
        fmt: its encoding.
        dropped: frames that this receiver has missed so far.
    """
    text = encode_header(info, fmt, dropped)
    return b"".join((_PREFIX.pack(MAGIC, len(text)), text, image))


def encode_websocket(info: FrameInfo, image: bytes, fmt: ImageFormat, dropped: int) -> bytes:
    """`websocket_message(encode(...))` with one copy of the image instead of two."""
    text = encode_header(info, fmt, dropped)
    length = _PREFIX.size + len(text) + len(image)
    return b"".join(
        (_websocket_header(_BINARY, length), _PREFIX.pack(MAGIC, len(text)), text, image)
    )


def decode(data: bytes) -> tuple[FrameHeader, bytes]:
    """Take an `avf1` message apart.

    Returns:
        The header and the image file, which may be empty. Unknown header fields are ignored.

    Raises:
        InvalidEventError: the bytes are not an `avf1` message.
    """
    if len(data) < _PREFIX.size:
        raise _malformed(f"{len(data)} bytes are too few for an avf1 message")
    magic, length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise _malformed("an avf1 message starts with the four bytes AVF1")
    if length > MAX_HEADER_BYTES:
        raise InvalidEventError(
            ErrorCode.TOO_LARGE, f"an avf1 header of {length} bytes exceeds {MAX_HEADER_BYTES}"
        )
    end = _PREFIX.size + length
    if len(data) < end:
        raise _malformed(f"the avf1 header of {length} bytes is cut short")
    try:
        return _from_json(data[_PREFIX.size : end]), data[end:]
    except msgspec.ValidationError as error:
        raise _malformed(f"avf1 header: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEventError(
            ErrorCode.INVALID_JSON, f"the avf1 header is no JSON: {error}"
        ) from error


def websocket_message(payload: bytes) -> bytes:
    """A whole binary message as a server sends it: unmasked, in one frame (RFC 6455, 5.2)."""
    return _websocket_header(_BINARY, len(payload)) + payload


def _websocket_header(first: int, length: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", first, length)
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def _encodable(reason: str) -> str:
    """Reasons may quote file names, which may hold what is no UTF-8."""
    return reason.encode("utf-8", "replace").decode()


def _malformed(problem: str) -> InvalidEventError:
    return InvalidEventError(ErrorCode.INVALID_MESSAGE, problem)
