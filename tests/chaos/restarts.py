"""The renderer is gone for good: the daemon ends, and is started again as systemd would do it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from orchestrator.client import Producer, Viewer
from tests.chaos.after_restart import SOON, as_before, new_frame
from tests.chaos.scene import FAULTY, HANG_S, environment, free_port, furnish
from tests.fakes.daemon import DaemonProcess

DEVICE_LOST = 75
CUE_EVERY_S = 0.05
BUSY_S = 0.5
PATIENCE_S = 60.0
VALENCE = -0.625


@dataclass(frozen=True, slots=True)
class Loss:
    """A way to lose the renderer.

    Attributes:
        name: for the table.
        order: what the renderer does from then on; see `tests.chaos.faulty`.
    """

    name: str
    order: str


@dataclass(frozen=True, slots=True)
class Restart:
    """One loss, and what came after it.

    Attributes:
        status: with which the daemon ended.
        reason: what its log said last.
        end_s: from the loss to the end of the process.
        back_s: from the new start until a viewer that stayed has a frame of it.
        kept: character and mood are those of before.
        events: sent all the while.
        outcomes: how each ended at the producer.
    """

    status: int
    reason: str
    end_s: float
    back_s: float
    kept: bool
    events: int
    outcomes: Counter[str]


async def lose(loss: Loss) -> Restart:
    """Do it once."""
    with tempfile.TemporaryDirectory(prefix="avatar-chaos-") as name:
        folder = Path(name)
        furnish(folder)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        first = await asyncio.to_thread(_started, folder, port)
        try:
            async with (
                Producer(url, reconnect=SOON) as producer,
                Viewer(url, reconnect=SOON) as viewer,
            ):
                return await _lose(loss, first, lambda: _started(folder, port), producer, viewer)
        finally:
            await asyncio.to_thread(first.stop)


async def _lose(
    loss: Loss,
    first: DaemonProcess,
    start_again: Callable[[], DaemonProcess],
    producer: Producer,
    viewer: Viewer,
) -> Restart:
    await producer.character("two")
    await producer.mood(VALENCE, 0.0, decay_ms=3_600_000.0)
    events: list[asyncio.Task[str]] = []
    sending = asyncio.create_task(_send(producer, events))
    try:
        await asyncio.sleep(BUSY_S)
        begun_s = time.monotonic()
        first.tell(loss.order)
        status = await asyncio.to_thread(first.wait, PATIENCE_S)
        end_s = time.monotonic() - begun_s
        begun_s, begun_ms = time.monotonic(), time.time() * 1000.0
        second = await asyncio.to_thread(start_again)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await new_frame(viewer, begun_ms)
                back_s = time.monotonic() - begun_s
                kept = await as_before(producer, "two", VALENCE)
                sending.cancel()
                outcomes = Counter(await asyncio.gather(*events))
        finally:
            await asyncio.to_thread(second.stop)
    finally:
        sending.cancel()
        for event in events:
            event.cancel()
    (last,) = first.logged("ending_because_of_device")
    return Restart(status, last["reason"], end_s, back_s, kept, len(events), outcomes)


def _started(folder: Path, port: int) -> DaemonProcess:
    environ = environment(folder) | {
        "AVATAR_SERVER__PORT": str(port),
        "AVATAR_RENDERER__HANG_S": str(HANG_S),
    }
    return DaemonProcess(folder / "state", python=FAULTY, **environ).__enter__()


async def _send(producer: Producer, events: list[asyncio.Task[str]]) -> None:
    """One cue after the other, whether there is a daemon or not."""
    for label in cycle(("happy", "sad", "surprised")):
        events.append(asyncio.create_task(_outcome(producer, label)))
        await asyncio.sleep(CUE_EVERY_S)


async def _outcome(producer: Producer, label: str) -> str:
    cue = await producer.emotion(label, attack_ms=50, hold_ms=100, decay_ms=50)
    return (await cue.ended).kind


LOSSES = (
    Loss("the device is lost in the middle of a frame", "lost"),
    Loss("one frame after the other hangs", "hang"),
)
