"""How the process lives and ends: stops that come early, late or twice."""

import asyncio
import signal
import subprocess
import sys

import pytest

from orchestrator.lifecycle import feed_watchdog, first_of, running, stop_step


async def test_first_of_gives_the_result_or_yields_to_the_stop() -> None:
    """What is awaited wins unless the stop comes first; then it is cancelled."""
    stop = asyncio.Event()

    async def quick() -> str:
        return "done"

    assert await first_of(quick(), stop) == "done"
    cancelled = []

    async def slow() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return "never"

    asyncio.get_running_loop().call_soon(stop.set)
    assert await first_of(slow(), stop) is None
    assert cancelled == [True]


async def test_first_of_passes_errors_on() -> None:
    """A failure of what is awaited is not swallowed."""

    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await first_of(fails(), asyncio.Event())


async def test_a_stop_step_that_hangs_or_fails_does_not_hold_up_the_rest() -> None:
    """Each step has its deadline; an exception is logged and the stop goes on."""
    cancelled = []

    async def hangs() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(True)

    async def fails() -> None:
        raise RuntimeError("broken")

    await stop_step("hangs", hangs(), 0.01)
    await stop_step("fails", fails(), 1.0)
    assert cancelled == [True]


async def test_a_running_task_ends_with_its_block() -> None:
    """The task is cancelled and awaited, also when it fails."""

    async def fails() -> None:
        raise RuntimeError("broken")

    async with running("waits", asyncio.sleep(60)) as task:
        await asyncio.sleep(0)
        assert not task.done()
    assert task.cancelled()
    async with running("fails", fails()) as task:
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="broken"):
        task.result()


async def test_the_watchdog_is_fed_only_while_alive() -> None:
    """No progress, no food."""
    fed, alive = [], True

    async def feed() -> None:
        await feed_watchdog(lambda: fed.append(1), lambda: alive, 0.001)

    async with running("watchdog", feed()):
        while len(fed) < 3:  # noqa: ASYNC110 - counts what a callback does
            await asyncio.sleep(0.001)
        alive = False
        await asyncio.sleep(0.002)
        count = len(fed)
        await asyncio.sleep(0.02)
    assert len(fed) == count


def test_a_signal_after_the_stop_does_not_change_the_exit_status() -> None:
    """SIGTERM, SIGINT and SIGHUP while the interpreter shuts down leave the status as it is."""
    program = (
        "import asyncio, os, signal, sys\n"
        "from orchestrator.lifecycle import signals_to\n"
        "async def live():\n"
        "    stop = asyncio.Event()\n"
        "    with signals_to(stop.set, lambda: None):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        await stop.wait()\n"
        "asyncio.run(live())\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    os.kill(os.getpid(), number)\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
    assert done.returncode == 7, signal.Signals(-done.returncode)
