"""What holds for every frame and for all bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters import frame_codec
from pipeline.errors import InvalidEventError
from pipeline.types import FrameInfo, ImageFormat

COUNTS = st.integers(0, 2**53)
SIZES = st.integers(1, 2**16)
INFOS = st.builds(
    FrameInfo,
    seq=COUNTS,
    pts_s=st.floats(0.0, 1e9),
    ts_ms=st.floats(0.0, 1e14),
    width=SIZES,
    height=SIZES,
    emotion=st.dictionaries(st.text(max_size=20), st.floats(0.0, 1.0), max_size=8),
    event=st.none() | st.text(max_size=64),
    cached=st.booleans(),
    degraded=st.none() | st.text(max_size=40),
)
FORMATS = st.sampled_from(ImageFormat)


@given(INFOS, st.binary(max_size=200), FORMATS, COUNTS)
def test_what_is_encoded_comes_back(
    info: FrameInfo, image: bytes, fmt: ImageFormat, dropped: int
) -> None:
    """Decoding an encoded frame gives its header and the image unchanged."""
    data = frame_codec.encode(info, image, fmt, dropped)
    assert frame_codec.decode(data) == (frame_codec.header(info, fmt, dropped), image)


@given(INFOS, st.binary(max_size=70_000), FORMATS, COUNTS)
def test_the_shortcut_makes_the_same_bytes(
    info: FrameInfo, image: bytes, fmt: ImageFormat, dropped: int
) -> None:
    """Building the WebSocket message in one go equals wrapping the encoded frame."""
    wrapped = frame_codec.websocket_message(frame_codec.encode(info, image, fmt, dropped))
    assert frame_codec.encode_websocket(info, image, fmt, dropped) == wrapped


@given(INFOS)
def test_weights_keep_their_sum(info: FrameInfo) -> None:
    """Rounding moves no weight by more than half of its last digit."""
    header = frame_codec.header(info, ImageFormat.JPEG, 0)
    assert header.emotion.keys() == info.emotion.keys()
    assert all(abs(header.emotion[k] - info.emotion[k]) <= 0.500001e-4 for k in info.emotion)


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_raise(data: bytes) -> None:
    """No bytes make decoding fail in any other way than with its typed error."""
    for candidate in (data, b"AVF1" + data, b"AVF1" + len(data).to_bytes(4, "little") + data):
        try:
            frame_codec.decode(candidate)
        except InvalidEventError:
            continue


@given(INFOS, st.data())
def test_a_damaged_message_decodes_or_raises(info: FrameInfo, draw: st.DataObject) -> None:
    """Neither a flipped byte nor a cut makes decoding fail in any other way."""
    data = bytearray(frame_codec.encode(info, b"image", ImageFormat.WEBP, 1))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= draw.draw(st.integers(1, 255))
    end = draw.draw(st.integers(0, len(data)))
    for candidate in (bytes(data), bytes(data[:end])):
        try:
            frame_codec.decode(candidate)
        except InvalidEventError:
            continue
