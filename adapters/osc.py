"""Open Sound Control 1.0: a datagram to its messages; no I/O.

Messages are read by python-osc. Bundles are opened here, because its own reader has no limits: a
negative size in a bundle keeps it going for ever, and nesting takes it to the recursion limit.
Bundles' time tags are passed over: what comes is for now.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from pythonosc.osc_message import OscMessage, ParseError

MAX_BYTES: Final = 32_768
MAX_MESSAGES: Final = 1024  # twice what the largest models have in bones and expressions
MAX_DEPTH: Final = 4

_BUNDLE: Final = b"#bundle\0"
_HEADER_BYTES: Final = len(_BUNDLE) + 8  # and the time tag
_SIZE: Final = struct.Struct(">i")
# The address, padded to a multiple of four, and the types of the arguments. Left alone, python-osc
# passes over other types with a line in the log for each.
_HEAD: Final = re.compile(rb"/[^\0]*\0{1,4}(?:,[ifsdh]*\0|\Z)")

Argument = int | float | str


class OscError(ValueError):
    """A datagram is no OSC packet, or beyond the limits."""


def split(datagram: bytes) -> list[bytes]:
    """The messages of a datagram in order, those of its bundles included; not read yet.

    Raises:
        OscError: it is malformed, or there are too many; says where.
    """
    found: list[bytes] = []
    for message in _opened(datagram, 0):
        found.append(message)
        if len(found) > MAX_MESSAGES:
            raise OscError(f"more than {MAX_MESSAGES} messages in one datagram")
    return found


def address(message: bytes) -> bytes:
    """Where a message is for; the whole of it where it has no end."""
    return message.partition(b"\0")[0]


def arguments(message: bytes) -> list[Argument]:
    """What a message says: numbers and strings.

    Raises:
        OscError: it is malformed, or has arguments of other types.
    """
    if _HEAD.match(message) is None:
        raise OscError("a message is an address and arguments that are numbers or strings")
    try:
        read: list[Argument] = OscMessage(message).params
    except (ParseError, UnicodeDecodeError) as error:
        raise OscError("the arguments of a message are not those that it announces") from error
    return read


def _opened(packet: bytes, depth: int) -> Iterator[bytes]:
    if packet.startswith(b"/"):
        yield packet
        return
    if not packet.startswith(_BUNDLE) or len(packet) < _HEADER_BYTES:
        raise OscError("neither a message, which starts with /, nor a bundle")
    if depth == MAX_DEPTH:
        raise OscError(f"bundles are nested deeper than {MAX_DEPTH}")
    at = _HEADER_BYTES
    while at < len(packet):
        if len(packet) - at < _SIZE.size:
            raise OscError("a bundle ends within a size")
        (size,) = _SIZE.unpack_from(packet, at)
        at += _SIZE.size
        if not 0 < size <= len(packet) - at:
            raise OscError(f"a bundle's element of {size} bytes, with {len(packet) - at} left")
        yield from _opened(packet[at : at + size], depth + 1)
        at += size
