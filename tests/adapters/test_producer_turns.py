"""Many producers at once leave the event loop to others in between."""

import asyncio

import pytest

from adapters import producer
from adapters.producer import TURN_S, Turns

HANDLING_S = TURN_S / 2.0


async def test_others_get_the_loop_between_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many producers have messages waiting, a turn is no longer for that."""
    now_s, handled, between = 0.0, 0, [0]
    monkeypatch.setattr(producer.time, "perf_counter", lambda: now_s)

    def handle() -> None:
        nonlocal now_s, handled
        now_s += HANDLING_S
        handled += 1

    async def produce(turns: Turns) -> None:
        for _ in range(20):
            await turns.take(handle)

    async def do_everything_else() -> None:
        while handled < 200:
            before = handled
            await asyncio.sleep(0)
            between.append(handled - before)

    turns = Turns()
    await asyncio.gather(do_everything_else(), *(produce(turns) for _ in range(10)))
    assert handled == 200
    assert max(between) <= 2


async def test_a_message_that_fails_takes_no_turn_away() -> None:
    """Its error reaches whoever handed it in, and the next one is handled."""
    turns, handled = Turns(), []

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await turns.take(fail)
    await turns.take(lambda: handled.append(1))
    assert handled == [1]
