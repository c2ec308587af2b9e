"""What a healthy viewer and a steady producer notice of what is done to the daemon."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, cycle
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.benchmarks.viewers import Arrival, Viewers
from tests.fakes.daemon import DaemonProcess

FPS = 30.0
WATCHED = 3
CUE_EVERY_S = 0.1
ENDED_S = 10.0
ENDINGS = frozenset({"emotion.finished", "emotion.superseded", "emotion.expired"})


@dataclass(frozen=True, slots=True)
class Noticed:
    """What they noticed.

    Attributes:
        seconds: how long they looked.
        frames: at the viewer that got fewest.
        missed: frames that were published and never got to a viewer that took everything.
        longest_ms: the longest time without a frame at any of them.
        cues: accepted.
        unended: of those, without an ending.
        twice: of those, with more than one ending.
    """

    seconds: float
    frames: int
    missed: int
    longest_ms: float
    cues: int
    unended: int
    twice: int

    @property
    def rate(self) -> float:
        """Frames as a share of the full rate."""
        return self.frames / (FPS * self.seconds)


class Watch:
    """Looks from `async with` on, until it is asked what it has noticed.

    Args:
        daemon: to look at.
        viewers: at least one of them watched.
    """

    def __init__(self, daemon: DaemonProcess, viewers: Viewers) -> None:
        self._daemon = daemon
        self._viewers = viewers
        self._accepted: set[str] = set()
        self._ended: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._producer: ClientConnection | None = None
        self._begun_s = 0.0

    async def __aenter__(self) -> Self:
        self._producer = await connect(f"{self._daemon.ws}/v1/events")
        await asyncio.to_thread(self._viewers.mark)
        self._begun_s = time.monotonic()
        self._tasks = [
            asyncio.create_task(self._send(self._producer)),
            asyncio.create_task(self._listen(self._producer)),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._producer is not None
        await self._producer.close()

    async def noticed(self) -> Noticed:
        """Send no more, wait for what is owed, and tell."""
        report = await asyncio.to_thread(self._viewers.report)
        seconds = time.monotonic() - self._begun_s
        self._tasks[0].cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDED_S):
                while self._accepted - set(self._ended):  # noqa: ASYNC110 - a set has no event
                    await asyncio.sleep(0.05)
        received = Received()
        received.add(report.arrivals)
        return Noticed(
            seconds,
            received.fewest,
            received.missed,
            received.longest_ms,
            cues=len(self._accepted),
            unended=len(self._accepted - set(self._ended)),
            twice=sum(number > 1 for number in self._ended.values()),
        )

    async def _send(self, producer: ClientConnection) -> None:
        labels = cycle(("happy", "sad", "surprised"))
        times = {"attack_ms": 30, "hold_ms": 30, "decay_ms": 30}
        with suppress(ConnectionClosed):
            for number in count():
                cue = {"type": "emotion", "id": f"steady-{id(self)}-{number}", **times}
                await producer.send(json.dumps(cue | {"emotion": next(labels)}))
                await asyncio.sleep(CUE_EVERY_S)

    async def _listen(self, producer: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            async for text in producer:
                message = json.loads(text)
                if message["type"] == "emotion.accepted":
                    self._accepted.add(message["id"])
                elif message["type"] in ENDINGS:
                    self._ended[message["id"]] += 1


class Received:
    """What watched viewers got, folded as it comes.

    Attributes:
        longest_ms: the longest time without a frame at any of them.
        missed: frames that were published and never got to one of them.
    """

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self.missed = 0
        self._frames: Counter[int] = Counter()
        self._newest: dict[int, Arrival] = {}

    @property
    def fewest(self) -> int:
        """Frames at the viewer that got fewest."""
        return min(self._frames.values(), default=0)

    def add(self, arrivals: Sequence[Arrival]) -> None:
        """Take in what came since; in order for each viewer."""
        for arrival in arrivals:
            before = self._newest.get(arrival.viewer)
            self._newest[arrival.viewer] = arrival
            self._frames[arrival.viewer] += 1
            if before is not None:
                self.missed += arrival.seq - before.seq - 1
                self.longest_ms = max(self.longest_ms, (arrival.at_s - before.at_s) * 1000.0)
