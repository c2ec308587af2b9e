"""The wall clock jumps."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import Scene

HOUR_S = 3600.0


async def _steps(scene: Scene) -> Seen:
    """An hour on, then two hours back, then right again; cues and saving go on."""
    for offset_s in (HOUR_S, -HOUR_S, 0.0):
        scene.daemon.tell(f"clock {offset_s}")
        answer = await scene.post(type="mood", valence=offset_s / 7200.0, arousal=0.0)
        assert answer.status_code < 300, answer.text

        async def stepped(wanted_s: float = offset_s) -> bool:
            header = await scene.frame_header()
            return bool(abs(header["ts_ms"] / 1000.0 - time.time() - wanted_s) < 10.0)

        await scene.until(stepped)
        await asyncio.sleep(0.5)
    return Seen("ts_ms of the frames", 0.0)


FAULTS = (Fault("wall clock an hour on, an hour back", _steps),)
