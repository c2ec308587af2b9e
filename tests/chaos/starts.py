"""SIGTERM at every moment of a daemon's life, and starts that cannot succeed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.chaos.scene import FAULTY, HANG_S, environment, free_port, furnish
from tests.fakes.daemon import DaemonProcess

STOPPED_S = 5.0
"""What the daemon promises; its unit allows twice that."""
QUEUED = 64
VIEWERS = 20


@dataclass(frozen=True, slots=True)
class Stop:
    """One start or stop.

    Attributes:
        status: of the process; negative is the signal that ended it.
        seconds: from the signal to the end.
        errors: lines of the log that say error or worse.
    """

    status: int
    seconds: float
    errors: int


@dataclass(frozen=True, slots=True)
class Moment:
    """When SIGTERM comes, or what is in the way of a start.

    Attributes:
        name: for the table.
        statuses: those that are right.
    """

    name: str
    work: Callable[[Path], Awaitable[Stop]]
    statuses: tuple[int, ...] = (0,)


async def carry_out(moment: Moment) -> Stop:
    """Do it once."""
    with tempfile.TemporaryDirectory(prefix="avatar-chaos-") as name:
        folder = Path(name)
        furnish(folder)
        return await moment.work(folder)


def _daemon(folder: Path, *orders: str, **settings: str) -> DaemonProcess:
    environ = environment(folder) | {"AVATAR_RENDERER__HANG_S": str(HANG_S)} | settings
    return DaemonProcess(folder / "state", python=(*FAULTY, *orders), **environ)


async def _stopped(daemon: DaemonProcess) -> Stop:
    begun_s = time.monotonic()
    status = await asyncio.to_thread(daemon.stop)
    seconds = time.monotonic() - begun_s
    errors = sum(line.get("level") in ("error", "critical") for line in daemon.log)
    return Stop(status, seconds, errors)


def _while_it_starts(delay_s: float) -> Callable[[Path], Awaitable[Stop]]:
    async def work(folder: Path) -> Stop:
        daemon = _daemon(folder)
        await asyncio.sleep(delay_s)
        return await _stopped(daemon)

    return work


async def _while_it_loads(folder: Path) -> Stop:
    """The only renderer takes a minute to load, and cannot be interrupted."""
    port = free_port()
    daemon = _daemon(folder, "load 60", AVATAR_SERVER__PORT=str(port))
    await _answers(port)
    return await _stopped(daemon)


async def _while_it_loads_aside(folder: Path) -> Stop:
    """The wanted renderer takes a minute to load, another one serves."""
    daemon = _daemon(folder, "load 60", "aside")
    await asyncio.to_thread(daemon.__enter__)
    await asyncio.sleep(0.3)
    return await _stopped(daemon)


async def _while_it_renders(folder: Path) -> Stop:
    """It hangs in a frame."""
    daemon = _daemon(folder, AVATAR_RENDERER__HANG_S="30")
    await asyncio.to_thread(daemon.__enter__)
    async with connect(f"{daemon.ws}/v1/frames", max_size=None) as viewer:
        await viewer.recv()
        daemon.tell("hang")
        await asyncio.sleep(0.3)
        return await _stopped(daemon)


async def _with_full_queues(folder: Path) -> Stop:
    """Cues wait in a queue, a character switch is on its way, and viewers take nothing."""
    daemon = _daemon(folder)
    await asyncio.to_thread(daemon.__enter__)
    viewers = [
        await connect(f"{daemon.ws}/v1/frames", max_size=None, max_queue=1) for _ in range(VIEWERS)
    ]
    for viewer in viewers:
        viewer.transport.pause_reading()
    async with connect(f"{daemon.ws}/v1/events") as producer:
        for number in range(QUEUED):
            cue = {"type": "emotion", "id": f"q{number}", "emotion": "happy", "policy": "queue"}
            await producer.send(json.dumps(cue))
        for name in ("two", "one", "two"):
            await producer.send(json.dumps({"type": "character", "character": name}))
        await asyncio.sleep(0.5)
        stop = await _stopped(daemon)
        try:
            while True:
                await producer.recv()
        except ConnectionClosed:
            pass
        assert producer.close_code == 1001, producer.close_code
    for viewer in viewers:
        viewer.transport.abort()
    return stop


async def _two_on_one_port(folder: Path) -> Stop:
    """The second one ends and says why; the first one does not mind."""
    with _daemon(folder) as first:
        second = _daemon(folder, AVATAR_SERVER__PORT=str(first.port))
        stop = await _ended(second, "server.port")
        async with connect(f"{first.ws}/v1/frames", max_size=None) as viewer:
            await viewer.recv()
    return stop


async def _port_in_use(folder: Path) -> Stop:
    """Another program has the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        return await _ended(_daemon(folder, AVATAR_SERVER__PORT=port), "server.port")


async def _ended(daemon: DaemonProcess, word: str) -> Stop:
    begun_s = time.monotonic()
    try:
        status = await asyncio.to_thread(daemon.wait)
    except subprocess.TimeoutExpired as error:
        raise AssertionError("it goes on") from error
    said = "".join(str(line.get("text", "")) for line in daemon.log)
    assert word in said, said
    return Stop(status, time.monotonic() - begun_s, 0)


async def _answers(port: int) -> None:
    """Wait until it answers, that it is not ready yet."""
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get(f"http://127.0.0.1:{port}/ready")
                assert answer.status_code == 503, answer.text
                return
            await asyncio.sleep(0.02)


# Before its handlers are there, the signal ends a process by itself.
ENDED = (0, -signal.SIGTERM)
MOMENTS = (
    *(
        Moment(f"SIGTERM {delay_s:g} s after the start", _while_it_starts(delay_s), ENDED)
        for delay_s in (0.1, 0.3, 0.5, 0.8, 1.2)
    ),
    Moment("SIGTERM while its renderer loads", _while_it_loads),
    Moment("SIGTERM while a renderer loads aside", _while_it_loads_aside),
    Moment("SIGTERM in the middle of a render that hangs", _while_it_renders),
    Moment("SIGTERM with full queues and viewers that take nothing", _with_full_queues),
    Moment("two daemons on one port", _two_on_one_port, (69,)),
    Moment("a port in use", _port_in_use, (69,)),
)
