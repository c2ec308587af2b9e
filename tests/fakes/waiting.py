"""Waiting for what another thread is about to do."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail if it does not within ten seconds."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110 - threads have no asyncio.Event to set
            await asyncio.sleep(0.001)
