"""Clients on a machine of their own, at the other end of a cable, which can lose its power.

Run as a program it is that machine: a network namespace with one interface, in which clients
connect and take what they are given.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.chaos.namespaces import NotPossibleHereError

ROOT = Path(__file__).parents[2]
# RFC 2544, appendix C.2.2: a network for tests between devices, which nobody else has.
HERE, THERE, NETWORK = "198.18.87.1", "198.18.87.2", 30
CONNECT_S = 20.0
CHUNK = 1 << 20
_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
ONCE_IN_100_S = "max_fps=0.01"
REQUESTS: Final = {
    "viewer": ("/v1/frames", _UPGRADE),
    "idle viewer": (f"/v1/frames?{ONCE_IN_100_S}", _UPGRADE),
    "stream": ("/v1/stream.mjpg", ""),
    "idle stream": (f"/v1/stream.mjpg?{ONCE_IN_100_S}", ""),
    "producer": ("/v1/events", _UPGRADE),
    "page": ("/health", ""),
}
"""What clients ask for, and the headers that this takes."""


class OtherMachine:
    """A machine with clients on it, as long as it has power."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def power_off(self) -> None:
        """From now on nothing comes from it, not even a goodbye."""
        _run("nsenter", "-t", str(self._process.pid), "-n", "ip", "link", "set", "eth0", "down")


@contextmanager
def other_machine(port: int, clients: Sequence[str]) -> Iterator[OtherMachine]:
    """A machine whose clients are connected to a port of this one, until the block ends.

    Args:
        clients: keys of `REQUESTS`.

    Raises:
        NotPossibleHereError: this system does not let us.
    """
    if os.geteuid() or not all(shutil.which(each) for each in ("unshare", "nsenter", "ip")):
        raise NotPossibleHereError("needs root, `unshare`, `nsenter` and `ip`")
    command = (sys.executable, "-m", __name__, HERE, str(port), *clients)
    process = subprocess.Popen(
        ["unshare", "--net", *command],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    cable = f"chaos{process.pid}"
    try:
        _wait_for(process, "there")
        _plug_in(cable, process.pid)
        assert process.stdin is not None
        process.stdin.write("connect\n")
        process.stdin.flush()
        _wait_for(process, "connected")
        yield OtherMachine(process)
    finally:
        process.kill()
        process.communicate()
        # By itself it would stay for as long as the machine's kernel says goodbye to us.
        subprocess.run(["ip", "link", "delete", cable], check=False, capture_output=True)


def _plug_in(cable: str, pid: int) -> None:
    """Connect the two machines."""
    inside = ("nsenter", "-t", str(pid), "-n")
    _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _run("ip", "address", "add", f"{HERE}/{NETWORK}", "dev", cable)
    _run("ip", "link", "set", cable, "up")
    _run(*inside, "ip", "address", "add", f"{THERE}/{NETWORK}", "dev", "eth0")
    _run(*inside, "ip", "link", "set", "eth0", "up")


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NotPossibleHereError(f"{' '.join(command)}: {done.stderr.strip()}")


def _wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise NotPossibleHereError("`unshare --net` failed, or the clients; see their message")
    assert line.strip() == word, line


# --- on that machine ----------------------------------------------------------------------


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("clients", nargs="+", choices=[*REQUESTS])
    options = parser.parse_args()
    _say("there")
    sys.stdin.readline()
    ready = selectors.DefaultSelector()
    for client in options.clients:
        ready.register(_asking(options.host, options.port, client), selectors.EVENT_READ)
    _say("connected")
    while True:
        for key, _ in ready.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            with contextlib.suppress(OSError):
                connection.recv(CHUNK)


def _asking(host: str, port: int, client: str) -> socket.socket:
    """A connection whose request has got the beginning of an answer."""
    path, headers = REQUESTS[client]
    connection = socket.create_connection((host, port), CONNECT_S)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}\r\n".encode())
    answer = connection.recv(CHUNK)
    if not answer.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")):
        raise ConnectionError(f"the daemon said {answer[:200]!r}")
    return connection


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
