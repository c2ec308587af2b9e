"""`python -m tests.chaos.soak`: a long time under load, and what it left behind.

Viewers come and go, producers send cues steadily and in bursts and come anew, a MediaBridge flaps,
characters change. The daemon has a core for itself where there are two. Its figures are looked at
after the warm-up and at the end, both times with the load taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.benchmarks.daemon import MeasuredDaemon, Window
from tests.benchmarks.machine import Cores, described, on_cores
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Viewers, handshake
from tests.chaos.scene import environment, free_port, furnish
from tests.chaos.watch import ENDINGS, Received
from tests.fakes.daemon import DaemonProcess
from tests.fakes.media_bridge import FakeMediaBridge

STAYING = 20
COMING_AND_GOING = 80
STAY_S = (0.5, 10.0)
CUES_PER_S = 20.0
BURST = 40
BURST_EVERY_S = 10.0
BRIDGE_UP_S = (2.0, 8.0)
BRIDGE_DOWN_S = (0.2, 2.0)
CHARACTER_EVERY_S = 15.0
PRODUCER_EVERY_S = 30.0
LOOK_EVERY_S = 5.0
TELL_EVERY_S = 60.0
WARM_UP_SHARE = 1.0 / 12.0  # five minutes of an hour
LEAST_WARM_UP_S = 60.0
SETTLE_S = 12.0
CACHE_BYTES = 32 * 2**20  # so that it is full when the warm-up is over
GROWTH = 0.01
LONGEST_MS = 100.0
MIB = 2.0**20
GOODBYE = b"\x88\x82\0\0\0\0\x03\xe8"  # RFC 6455, section 5.5.1: 1000, masked with zeros
GOODBYE_S = 2.0


@dataclass(slots=True)
class Cues:
    """What became of the cues."""

    accepted: set[str] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    @property
    def unended(self) -> int:
        return len(self.accepted - set(self.ended))

    @property
    def twice(self) -> int:
        return sum(number > 1 for number in self.ended.values())


@dataclass(frozen=True, slots=True)
class Rest:
    """The daemon with nobody there."""

    rss: float
    cache: float
    threads: int
    files: int
    tasks: int

    @classmethod
    def of(cls, daemon: MeasuredDaemon) -> Rest:
        process = psutil.Process(daemon.process.process.pid)
        figures = daemon.scrape()
        return cls(
            daemon.rss_bytes() / MIB,
            figures.total("cache_bytes") / MIB,
            daemon.threads(),
            process.num_fds(),
            int(figures.total("event_loop_tasks")),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Load a daemon and look at it.

    Returns:
        1 if something was lost or left behind.
    """
    parser = argparse.ArgumentParser(prog="make soak SOAK=...", description=__doc__)
    parser.add_argument(
        "--minutes", type=_minutes, default=60.0,
        help="how long in all, a twelfth and a minute at least to warm up (default: 60)",
    )  # fmt: skip
    parser.add_argument("--markdown", action="store_true", help="tables ready for the README")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="avatar-soak-") as folder:
        table, failures = uvloop.run(_soak(Path(folder), options.minutes * 60.0))
    for each in (described(), table):
        sys.stdout.write(f"{each.markdown() if options.markdown else each.text()}\n")
    for failure in failures:
        sys.stdout.write(f"NOT AS IT SHOULD BE: {failure}\n")
    return int(bool(failures))


def _minutes(text: str) -> float:
    minutes = float(text)
    if not LEAST_WARM_UP_S / 60.0 < minutes < math.inf:
        raise argparse.ArgumentTypeError("expected more than 1, the first of which is the warm-up")
    return minutes


