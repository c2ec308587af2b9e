"""Viewers in a process of their own that does as little as it can.

Run as a program it connects, drains, and answers on its standard output what it is asked on
its standard input. A few *watched* connections are read message by message; of the others
only bytes are taken, on Linux without even copying them.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import on_cores

ROOT = Path(__file__).parents[2]
CONNECT_S = 30.0
STOP_S = 10.0
PER_PROCESS = 600
WATCHED = 20
CHUNK = 1 << 20
DRAINS_PER_LOOK = 8
NORMAL = 1000
# tcp(7): on a TCP socket this discards the bytes instead of passing them on.
DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One frame at one watched viewer.

    Attributes:
        viewer: which of the watched ones.
        seq: of the frame.
        latency_ms: from the frame's `ts_ms` until its last byte was read.
        at_s: monotonic seconds of that.
        dropped: frames that this viewer had missed, as the frame says.
    """

    viewer: int
    seq: int
    latency_ms: float
    at_s: float
    dropped: int


@dataclass(frozen=True, slots=True)
class Report:
    """What viewers saw since the last mark.

    Attributes:
        arrivals: at the watched viewers, in order for each.
        open: connections that are still there.
        closed_with: close codes that the watched viewers were given, and how many.
        cpu: share of one core that the viewers' processes used.
    """

    arrivals: tuple[Arrival, ...]
    open: int
    closed_with: dict[str, int]
    cpu: float


