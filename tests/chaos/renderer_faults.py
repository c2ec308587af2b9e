"""The renderer raises, runs out of memory, draws nonsense, ends its thread, hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import Scene

FAILS_FOR_S = 1.0


def _told(order: str, *words: str) -> Callable[[Scene], Awaitable[Seen]]:
    """Tell it to fail like that for a while."""

    async def work(scene: Scene) -> Seen:
        scene.daemon.tell(order)
        reason = await scene.reason(*words)
        await asyncio.sleep(FAILS_FOR_S)
        assert (await scene.client.get("/health")).status_code == 200
        scene.daemon.tell("well")
        return Seen(f"/health: {reason}", await scene.well("media bridge"))

    return work


async def _slow(scene: Scene) -> Seen:
    """Each frame takes twice its deadline, then again as long as it should."""
    scene.daemon.tell("busy 0.16")
    reason = await scene.reason("no frame within")
    await asyncio.sleep(FAILS_FOR_S)
    scene.daemon.tell("well")
    return Seen(f"/health: {reason}", await scene.well("media bridge"))


FAULTS = (
    Fault("renderer raises", _told("raise", "told to fail")),
    Fault("renderer runs out of memory", _told("memory", "memory")),
    Fault("renderer draws the wrong shape", _told("shape", "(3, 3, 3)")),
    Fault("renderer ends its thread", _told("exit", "end the thread")),
    Fault("renderer hangs", _told("hang", "no frame within", "hangs")),
    Fault("renderer takes twice its deadline", _slow),
)
