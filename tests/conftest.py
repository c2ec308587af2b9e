"""What every test gets: no leaked tasks, and as much time as a busy machine needs."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest_asyncio
from hypothesis import settings

settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

# As the command does, before anything imports numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest_asyncio.fixture(autouse=True)
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail an async test that leaves a task of its own running."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    assert not left, f"left running: {sorted(task.get_name() for task in left)}"
