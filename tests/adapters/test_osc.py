"""OSC datagrams: what is in them, and what is refused."""

import logging

import pytest

from adapters.osc import MAX_DEPTH, MAX_MESSAGES, OscError, address, arguments, split
from tests.fakes.performer import APPLY, bundle, message, raw_bundle, value

HEAD = b"#bundle\0" + bytes(7) + b"\1"


def test_a_message_is_itself_and_a_bundle_its_messages_in_order() -> None:
    """Nested bundles are opened where they are."""
    first, second, third = value("A", 0.1), value("B", 0.2), APPLY
    assert split(first) == [first]
    assert split(bundle(first, bundle(second, bundle()), third)) == [first, second, third]


def test_arguments_are_numbers_and_text() -> None:
    """What python-osc wrote is what is read."""
    sent = message("/VMC/Ext/Blend/Val", "Jöy", 0.5, 7)
    assert address(sent) == b"/VMC/Ext/Blend/Val"
    assert arguments(sent) == ["Jöy", 0.5, 7]
    assert arguments(APPLY) == []
    assert arguments(b"/bare\0\0\0") == []


@pytest.mark.parametrize(
    ("datagram", "problem"),
    [
        (b"", "neither a message"),
        (b"GET / HTTP/1.1\r\n", "neither a message"),
        (b"#bundle\0", "neither a message"),
        (HEAD + b"\0\0", "ends within a size"),
        (HEAD + b"\xff\xff\xff\xfc", "-4 bytes"),  # python-osc reads this one for ever
        (HEAD + b"\0\0\0\0", "0 bytes"),
        (HEAD + b"\0\0\0\x20/a\0\0", "32 bytes, with 4 left"),
        (raw_bundle(HEAD, [APPLY, b"junk"]), "neither a message"),
        (raw_bundle(HEAD, [APPLY] * (MAX_MESSAGES + 1)), f"more than {MAX_MESSAGES}"),
    ],
)
def test_a_malformed_datagram_is_refused_whole(datagram: bytes, problem: str) -> None:
    """Nothing of it is taken, and the sentence says what is wrong."""
    with pytest.raises(OscError, match=problem):
        split(datagram)


def test_nesting_has_a_limit() -> None:
    """As deep as allowed is fine; deeper, and far deeper, is refused."""
    nested = APPLY
    for _ in range(MAX_DEPTH):
        nested = bundle(nested)
    assert split(nested) == [APPLY]
    for _ in range(1500):
        nested = bundle(nested)
        with pytest.raises(OscError, match="nested deeper"):
            split(nested)


@pytest.mark.parametrize(
    "broken",
    [
        b"/a",  # no end of the address
        b"/a\0\0,sf",  # no end of the types
        b"/a\0\0no types",
        b"/a\0\0,x\0\0",  # python-osc logs a line for these
        b"/a\0\0,s\0\0",  # no text
        b"/a\0\0,s\0\0text",  # no end of the text
        b"/a\0\0,s\0\0\xff\xfe\0\0",  # no UTF-8
        b"/a\0\0,d\0\0\0\0\0\0",
        b"/a\0\0,b\0\0\xff\xff\xff\xf0",  # a blob of negative size
        b"/a\0\0,[[[",
    ],
)
def test_a_malformed_message_is_refused(broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is an error of one kind, and python-osc logs nothing about it."""
    with caplog.at_level(logging.DEBUG), pytest.raises(OscError):
        arguments(broken)
    assert caplog.records == []
