"""The parts of the client that do no I/O, against the daemon's own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import frame_codec
from orchestrator.client.address import endpoint
from orchestrator.client.frames import FrameError, decode_frame
from orchestrator.client.held_text import held_back
from orchestrator.expression.tags import TagReader
from pipeline.types import FrameInfo, ImageFormat
from tests.fakes.emotions import table

EMOTIONS = table()
PIECES = st.lists(
    st.sampled_from(
        [
            "[happy]", "[happy:0.7]", '<emotion name="sad"/>', "[", "]", "<", "hap", "py", "(",
            '<|ACT {"emotion":{"name":"angry","intensity":0.7}}|>', "|>", "a < b", "[1]", "[x](y)",
            " ", "\n", "é😀", "<b>", '<emotion name="', "text",
        ]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@given(st.lists(PIECES, max_size=5))
def test_what_is_held_back_is_what_the_daemon_holds(deltas: list[str]) -> None:
    """Worked out from the answers alone, after every delta, however the text is cut."""
    reader, held = TagReader(), ""
    for delta in deltas:
        clean, tags = reader.read(delta, EMOTIONS)
        held = held_back(held + delta, clean, [tag.at for tag in tags])
        assert held == reader.held


@pytest.mark.parametrize(
    ("text", "clean", "ats"), [("abc", "x", []), ("abc", "ab", [1]), ("[a", "", [0])]
)
def test_answers_to_another_text(text: str, clean: str, ats: list[int]) -> None:
    """They are noticed."""
    with pytest.raises(ValueError):
        held_back(text, clean, ats)


INFOS = st.builds(
    FrameInfo,
    seq=st.integers(0, 2**40),
    pts_s=st.floats(0, 1e6),
    ts_ms=st.floats(0, 1e13),
    width=st.integers(1, 9999),
    height=st.integers(1, 9999),
    emotion=st.dictionaries(st.text(max_size=8), st.floats(0, 1), max_size=8),
    event=st.none() | st.text(max_size=64),
    cached=st.booleans(),
    degraded=st.none() | st.text(max_size=64),
)


@given(INFOS, st.binary(max_size=64), st.sampled_from(ImageFormat))
def test_frames_are_read_as_the_daemon_writes_them(
    info: FrameInfo, image: bytes, fmt: ImageFormat
) -> None:
    """Field for field what the daemon's own decoder reads."""
    message = frame_codec.encode(info, image, fmt, 3)
    header, body = decode_frame(message)
    known, same = frame_codec.decode(message)
    assert body == same == image
    for name in known.__struct_fields__:
        assert getattr(header, name) == getattr(known, name)


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: b"AVF1" + tail))
def test_any_bytes_are_a_frame_or_an_error(data: bytes) -> None:
    """Nothing else comes out."""
    with suppress(FrameError):
        decode_frame(data)


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("http://127.0.0.1:8081", "ws://127.0.0.1:8081/v1/events?stage=a%26b"),
        ("https://h/avatar/", "wss://h/avatar/v1/events?stage=a%26b"),
        ("ws://[::1]:1", "ws://[::1]:1/v1/events?stage=a%26b"),
        ("WSS://Host", "wss://Host/v1/events?stage=a%26b"),
    ],
)
def test_addresses(base: str, address: str) -> None:
    """Whatever scheme is written, and below a path if a proxy wants that."""
    assert endpoint(base, "v1/events", {"stage": "a&b", "other": None}) == address


def test_the_import_is_light() -> None:
    """A client does not load what draws faces."""
    heavy = ("numpy", "cv2", "torch", "aiohttp", "skimage", "uvloop")
    code = f"import sys, orchestrator.client; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
