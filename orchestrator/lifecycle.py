"""Signals, stop deadlines, the watchdog: how the process lives and ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from enum import IntEnum
from typing import Any, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger()


class ExitStatus(IntEnum):
    """sysexits.h; the unit file names those that are not worth a restart."""

    OK = 0
    USAGE = 64
    UNAVAILABLE = 69
    SOFTWARE = 70
    DEVICE_LOST = 75
    CONFIG = 78


@contextlib.contextmanager
def signals_to(stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop`, SIGHUP calls `reload`, until the block ends.

    Both are called in the event loop, `stop` once for every signal: it must not mind.
    """
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
            # The process is about to end: another signal must not take its exit status away.
            signal.signal(number, signal.SIG_IGN)


async def first_of(wanted: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Await something unless the stop comes first: then it is cancelled and None returned."""
    task = asyncio.ensure_future(wanted)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, stopped):
            if not each.done():
                each.cancel()
        await asyncio.wait({task, stopped})


async def stop_step(name: str, step: Awaitable[object], deadline_s: float) -> None:
    """Give one part of the stop its time; a failure or delay is logged and the stop goes on."""
    try:
        async with asyncio.timeout(deadline_s):
            await step
    except TimeoutError:
        log.warning("stop_step_late", step=name, deadline_s=deadline_s)
    except Exception:
        log.exception("stop_step_failed", step=name)


@contextlib.asynccontextmanager
async def running(name: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """A task for the length of the block; cancelled and awaited at its end."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def feed_watchdog(
    feed: Callable[[], None], alive: Callable[[], bool], interval_s: float
) -> None:
    """Call `feed` every `interval_s` seconds while `alive` says so."""
    while True:
        if alive():
            feed()
        await asyncio.sleep(interval_s)
