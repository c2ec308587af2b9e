"""Whether a daemon that was started again is what it was: seen by clients that came back."""

from __future__ import annotations

import asyncio
import time

from orchestrator.client import Producer, Reconnect, Viewer

SOON = Reconnect(first_s=0.05, limit_s=0.2)
MOOD_TOLERANCE = 0.1
RIGHT_S = 5.0
LOOK_S = 0.02


async def new_frame(viewer: Viewer, begun_ms: float) -> None:
    """Wait for a frame that was published after that moment (wall clock, milliseconds)."""
    while (await viewer.frame()).ts_ms < begun_ms:
        pass


async def as_before(producer: Producer, character: str, valence: float) -> bool:
    """Whether character and mood become those of before; a mood rises to it within a second."""
    until_s = time.monotonic() + RIGHT_S
    while time.monotonic() < until_s:
        state = await producer.get_state()
        near = abs(float(state["mood"]["valence"]) - valence) < MOOD_TOLERANCE
        if state["character"] == character and near:
            return True
        await asyncio.sleep(LOOK_S)
    return False