async def _soak(folder: Path, seconds: float) -> tuple[Table, list[str]]:
    furnish(folder)
    bridge_port = free_port()
    settings = environment(folder) | {
        "AVATAR_CACHE__MAX_BYTES": str(CACHE_BYTES),
        "AVATAR_MEDIA_BRIDGE__URL": f"ws://127.0.0.1:{bridge_port}/ingest",
    }
    cores = Cores.split()
    process = await asyncio.to_thread(_started, folder, cores.measured, settings)
    try:
        daemon = MeasuredDaemon(process)
        warm_up_s = max(LEAST_WARM_UP_S, WARM_UP_SHARE * seconds)
        seconds -= warm_up_s
        with on_cores(cores.others):
            await _loaded(daemon, bridge_port, warm_up_s, Cues())
            before = await _at_rest(daemon)
            cues, received = Cues(), Received()
            viewers = await asyncio.to_thread(
                Viewers(daemon.port, STAYING, watched=STAYING).__enter__
            )
            try:
                window = await asyncio.to_thread(Window, daemon)
                await asyncio.to_thread(viewers.mark)
                looking = asyncio.create_task(_look(daemon, viewers, received, cues))
                await _loaded(daemon, bridge_port, seconds, cues)
                looking.cancel()
                await asyncio.wait([looking])
                await asyncio.to_thread(window.end)
            finally:
                viewers.__exit__()
            after = await _at_rest(daemon)
    finally:
        status = await asyncio.to_thread(process.stop)
    intervals = window.observed("frame_interval_deviation_seconds")
    growth = after.rss / before.rss - 1.0
    table = Table(f"{seconds / 60.0:g} minutes under load", ("What", "Figure", "At most"))
    table.add("frames at the healthy viewer that got fewest", received.fewest, None)
    table.add("frames missed by healthy viewers", received.missed, 0)
    table.add("ticks without a frame", window.counted("ticks_skipped_total"), None)
    table.add("longest interval at a healthy viewer, ms", received.longest_ms, LONGEST_MS)
    table.add("deviation of the interval p50, ms", intervals.quantile(0.5) * 1000.0, None)
    table.add("deviation of the interval p99, ms", intervals.quantile(0.99) * 1000.0, None)
    started = window.observed("event_to_started_seconds")
    table.add("event to started p99, ms", started.quantile(0.99) * 1000.0, None)
    table.add("cues accepted", len(cues.accepted), None)
    table.add("cues without an ending", cues.unended, 0)
    table.add("cues with more than one", cues.twice, 0)
    table.add(
        "times the MediaBridge came back", window.counted("media_bridge_reconnects_total"), None
    )
    table.add("memory (RSS) at rest after the warm-up, MiB", before.rss, None)
    table.add("memory at rest after the load, MiB", after.rss, before.rss * (1.0 + GROWTH))
    table.add("growth, %", 100.0 * growth, 100.0 * GROWTH)
    table.add(
        "of it frame cache, MiB, before and after", f"{before.cache:.0f}, {after.cache:.0f}", None
    )
    table.add("threads at rest, before and after", f"{before.threads}, {after.threads}", None)
    table.add("open files at rest, before and after", f"{before.files}, {after.files}", None)
    table.add("tasks at rest, before and after", f"{before.tasks}, {after.tasks}", None)
    table.add("daemon's processor time, % of a core", 100.0 * window.cpu, None)
    table.add("its event loop kept from running by others, %", 100.0 * window.waited, None)
    table.add("warnings and errors in its log", _alarms(process), None)
    table.add("exit status", status, 0)
    table.notes.append(
        f"{STAYING} viewers that stay and {COMING_AND_GOING} that come and go, {CUES_PER_S:g} cues "
        f"a second and {BURST} at once every {BURST_EVERY_S:g} s, a frame cache of "
        f"{CACHE_BYTES / MIB:g} MiB; after {warm_up_s:.0f} s of warm-up."
    )
    table.notes.append(f"Cores: {cores}. Load average at the end: {os.getloadavg()[0]:.1f}.")
    checks = {
        f"{received.missed} frames missed": received.missed > 0,
        f"an interval of {received.longest_ms:.0f} ms": received.longest_ms > LONGEST_MS,
        f"{cues.unended} cues did not end, {cues.twice} ended twice": cues.unended + cues.twice > 0,
        f"memory grew by {growth:.1%}": growth > GROWTH,
        f"threads: {before.threads}, then {after.threads}": after.threads > before.threads,
        f"open files: {before.files}, then {after.files}": after.files > before.files,
        f"tasks: {before.tasks}, then {after.tasks}": after.tasks > before.tasks,
        f"exit status {status}": status != 0,
    }
    return table, [failure for failure, wrong in checks.items() if wrong]


def _started(folder: Path, cores: Collection[int], settings: dict[str, str]) -> DaemonProcess:
    with on_cores(cores):
        return DaemonProcess(folder / "state", **settings).__enter__()


def _alarms(process: DaemonProcess) -> str:
    """How many lines of each kind; those that say the MediaBridge is away were asked for."""
    alarms = Counter(
        str(line["event"])
        for line in process.log
        if line.get("level") in ("warning", "error", "critical")
    )
    return ", ".join(f"{number} {event}" for event, number in alarms.most_common()) or "none"


async def _at_rest(daemon: MeasuredDaemon) -> Rest:
    await asyncio.sleep(SETTLE_S)
    return await asyncio.to_thread(Rest.of, daemon)


