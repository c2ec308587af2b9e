"""The wall clock jumps."""

from __future__ import annotations

import time
from typing import Final

from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import Scene

HOUR_S: Final = 3600
SOON_S: Final = 10.0


async def _steps(scene: Scene) -> Seen:
    """An hour on, then two hours back, then right again; frames and periodic work go on."""
    took_s = []
    for offset_s in (HOUR_S, -HOUR_S, 0):
        scene.daemon.tell(f"clock {offset_s}")
        begun_s = time.monotonic()

        async def stepped(wanted_s: float = offset_s) -> bool:
            header = await scene.frame_header()
            return bool(abs(header["ts_ms"] / 1000.0 - time.time() - wanted_s) < SOON_S)

        await scene.until(stepped)
        answer = await scene.post(type="mood", valence=offset_s / 7200.0, arousal=0.0)
        assert answer.status_code < 300, answer.text
        reports = len(scene.daemon.logged("figures"))

        async def reported(before: int = reports) -> bool:
            return len(scene.daemon.logged("figures")) > before + 1

        await scene.until(reported)
        took_s.append(time.monotonic() - begun_s)
        assert took_s[-1] < SOON_S, took_s
    noted = [round(line["by_s"] / HOUR_S) for line in scene.daemon.logged("wall_clock_set")]
    assert noted == [1, -2, 1], noted
    return Seen("log: wall_clock_set, by an hour, two hours back, an hour", max(took_s))


FAULTS = (Fault("wall clock an hour on, an hour back", _steps),)
