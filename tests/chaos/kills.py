"""kill -9 at random moments under load, and a new start at once, as systemd would do it."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from orchestrator.client import Producer, Viewer
from orchestrator.client.errors import ClientError
from tests.chaos.after_restart import SOON, as_before, new_frame
from tests.chaos.scene import environment, free_port, furnish
from tests.fakes.daemon import DaemonProcess

OPEN_S = 60.0
LIVES_S = (0.05, 1.0)
CUE_EVERY_S = 0.05
WRITTEN_S = 0.25
END_S = 20.0


@dataclass(slots=True)
class Killed:
    """What so many kills led to.

    Attributes:
        frame_s: from the new start to the first frame at a viewer that came back by itself.
        back_s: until the producer, too, is back, and character and mood are as they were.
        wrong: starts after which character or mood were not those that had been confirmed last.
        corrupt: starts that found no whole state file.
        events: sent.
        outcomes: how each ended at the producer that sent it.
        unsettled: events without an outcome.
    """

    back_s: list[float] = field(default_factory=list)
    frame_s: list[float] = field(default_factory=list)
    wrong: int = 0
    corrupt: int = 0
    events: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unsettled: int = 0


async def kill_and_restart(times: int, seed: int = 1) -> Killed:
    """Kill a busy daemon so many times, each time at another moment of its life."""
    chance, killed = random.Random(seed), Killed()
    with tempfile.TemporaryDirectory(prefix="avatar-chaos-") as name:
        folder = Path(name)
        furnish(folder)
        settings = environment(folder) | {"AVATAR_SERVER__PORT": str(free_port())}
        process = await asyncio.to_thread(_started, folder, settings)
        try:
            async with _load(process.http, killed) as load:
                for _ in range(times):
                    await load.confirm(chance)
                    await asyncio.sleep(chance.uniform(*LIVES_S))
                    process.signal(signal.SIGKILL)
                    await asyncio.to_thread(process.wait)
                    killed.corrupt += not _whole(folder / "state" / "state.json")
                    begun_s, begun_ms = time.monotonic(), time.time() * 1000.0
                    process = await asyncio.to_thread(_started, folder, settings)
                    await load.is_back(begun_s, begun_ms)
        finally:
            process.signal(signal.SIGKILL)
            process.wait()
    return killed


def _started(folder: Path, settings: dict[str, str]) -> DaemonProcess:
    return DaemonProcess(folder / "state", **settings).__enter__()


def _whole(path: Path) -> bool:
    try:
        return json.loads(path.read_bytes())["format"] == 1
    except (OSError, ValueError, KeyError):
        return False


class _Load:
    """A producer of ours that goes on sending, and a viewer that comes back."""

    def __init__(self, producer: Producer, viewer: Viewer, killed: Killed) -> None:
        self._producer = producer
        self._viewer = viewer
        self._killed = killed
        self._open: set[asyncio.Task[None]] = set()
        self._wanted: tuple[str, float] = ("one", 0.0)
        self._names: Iterator[str] = cycle(("two", "one"))

    async def confirm(self, chance: random.Random) -> None:
        """Change character and mood, hear that it is so, and leave it the time to be written."""
        valence = round(chance.uniform(-1.0, 1.0), 3)
        name = next(self._names)
        await self._producer.character(name)
        await self._producer.mood(valence, 0.0, decay_ms=3_600_000.0)
        self._wanted = (name, valence)
        await asyncio.sleep(WRITTEN_S)

    async def is_back(self, begun_s: float, begun_ms: float) -> None:
        """Wait for a new frame and for the right state; note when they are there."""
        async with asyncio.timeout(OPEN_S):
            await new_frame(self._viewer, begun_ms)
            self._killed.frame_s.append(time.monotonic() - begun_s)
            right = await as_before(self._producer, *self._wanted)
        self._killed.back_s.append(time.monotonic() - begun_s)
        self._killed.wrong += not right

    async def send(self) -> None:
        """One cue after the other, whether there is a daemon or not."""
        for label in cycle(("happy", "sad", "surprised", "angry")):
            task = asyncio.create_task(self._one(label))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            await asyncio.sleep(CUE_EVERY_S)

    async def settle(self) -> None:
        """Wait for the outcomes that are still to come, and count those that do not."""
        if self._open:
            await asyncio.wait(self._open, timeout=END_S)
        self._killed.unsettled = len(self._open)
        for task in self._open:
            task.cancel()

    async def _one(self, label: str) -> None:
        self._killed.events += 1
        try:
            cue = await self._producer.emotion(label, attack_ms=50, hold_ms=100, decay_ms=50)
            self._killed.outcomes[(await cue.ended).kind] += 1
        except ClientError as error:
            self._killed.outcomes[type(error).__name__] += 1


@asynccontextmanager
async def _load(url: str, killed: Killed) -> AsyncIterator[_Load]:
    async with (
        Producer(url, reconnect=SOON, max_pending=4096) as producer,
        Viewer(url, reconnect=SOON) as viewer,
    ):
        load = _Load(producer, viewer, killed)
        sending = asyncio.create_task(load.send())
        try:
            yield load
            sending.cancel()
            await load.settle()
        finally:
            sending.cancel()
            await asyncio.wait([sending])
