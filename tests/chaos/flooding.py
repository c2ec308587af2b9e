"""`python -m tests.chaos.flooding PORT KIND CONNECTIONS`: a producer that keeps to no limit.

Sends from "flooding" on its standard output until its standard input ends, each connection
`PER_S` messages a second; hung up on, it comes back. Then says how many it sent, and how often it
was hung up on or refused. A deaf one sends on after it has been told to go.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time
from typing import Final

PER_S: Final = 2000
"""Ten times the limit."""
KINDS: Final = ("websocket", "deaf", "post", "largest")
TICK_S: Final = 0.01
COME_BACK_S: Final = 0.05
ANSWER_BYTES: Final = 1 << 18
_TEXT: Final = b'{"type":"mood","valence":0.1,"arousal":0.0}'
_LARGEST: Final = _TEXT[:-1] + b',"note":"' + b"x" * 60_000 + b'"}'
_LARGEST_PER_S: Final = PER_S // 5
_GOODBYE: Final = b"too many messages"
_HANDSHAKE: Final = (
    b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


class _Flood:
    """One connection, again and again."""

    def __init__(self, port: int, kind: str) -> None:
        self._port = port
        self._post = kind == "post"
        self._deaf = kind == "deaf"
        text = _LARGEST if kind == "largest" else _TEXT
        self._message = _post(text) if self._post else _frame(text)
        self._at_once = int((_LARGEST_PER_S if kind == "largest" else PER_S) * TICK_S)
        self._unsent = b""
        self._connection: socket.socket | None = None
        self._next_s = 0.0
        self.sent = 0
        self.refused = 0
        self.hung_up = 0

    def tick(self) -> None:
        """Send what is due, and take what has come back."""
        try:
            if self._connection is None:
                self._connect()
            elif self._stays(self._connection):
                self._send(self._connection)
            else:
                self._gone()
        except BlockingIOError:
            pass
        except OSError:
            self._gone()

    def _connect(self) -> None:
        if time.monotonic() < self._next_s:
            return
        connection = socket.create_connection(("127.0.0.1", self._port), 10.0)
        if not self._post:
            connection.sendall(_HANDSHAKE)
            connection.recv(4096)
        connection.setblocking(False)
        self._connection, self._unsent = connection, b""

    def _send(self, connection: socket.socket) -> None:
        if not self._unsent:
            self._unsent = self._message * self._at_once
            self.sent += self._at_once
        self._unsent = self._unsent[connection.send(self._unsent) :]

    def _stays(self, connection: socket.socket) -> bool:
        """Take what has come back; False when it said that this is the end."""
        if not select.select([connection], [], [], 0)[0]:
            return True
        answer = connection.recv(ANSWER_BYTES)
        self.refused += answer.count(b'"code":"rate_limited"')
        return bool(answer) and (self._deaf or _GOODBYE not in answer)

    def _gone(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self.hung_up += 1
        self._next_s = time.monotonic() + COME_BACK_S


def _frame(text: bytes) -> bytes:
    """A client's text frame, with a mask that changes nothing (RFC 6455, section 5.3)."""
    if len(text) < 126:
        return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text
    return b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text


def _post(text: bytes) -> bytes:
    return (
        b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(text), text)
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("connections", type=int)
    options = parser.parse_args()
    floods = [_Flood(options.port, options.kind) for _ in range(options.connections)]
    _say("flooding")
    begun_s = due_s = time.monotonic()
    while True:
        for flood in floods:
            flood.tick()
        due_s = max(due_s + TICK_S, time.monotonic())
        if select.select([sys.stdin], [], [], max(0.0, due_s - time.monotonic()))[0]:
            break
        time.sleep(max(0.0, due_s - time.monotonic()))
    figures = {
        "sent_per_s": sum(flood.sent for flood in floods) / (time.monotonic() - begun_s),
        "hung_up": sum(flood.hung_up for flood in floods),
        "refused": sum(flood.refused for flood in floods),
    }
    _say(json.dumps(figures))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
