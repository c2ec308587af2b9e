"""What the far end of a TCP connection has taken, and how much waits for it in the kernel.

Left alone, the kernel queues megabytes for a receiver that has stopped reading: seconds of
frames that are old when they arrive, and that hide from us that nobody takes them. So the
queue is kept short, and reading is seen in the window the receiver advertises. Everything
here does nothing on connections and systems that do not offer it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from typing import Any, Final

UNSENT_BYTES: Final = 131_072  # two to four frames: enough that a fast link never runs dry

_INT_MAX: Final = 2**31 - 1
_KEPT_MS: Final = 60_000
_FLUSH_POLL_S: Final = 0.02
_LONGEST_LAPSE_S: Final = 1.0
_FRAMES_IN_DOUBT: Final = 3  # a receiver may owe us the window update for the last frame or two

# struct tcp_info, include/uapi/linux/tcp.h: tcpi_bytes_acked is the u64 at offset 120,
# tcpi_snd_wnd (Linux 5.4) the u32 at offset 228.
_TCP_INFO_BYTES: Final = 232
_BYTES_ACKED: Final = struct.Struct("=120xQ")
_SEND_WINDOW: Final = struct.Struct("=228xI")


def shorten_queue(transport: asyncio.WriteTransport) -> None:
    """Have the kernel queue little for this connection, and tell our protocol when it is full.

    Afterwards `get_write_buffer_size()` is above zero from the first byte that the kernel
    did not take, and writing counts as paused until the last one is gone.
    """
    # Not 0: TLS transports pause at the limit where others pause above it.
    transport.set_write_buffer_limits(high=1, low=0)
    _set_unsent_limit(transport, UNSENT_BYTES)


def make_room(transport: asyncio.WriteTransport) -> None:
    """Let the kernel take what is buffered here, so that the connection can be let go of.

    A receiver that wakes up within a minute still finds the rest of its frame and our
    farewell, although by then we have closed the connection.
    """
    _set_unsent_limit(transport, _INT_MAX)
    connection = _socket(transport)
    if connection is None:
        return
    with contextlib.suppress(OSError):
        size = connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        # The kernel doubles what it is given (socket(7)), up to its own limit.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _KEPT_MS)


async def flush(transport: asyncio.WriteTransport, grace_s: float) -> None:
    """Wait until the kernel has taken everything; abort the connection after `grace_s`."""
    give_up_s = time.monotonic() + grace_s
    while transport.get_write_buffer_size():
        if time.monotonic() >= give_up_s:
            transport.abort()
            return
        await asyncio.sleep(_FLUSH_POLL_S)


class Uptake:
    """Whether the far end takes what it is sent.

    Reading moves the right edge of the receiver's window (bytes acknowledged plus window):
    its kernel acknowledges what nobody has read yet, but only reading frees the room for
    more. Where the window cannot be seen, the fill of our own write buffer has to do.

    Args:
        transport: the connection.
        now_s: monotonic seconds.
    """

    def __init__(self, transport: asyncio.WriteTransport, now_s: float) -> None:
        self._transport = transport
        self._window = _window(transport)
        self._buffered = transport.get_write_buffer_size()
        self._frames = 0
        self._looked_s = now_s
        self._stalled_s = 0.0

    def stalled_s(self, frames: int, now_s: float) -> float:
        """How long the far end has taken nothing although there was something to take.

        To be called about twice a second. Time in which nobody looked, because this process
        was held up or the machine asleep, is no fault of the far end's and hardly counts.

        Args:
            frames: number of frames written to the connection so far.
            now_s: monotonic seconds.
        """
        window, buffered = _window(self._transport), self._transport.get_write_buffer_size()
        if window is not None and self._window is not None:
            acked, edge = (new - old for new, old in zip(window, self._window, strict=True))
            # A full receiver's edge creeps on a little with each acknowledgement, because
            # windows are rounded up to their scale; a reader's keeps up with them.
            taken = edge > 0 and 2 * edge >= acked
        else:
            taken = buffered == 0 or buffered < self._buffered
        in_doubt = buffered == 0 and frames - self._frames < _FRAMES_IN_DOUBT
        self._window, self._buffered = window, buffered
        if taken:
            self._frames = frames
        lapse_s, self._looked_s = min(now_s - self._looked_s, _LONGEST_LAPSE_S), now_s
        self._stalled_s = 0.0 if taken or in_doubt else self._stalled_s + lapse_s
        return self._stalled_s


def _window(transport: asyncio.BaseTransport) -> tuple[int, int] | None:
    """Bytes acknowledged and right edge of the window; None where they cannot be had."""
    connection = _socket(transport)
    if connection is None or sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    (acked,) = _BYTES_ACKED.unpack_from(info)
    (window,) = _SEND_WINDOW.unpack_from(info)
    return acked, acked + window


def _set_unsent_limit(transport: asyncio.BaseTransport, limit_bytes: int) -> None:
    connection = _socket(transport)
    if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit_bytes)


def _socket(transport: asyncio.BaseTransport) -> Any:
    """The transport's socket; None once it is closed."""
    connection = transport.get_extra_info("socket")
    return None if connection is None or connection.fileno() < 0 else connection
