"""What is known about the far end of a connection."""

from __future__ import annotations

import asyncio
from typing import Any

from adapters import tcp


class Transport:
    """A connection without a socket: only its own write buffer can be seen."""

    def __init__(self) -> None:
        self.buffered = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.limits = (high, low)

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True
        self.buffered = 0


def uptake(transport: Any, now_s: float = 0.0) -> tcp.Uptake:
    return tcp.Uptake(transport, now_s)


def test_without_a_window_the_write_buffer_tells() -> None:
    """A buffer that does not shrink is a stall, one that shrinks or is empty is none."""
    transport = Transport()
    watch = uptake(transport)
    transport.buffered = 1000
    assert [watch.stalled_s(1, n / 2) for n in range(1, 5)] == [0.5, 1.0, 1.5, 2.0]
    transport.buffered = 999
    assert watch.stalled_s(1, 2.5) == 0.0
    assert watch.stalled_s(1, 3.0) == 0.5
    transport.buffered = 2000  # more for it to take is not taking
    assert watch.stalled_s(1, 3.5) == 1.0
    transport.buffered = 0
    assert watch.stalled_s(9, 4.0) == 0.0


def test_time_in_which_nobody_looked_hardly_counts() -> None:
    """After a suspend of the machine nobody is taken for stalled."""
    transport = Transport()
    watch = uptake(transport)
    transport.buffered = 1000
    assert watch.stalled_s(1, 0.5) == 0.5
    assert watch.stalled_s(1, 3600.0) == 1.5


async def test_flushing_ends_when_the_buffer_is_empty_or_the_grace_is_over() -> None:
    """What goes out goes out; what does not is cut off."""
    transport: Any = Transport()
    transport.buffered = 10
    asyncio.get_running_loop().call_later(0.01, setattr, transport, "buffered", 0)
    await tcp.flush(transport, 5.0)
    assert not transport.aborted
    transport.buffered = 10
    await tcp.flush(transport, 0.05)
    assert transport.aborted


def test_connections_without_a_socket_are_left_as_they_are() -> None:
    """Queue limits apply to sockets; other transports only get their buffer limit."""
    transport: Any = Transport()
    tcp.shorten_queue(transport)
    tcp.make_room(transport)
    assert transport.limits == (1, 0)