async def _look(daemon: MeasuredDaemon, viewers: Viewers, received: Received, cues: Cues) -> None:
    """Fold what the viewers that stay have seen, and say now and then how it goes."""
    begun_s = told_s = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        received.add((await asyncio.to_thread(viewers.take)).arrivals)
        now_s = time.monotonic()
        if now_s - told_s >= TELL_EVERY_S:
            told_s = now_s
            sys.stderr.write(
                f"[{(now_s - begun_s) / 60.0:.0f} min: {daemon.rss_bytes() / MIB:.1f} MiB, "
                f"{received.fewest} frames, {received.missed} missed, longest interval "
                f"{received.longest_ms:.0f} ms, {len(cues.accepted)} cues]\n"
            )


async def _loaded(daemon: MeasuredDaemon, bridge_port: int, seconds: float, cues: Cues) -> None:
    """Everything at once for so long; all of it is gone afterwards."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            for number in range(COMING_AND_GOING):
                tasks.create_task(_come_and_go(daemon, random.Random(number)))
            tasks.create_task(_flap(bridge_port, random.Random(0)))
            tasks.create_task(_produce(daemon, cues))


class _Passing(asyncio.BufferedProtocol):
    """A viewer that takes whatever comes and looks at none of it."""

    _taken = bytearray(2**18)

    def __init__(self) -> None:
        self.over = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._taken

    def buffer_updated(self, nbytes: int) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def _come_and_go(daemon: MeasuredDaemon, chance: random.Random) -> None:
    """Watch for a while, leave with a goodbye or without, come again."""
    loop = asyncio.get_running_loop()
    while True:
        transport, passing = await loop.create_connection(_Passing, "127.0.0.1", daemon.port)
        try:
            transport.write(handshake("127.0.0.1", daemon.port))
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.uniform(*STAY_S)):
                    await asyncio.shield(passing.over)
            if chance.random() < 0.5:
                transport.write(GOODBYE)
                with suppress(TimeoutError):
                    async with asyncio.timeout(GOODBYE_S):
                        await asyncio.shield(passing.over)
        finally:
            transport.abort()
        await asyncio.sleep(chance.uniform(0.0, 1.0))


async def _flap(port: int, chance: random.Random) -> None:
    bridge = FakeMediaBridge(port=port)
    try:
        while True:
            await bridge.come_back()
            await asyncio.sleep(chance.uniform(*BRIDGE_UP_S))
            await bridge.go_away()
            bridge.received.clear()
            await asyncio.sleep(chance.uniform(*BRIDGE_DOWN_S))
    finally:
        await bridge.go_away()


async def _produce(daemon: MeasuredDaemon, cues: Cues) -> None:
    names = cycle(("two", "one"))
    switching = _Every(CHARACTER_EVERY_S)
    bursting = _Every(BURST_EVERY_S)
    while True:
        async with connect(f"{daemon.ws}/v1/events") as producer:
            listening = asyncio.create_task(_listen(producer, cues))
            labels = cycle(("happy", "sad", "surprised", "angry"))
            begun_s, sent = time.monotonic(), 0
            try:
                while (now_s := time.monotonic()) < begun_s + PRODUCER_EVERY_S:
                    due = int((now_s - begun_s) * CUES_PER_S) - sent
                    for number in range(due + BURST * bursting.due(now_s)):
                        name = f"{begun_s}-{now_s}-{number}"
                        cue = {"type": "emotion", "id": name, "emotion": next(labels)}
                        await producer.send(json.dumps(cue | {"hold_ms": 100, "decay_ms": 200}))
                    sent += due
                    if switching.due(now_s):
                        switch = {"type": "character", "character": next(names)}
                        await producer.send(json.dumps(switch))
                    await asyncio.sleep(0.02)
            finally:
                await _wait_for_endings(cues)
                listening.cancel()
                await asyncio.wait([listening])


class _Every:
    """Something that happens every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last_s = time.monotonic()

    def due(self, now_s: float) -> bool:
        """It is time again."""
        if now_s - self._last_s < self._seconds:
            return False
        self._last_s = now_s
        return True


async def _wait_for_endings(cues: Cues) -> None:
    until_s = time.monotonic() + 10.0
    while cues.unended and time.monotonic() < until_s:  # noqa: ASYNC110 - a set has no event
        await asyncio.sleep(0.05)


async def _listen(producer: ClientConnection, cues: Cues) -> None:
    with suppress(ConnectionClosed):
        async for text in producer:
            message = json.loads(text)
            if message["type"] == "emotion.accepted":
                cues.accepted.add(message["id"])
            elif message["type"] == "emotion.rejected":
                cues.refused += 1
            elif message["type"] in ENDINGS:
                cues.ended[message["id"]] += 1


if __name__ == "__main__":
    sys.exit(main())
