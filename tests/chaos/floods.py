"""What a flood costs those who keep to the limits: the same figures without it and during it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.benchmarks.figures import percentile
from tests.benchmarks.viewers import Arrival
from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import Scene

LOOK_S = 4.0
CUE_EVERY_S = 0.05
OWED_S = 0.5


@dataclass(frozen=True, slots=True)
class Figures:
    """What another producer and the viewers had, in milliseconds.

    Attributes:
        accepted: from sending a cue to its receipt, seen by that producer.
        started: from a cue's arrival to the frame that shows it, as its receipt says.
        intervals: between frames at each of three viewers.
    """

    accepted: tuple[float, ...]
    started: tuple[float, ...]
    intervals: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Compared(Seen):
    """A flood, and what it changed.

    Attributes:
        sent_per_s: messages of the flood.
        hung_up: how often it was hung up on.
        refused: how many of its messages were answered with `rate_limited`.
    """

    before: Figures
    during: Figures
    sent_per_s: float
    hung_up: int
    refused: int


def flood(kind: str, connections: int) -> Callable[[Scene], Awaitable[Seen]]:
    """Ten times the limit over so many connections, each; see `tests.chaos.flooding`."""

    async def work(scene: Scene) -> Compared:
        before = await _figures(scene)
        command = ("-m", "tests.chaos.flooding", str(scene.daemon.port), kind, str(connections))
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        flooding = await asyncio.create_subprocess_exec(sys.executable, *command, **pipes)
        try:
            assert flooding.stdout is not None
            assert await flooding.stdout.readline() == b"flooding\n"
            during = await _figures(scene)
            said, _ = await flooding.communicate(b"")
        finally:
            with suppress(ProcessLookupError):
                flooding.kill()
            await flooding.wait()
        answer = json.loads(said)
        assert connections == 0 or answer["refused"] > 0, answer
        return Compared("close code 1008, bad_messages_total", 0.0, before, during, **answer)

    return work


async def _figures(scene: Scene) -> Figures:
    """Look for a while, from now on."""
    begun_s = time.monotonic()
    async with _steady(scene) as steady:
        await asyncio.sleep(LOOK_S)
    report = await asyncio.to_thread(scene.stage.viewers.report)
    arrivals = [arrival for arrival in report.arrivals if arrival.at_s >= begun_s]
    return Figures(tuple(steady.accepted), tuple(steady.started), _intervals(arrivals))


def _intervals(arrivals: list[Arrival]) -> tuple[float, ...]:
    at_s: dict[int, list[float]] = {}
    for arrival in arrivals:
        at_s.setdefault(arrival.viewer, []).append(arrival.at_s)
    pairs = [pair for its in at_s.values() for pair in pairwise(its)]
    return tuple((after - before) * 1000.0 for before, after in pairs)


class _Steady:
    """A producer within its limit."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._sent_s: dict[str, float] = {}
        self.accepted: list[float] = []
        self.started: list[float] = []

    async def send(self) -> None:
        """A cue every now and then; the times are such that most get to be seen."""
        times = {"attack_ms": 10, "hold_ms": 30, "decay_ms": 10}
        for number in count():
            cue = f"other-{id(self)}-{number}"
            emotion = ("happy", "sad", "surprised")[number % 3]
            message: dict[str, Any] = {"type": "emotion", "id": cue, "emotion": emotion} | times
            self._sent_s[cue] = time.monotonic()
            await self._connection.send(json.dumps(message))
            await asyncio.sleep(CUE_EVERY_S)

    async def listen(self) -> None:
        """Note when the answers come."""
        with suppress(ConnectionClosed):
            async for text in self._connection:
                now_s, answer = time.monotonic(), json.loads(text)
                if answer["type"] == "emotion.accepted":
                    self.accepted.append((now_s - self._sent_s[answer["id"]]) * 1000.0)
                elif answer["type"] == "emotion.started":
                    self.started.append(answer["latency_ms"])


@asynccontextmanager
async def _steady(scene: Scene) -> AsyncIterator[_Steady]:
    async with connect(f"{scene.daemon.ws}/v1/events") as connection:
        steady = _Steady(connection)
        tasks = [asyncio.create_task(steady.send()), asyncio.create_task(steady.listen())]
        try:
            yield steady
            tasks[0].cancel()
            await asyncio.sleep(OWED_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def joined(figures: Sequence[Figures]) -> Figures:
    """The same of several times."""
    return Figures(
        tuple(value for each in figures for value in each.accepted),
        tuple(value for each in figures for value in each.started),
        tuple(value for each in figures for value in each.intervals),
    )


def summary(values: tuple[float, ...]) -> str:
    """Median and 99th percentile."""
    return f"{percentile(values, 50):.1f} / {percentile(values, 99):.1f}"


FAULTS = (
    Fault("no flood, for comparison", flood("websocket", 0)),
    Fault("one connection, 10 times the limit", flood("websocket", 1)),
    Fault("8 connections, each 10 times the limit", flood("websocket", 8)),
    Fault("one that goes on when it is hung up on", flood("deaf", 1)),
    Fault("messages of 60 KB, twice the limit", flood("largest", 1)),
    Fault("POST, 10 times the limit", flood("post", 1)),
    Fault("POST over 8 connections, each 10 times the limit", flood("post", 8)),
)