class Viewers:
    """Connections to `/v1/frames`, held by other processes until the block ends.

    Args:
        port: of the daemon.
        count: how many.
        watched: how many of them are read message by message, spread over all.
        cores: where they run.
    """

    def __init__(
        self, port: int, count: int, *, watched: int = WATCHED, cores: Collection[int] = ()
    ) -> None:
        processes = -(-count // PER_PROCESS)
        with on_cores(cores):
            self._processes = [
                _started(port, _share(count, processes, i), _share(watched, processes, i))
                for i in range(processes)
            ]

    def __enter__(self) -> Viewers:
        try:
            for process in self._processes:
                _answer(process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def mark(self) -> None:
        """Forget what was seen so far."""
        self._ask("mark")

    def report(self) -> Report:
        """What was seen since the last mark."""
        return self._told("report")

    def take(self) -> Report:
        """What was seen since the last mark, which is moved to here; nothing is seen twice.

        Often, and the answers stay short: while they are written, nobody looks at frames.
        """
        return self._told("take")

    def _told(self, question: str) -> Report:
        answers = self._ask(question)
        codes: dict[str, int] = {}
        for answer in answers:
            for code, number in answer["closed_with"].items():
                codes[code] = codes.get(code, 0) + number
        return Report(
            tuple(
                Arrival(index * PER_PROCESS + viewer, *rest)
                for index, answer in enumerate(answers)
                for viewer, *rest in answer["arrivals"]
            ),
            sum(answer["open"] for answer in answers),
            codes,
            sum(answer["cpu"] for answer in answers),
        )

    def _ask(self, question: str) -> list[dict[str, Any]]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{question}\n")
            process.stdin.flush()
        return [_answer(process) for process in self._processes]

    def _end(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _share(count: int, parts: int, index: int) -> int:
    """`count` in equal parts, the rest to the first."""
    return count // parts + (index < count % parts)


def _started(port: int, count: int, watched: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__, str(port), str(count), str(watched)]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the viewers' process has ended; see its message above")
    answer: dict[str, Any] = json.loads(line)
    return answer


# --- in the other process -----------------------------------------------------------------


class _Watched:
    """A connection that is read message by message (RFC 6455, section 5.2)."""

    def __init__(self, number: int, connection: socket.socket, begun: bytes) -> None:
        self._number = number
        self._connection = connection
        self._pending = bytearray(begun)
        self.arrivals: list[Sequence[float]] = []
        self.close_code: int | None = None

    def take(self, data: memoryview) -> None:
        """Note every frame that these bytes complete."""
        self._pending += data
        while (end := self._message()) is not None:
            del self._pending[:end]

    def _message(self) -> int | None:
        """Look at the first message; its length, or None if it is not complete."""
        pending = self._pending
        if len(pending) < 2:
            return None
        length, start = pending[1] & 0x7F, 2
        if length >= 126:
            code, start = ("!H", 4) if length == 126 else ("!Q", 10)
            if len(pending) < start:
                return None
            (length,) = struct.unpack_from(code, pending, 2)
        end = start + int(length)
        if len(pending) < end:
            return None
        opcode = pending[0] & 0x0F
        if opcode == 2:
            self._note(start)
        elif opcode == 8:
            self._close(bytes(pending[start:end]))
        return end

    def _note(self, start: int) -> None:
        at_s, wall_ms = time.monotonic(), time.time() * 1000.0
        (length,) = struct.unpack_from("<I", self._pending, start + 4)
        header = json.loads(self._pending[start + 8 : start + 8 + length])
        latency_ms = round(wall_ms - header["ts_ms"], 4)
        arrival = (self._number, header["seq"], latency_ms, at_s, header["dropped"])
        self.arrivals.append(arrival)

    def _close(self, body: bytes) -> None:
        self.close_code = int.from_bytes(body[:2], "big") if body else NORMAL
        mask = bytes(4)  # the mask may be any: RFC 6455, section 5.3
        with contextlib.suppress(OSError):
            self._connection.send(bytes((0x88, 0x80 | len(body[:2]))) + mask + body[:2])


class _Crowd:
    """All connections of this process."""

    def __init__(self, port: int, count: int, watched: int) -> None:
        self._port = port
        self._count = count
        self._step = max(1, count // max(watched, 1))
        self._most_watched = watched
        self._watched: list[_Watched] = []
        self._buffer = memoryview(bytearray(CHUNK))
        self._all = selectors.DefaultSelector()
        # The watched ones again: they are looked at in between, so that draining the others
        # does not delay what they see.
        self._first = selectors.DefaultSelector()
        self._open = 0
        self._mark()

    def run(self) -> None:
        """Connect, then serve connections and questions until there are no more questions."""
        self._connect()
        _say({"connected": self._open})
        self._all.register(sys.stdin, selectors.EVENT_READ, sys.stdin)
        while self._serve(None):
            pass

    def _connect(self) -> None:
        """Open every connection, and drain those that are open meanwhile."""
        for number in range(self._count):
            connection, begun = opened(self._port)
            self._open += 1
            watched = None
            if number % self._step == 0 and len(self._watched) < self._most_watched:
                watched = _Watched(len(self._watched), connection, begun)
                self._watched.append(watched)
                self._first.register(connection, selectors.EVENT_READ, watched)
            self._all.register(connection, selectors.EVENT_READ, watched)
            self._serve(0.0)

    def _serve(self, timeout_s: float | None) -> bool:
        """Take what is there; False when nobody asks any more."""
        asked = False
        ready = self._all.select(timeout_s)
        self._look()
        for index, (key, _) in enumerate(ready):
            if key.data is None:
                self._drain(key.fileobj)
            elif key.data is sys.stdin:
                asked = True
            if index % DRAINS_PER_LOOK == 0:
                self._look()
        return self._answer() if asked else True

    def _look(self) -> None:
        for key, _ in self._first.select(0):
            try:
                size = key.fileobj.recv_into(self._buffer)  # type: ignore[union-attr]
            except OSError:
                size = 0
            if size:
                key.data.take(self._buffer[:size])
            else:
                self._first.unregister(key.fileobj)
                self._gone(key.fileobj)

    def _drain(self, connection: Any) -> None:
        try:
            size = connection.recv_into(self._buffer, CHUNK, DISCARD)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._gone(connection)

    def _gone(self, connection: Any) -> None:
        self._all.unregister(connection)
        connection.close()
        self._open -= 1

    def _answer(self) -> bool:
        match sys.stdin.readline().strip():
            case "mark":
                self._mark()
                _say({})
            case "report":
                _say(self._report())
            case "take":
                report = self._report()
                self._mark()
                _say(report)
            case _:
                return False
        return True

    def _mark(self) -> None:
        for watched in self._watched:
            watched.arrivals.clear()
        self._cpu_s, self._marked_s = time.process_time(), time.monotonic()

    def _report(self) -> dict[str, Any]:
        codes = [str(each.close_code) for each in self._watched if each.close_code is not None]
        return {
            "arrivals": [arrival for each in self._watched for arrival in each.arrivals],
            "open": self._open,
            "closed_with": {code: codes.count(code) for code in codes},
            "cpu": (time.process_time() - self._cpu_s) / (time.monotonic() - self._marked_s),
        }


def handshake(host: str, port: int) -> bytes:
    """A viewer's request (RFC 6455, section 4.1)."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /v1/frames HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def opened(
    port: int, receive_bytes: int = 0, host: str = "127.0.0.1"
) -> tuple[socket.socket, bytes]:
    """A WebSocket after its handshake (RFC 6455, section 4.1), and what has come after it.

    Args:
        receive_bytes: what the kernel may keep for it unread; 0 leaves that to the kernel.
    """
    connection = socket.socket()
    connection.settimeout(CONNECT_S)
    if receive_bytes:
        # Before the connection is there: its window is agreed on then.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect((host, port))
    connection.sendall(handshake(host, port))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(4096)
        if not data:
            raise ConnectionError(f"the daemon hung up; it had said {answer[:200]!r}")
        answer += data
    head, _, begun = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"the daemon said {head[:200]!r}")
    connection.setblocking(False)
    return connection, begun


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "count", "watched"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        _Crowd(options.port, options.count, options.watched).run()


if __name__ == "__main__":
    _main()
