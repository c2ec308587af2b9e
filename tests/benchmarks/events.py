"""From an event to the frames that show it, over real sockets."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.daemon import MeasuredDaemon, running_daemon
from tests.benchmarks.figures import percentile
from tests.benchmarks.machine import Cores, on_cores
from tests.benchmarks.parts import Options
from tests.benchmarks.table import Table
from tests.benchmarks.viewers import Viewers

FPS = 30.0
ANSWER_S = 20.0
AUDIENCES = (0, 100)
# Multiples of the golden ratio leave the smallest gaps between the phases of any number of
# events (H. Weyl's equidistribution; V. T. Sós 1958).
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of event.

    Attributes:
        name: for the table.
        labels: emotions, one after the other.
        fields: what else the message says.
    """

    name: str
    labels: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)


# Each emotion replaces another one that is fully there, so every change is a whole one.
CASES = (
    Case("default times", ("happy", "surprised")),
    Case("attack_ms 0", ("happy", "surprised"), {"attack_ms": 0}),
)


def run(options: Options) -> Iterator[Table]:
    """A producer, a viewer, and events at every phase of the frame clock; then a hundred more."""
    for viewers in AUDIENCES:
        yield _table(options, viewers)


def _table(options: Options, viewers: int) -> Table:
    others = f", {viewers} viewers" if viewers else ""
    table = Table(
        f"From sending an event, at {FPS:.0f} fps{others}: milliseconds",
        ("Event", "Until", "Events", "p50", "p95", "p99", "max"),
    )
    events = options.number(24, 200)
    cores = Cores.split()
    with (
        running_daemon(cores.measured) as daemon,
        Viewers(daemon.port, viewers, cores=cores.others) if viewers else nullcontext(),
        on_cores(cores.others),
    ):
        for case in CASES:
            seconds, attack_ms = uvloop.run(_measured(daemon, case, events))
            for (label, until), values in seconds.items():
                shares = (percentile(values, percent) * 1000.0 for percent in (50, 95, 99, 100))
                attack = case.fields.get("attack_ms", attack_ms[label])
                table.add(f"{label}, attack {attack} ms", until, len(values), *shares)
    table.notes.append(
        "Receipts carry the latency from receipt to publishing; a frame has arrived when a "
        "viewer on the same machine has all of it."
    )
    table.notes.append(f"Cores: {cores}.")
    return table


Seconds = dict[tuple[str, str], list[float]]


async def _measured(
    daemon: MeasuredDaemon, case: Case, events: int
) -> tuple[Seconds, dict[str, float]]:
    seconds: Seconds = defaultdict(list)
    url = f"{daemon.ws}/v1/events"
    async with connect(url) as producer, _arrivals(daemon) as arrivals:
        hello = json.loads(await producer.recv())
        attack_ms = {label: hello["emotions"][label]["attack_ms"] for label in case.labels}
        for number in range(-len(case.labels), events):
            label = case.labels[number % len(case.labels)]
            await asyncio.sleep((3 + number * GOLDEN % 1.0) / FPS)
            taken = await _one_event(producer, f"{case.name} {number}", label, case.fields)
            if number < 0:  # from a neutral face
                continue
            begun_s = taken.sent_s
            seconds[label, "accepted has come back"].append(taken.answered_s - begun_s)
            for step, receipt in taken.receipts.items():
                seconds[label, f"{step}: receipt"].append(receipt["latency_ms"] / 1000.0)
                arrived_s = await arrivals.of(receipt["seq"])
                seconds[label, f"{step}: frame arrived"].append(arrived_s - begun_s)
    return dict(sorted(seconds.items(), key=lambda item: case.labels.index(item[0][0]))), attack_ms


@dataclass(slots=True)
class _Taken:
    sent_s: float
    answered_s: float = 0.0
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)


async def _one_event(
    producer: ClientConnection, event_id: str, label: str, fields: Mapping[str, Any]
) -> _Taken:
    """Send it and wait until it has peaked."""
    message = {"type": "emotion", "id": event_id, "emotion": label, "hold_ms": None, **fields}
    text = json.dumps(message)
    taken = _Taken(time.monotonic())
    await producer.send(text)
    async with asyncio.timeout(ANSWER_S):
        while "peaked" not in taken.receipts:
            answer = json.loads(await producer.recv())
            if answer.get("id") != event_id:
                continue
            match answer["type"]:
                case "emotion.accepted":
                    taken.answered_s = time.monotonic()
                case "emotion.started" | "emotion.peaked":
                    taken.receipts[answer["type"].removeprefix("emotion.")] = answer
                case other:
                    raise RuntimeError(f"expected to see {label} peak, but got {other}: {answer}")
    return taken


class _Arrivals:
    """When each frame had arrived."""

    def __init__(self) -> None:
        self._at_s: dict[int, float] = {}
        self._more = asyncio.Event()

    def note(self, message: bytes) -> None:
        at_s = time.monotonic()
        length = int.from_bytes(message[4:8], "little")
        self._at_s[json.loads(message[8 : 8 + length])["seq"]] = at_s
        self._more.set()

    async def of(self, seq: int) -> float:
        """Wait for it if need be; monotonic seconds."""
        async with asyncio.timeout(ANSWER_S):
            while seq not in self._at_s:
                self._more.clear()
                await self._more.wait()
        return self._at_s[seq]


@asynccontextmanager
async def _arrivals(daemon: MeasuredDaemon) -> Any:
    arrivals = _Arrivals()
    async with connect(f"{daemon.ws}/v1/frames", max_size=None, compression=None) as viewer:

        async def watch() -> None:
            async for message in viewer:
                assert isinstance(message, bytes)
                arrivals.note(message)

        watching = asyncio.create_task(watch())
        try:
            yield arrivals
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
