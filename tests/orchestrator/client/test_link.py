"""Coming back: the delays, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection

from orchestrator.client.link import Link, LinkState, Reconnect
from tests.fakes.events_server import FakeDaemon


@given(st.integers(0, 10_000), st.floats(0.0, 1.0, exclude_max=True))
def test_delays_are_bounded_and_grow(failures: int, chance: float) -> None:
    """Each is between half and the whole of one that doubles up to the limit."""
    reconnect = Reconnect(first_s=0.25, limit_s=10.0)
    delay_s = reconnect.delay_s(failures, chance)
    whole_s = min(10.0, 0.25 * 2 ** min(failures, 10))
    assert whole_s / 2 <= delay_s <= whole_s


@pytest.mark.parametrize(("first_s", "limit_s"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_delays_that_are_none(first_s: float, limit_s: float) -> None:
    """A client that never waits would be a flood."""
    with pytest.raises(ValueError, match="first_s"):
        Reconnect(first_s, limit_s)


async def test_delays_grow_until_the_daemon_proves_well() -> None:
    """A handshake alone does not make the next delay short again; a sensible word does."""
    slept: list[float] = []
    greeting = False
    times_up = asyncio.Event()

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        await asyncio.sleep(0)
        if len(slept) >= 8:
            times_up.set()
            await asyncio.Event().wait()

    async def serve(_: ClientConnection) -> None:
        if greeting:
            link.proved()

    async with FakeDaemon() as daemon:
        link = Link(
            daemon.url.replace("http", "ws") + "/v1/frames",
            token=None,
            ssl=None,
            max_bytes=1000,
            serve=serve,
            failed=pytest.fail,
            reconnect=Reconnect(first_s=1.0, limit_s=4.0),
            sleep=sleep,
            chance=lambda: 0.0,
        )
        opening = asyncio.create_task(link.open(None))
        await daemon.until(lambda: daemon.accepted > 4)
        greeting = True
        await opening
        await times_up.wait()
        assert link.state is LinkState.WAITING
        await link.close()
    assert slept[:4] == [0.5, 1.0, 2.0, 2.0]
    assert slept[-1] == 0.5
    assert link.state is LinkState.CLOSED


async def test_a_failure_while_closing_does_not_keep_it_open() -> None:
    """Whatever goes wrong at the end of a connection, the link ends, too."""
    serving = asyncio.Event()

    async def serve(_: ClientConnection) -> None:
        link.proved()
        serving.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("as it was being closed")

    async with FakeDaemon() as daemon:
        link = Link(
            daemon.url.replace("http", "ws") + "/v1/frames",
            token=None,
            ssl=None,
            max_bytes=1000,
            serve=serve,
            failed=pytest.fail,
            reconnect=Reconnect(),
        )
        await link.open(None)
        await serving.wait()
        async with asyncio.timeout(5):
            await link.close()
        assert daemon.accepted == 1
