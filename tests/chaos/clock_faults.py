"""The wall clock jumps."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Final

from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import Scene

HOUR_S: Final = 3600
SOON_S: Final = 10.0


def _set(*offsets_s: int) -> Callable[[Scene], Awaitable[Seen]]:
    """Set it to so much more than the real one, in turn; frames and periodic work go on."""

    async def work(scene: Scene) -> Seen:
        before = len(scene.daemon.logged("wall_clock_set"))
        took_s = [await _set_once(scene, offset_s) for offset_s in offsets_s]
        noted = [round(line["by_s"] / HOUR_S) for line in scene.daemon.logged("wall_clock_set")]
        steps = [(to - of) // HOUR_S for of, to in pairwise((0, *offsets_s))]
        assert noted[before:] == steps, noted
        return Seen(f"log: wall_clock_set, by {', '.join(map(str, steps))} hours", max(took_s))

    return work


async def _set_once(scene: Scene, offset_s: int) -> float:
    """Seconds until figures, which come at intervals, have come again twice."""
    scene.daemon.tell(f"clock {offset_s}")
    begun_s = time.monotonic()

    async def stepped() -> bool:
        header = await scene.frame_header()
        return bool(abs(header["ts_ms"] / 1000.0 - time.time() - offset_s) < SOON_S)

    await scene.until(stepped)
    answer = await scene.post(type="mood", valence=offset_s / 7200.0, arousal=0.0)
    assert answer.status_code < 300, answer.text
    reports = len(scene.daemon.logged("figures"))

    async def reported() -> bool:
        return len(scene.daemon.logged("figures")) > reports + 1

    await scene.until(reported)
    took_s = time.monotonic() - begun_s
    assert took_s < SOON_S
    return took_s


FAULTS = (
    Fault("wall clock an hour on, then an hour back", _set(HOUR_S, -HOUR_S, 0)),
    Fault("wall clock an hour back", _set(-HOUR_S)),
)
