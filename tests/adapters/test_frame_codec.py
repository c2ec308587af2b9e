"""The `avf1` message, byte for byte."""

from __future__ import annotations

import dataclasses
import json
import struct

import pytest

from adapters import frame_codec
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.types import FrameInfo, ImageFormat

INFO = FrameInfo(
    seq=7,
    pts_s=1.2345678,
    ts_ms=1_700_000_000_123.4567,
    width=512,
    height=384,
    emotion={"neutral": 0.25, "happy": 0.75},
    event="evt-17",
    cached=True,
    degraded=None,
)


def message(header: bytes, image: bytes = b"", magic: bytes = b"AVF1") -> bytes:
    """An `avf1` message put together by hand."""
    return magic + struct.pack("<I", len(header)) + header + image


def test_a_message_is_laid_out_as_the_protocol_says() -> None:
    """Magic, little-endian length, JSON header with exactly the documented fields, image."""
    data = frame_codec.encode(INFO, b"\xff\xd8...", ImageFormat.JPEG, 3)
    assert data[:4] == b"AVF1"
    (length,) = struct.unpack_from("<I", data, 4)
    assert json.loads(data[8 : 8 + length].decode("utf-8")) == {
        "seq": 7,
        "pts_ms": 1234.568,
        "ts_ms": 1_700_000_000_123.457,
        "width": 512,
        "height": 384,
        "format": "jpeg",
        "emotion": {"neutral": 0.25, "happy": 0.75},
        "event": "evt-17",
        "cached": True,
        "degraded": None,
        "dropped": 3,
    }
    assert data[8 + length :] == b"\xff\xd8..."
    assert data[8 : 8 + length] == frame_codec.encode_header(INFO, ImageFormat.JPEG, 3)


def test_fields_of_a_later_version_are_ignored() -> None:
    """A header with fields not known here is read all the same."""
    fields = json.loads(frame_codec.encode_header(INFO, ImageFormat.PNG, 0)) | {"mood": {"x": [1]}}
    header, image = frame_codec.decode(message(json.dumps(fields).encode(), b"png"))
    assert (header.seq, header.format, image) == (7, ImageFormat.PNG, b"png")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.INVALID_MESSAGE),
        (b"AVF1\x00\x00\x00", ErrorCode.INVALID_MESSAGE),
        (message(b"{}", magic=b"AVF2"), ErrorCode.INVALID_MESSAGE),
        (b"AVF1\xff\xff\xff\xff", ErrorCode.TOO_LARGE),
        (b"AVF1\x08\x00\x00\x00{}", ErrorCode.INVALID_MESSAGE),
        (message(b"{"), ErrorCode.INVALID_JSON),
        (message(b"\xff\xfe"), ErrorCode.INVALID_JSON),
        (message(b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}"), ErrorCode.INVALID_JSON),
        (message(b"[]"), ErrorCode.INVALID_MESSAGE),
        (message(b"{}"), ErrorCode.INVALID_MESSAGE),
    ],
)
def test_malformed_bytes_have_a_typed_error(data: bytes, code: ErrorCode) -> None:
    """Whatever is wrong with a message, decoding it raises `InvalidEventError`."""
    with pytest.raises(InvalidEventError) as caught:
        frame_codec.decode(data)
    assert caught.value.code is code


@pytest.mark.parametrize(
    "change",
    [
        {"seq": -1},
        {"seq": 1.5},
        {"seq": "7"},
        {"pts_ms": None},
        {"width": 0},
        {"format": "gif"},
        {"emotion": {"happy": "very"}},
        {"event": 5},
        {"cached": 1},
        {"dropped": -1},
    ],
)
def test_a_header_with_a_wrong_value_is_refused(change: dict[str, object]) -> None:
    """Each field has its type and range."""
    fields = json.loads(frame_codec.encode_header(INFO, ImageFormat.JPEG, 0)) | change
    with pytest.raises(InvalidEventError, match=next(iter(change))):
        frame_codec.decode(message(json.dumps(fields).encode()))


def test_a_reason_that_is_no_utf8_still_goes_out() -> None:
    """A file name with undecodable bytes in `degraded` does not keep the frame back."""
    info = dataclasses.replace(INFO, degraded="cannot read weights\udcff.bin")
    header, _ = frame_codec.decode(frame_codec.encode(info, b"", ImageFormat.JPEG, 0))
    assert header.degraded == "cannot read weights?.bin"


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_websocket_message_has_the_shortest_length_form(length: int, header: bytes) -> None:
    """The three length forms of RFC 6455, section 5.2, at their borders."""
    assert frame_codec.websocket_message(bytes(length)) == header + bytes(length)
