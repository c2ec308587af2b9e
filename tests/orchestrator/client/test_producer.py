"""The client's producer against a daemon that misbehaves to order, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.client import (
    AddressError,
    ClosedError,
    ConnectError,
    EmotionRejected,
    Ended,
    FullError,
    NotShownError,
    Producer,
    ReceiptLostError,
    Reconnect,
    RequestError,
)
from tests.fakes.events_server import FakeDaemon, Message, ended, shown, text_clean

SOON = Reconnect(first_s=0.01, limit_s=0.02)


@pytest.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with FakeDaemon() as running:
        yield running


def producer_of(daemon: FakeDaemon, **options: Any) -> Producer:
    return Producer(daemon.url, **{"reconnect": SOON, "close_timeout_s": 0.1} | options)


def nothing(_: Message) -> list[Message]:
    return []


async def test_receipts_come_as_awaitables(daemon: FakeDaemon) -> None:
    """Accepted at once, then each receipt when it comes, and again for who asks later."""
    async with producer_of(daemon) as producer:
        cue = await producer.emotion("happy", 0.7, id="e1", hold_ms=None)
        assert cue.accepted is not None
        assert (cue.id, cue.emotion, cue.intensity) == ("e1", "happy", 0.7)
        assert not cue.started.known
        await daemon.say(shown("started", "e1", 5), shown("peaked", "e1", 9))
        assert (await cue.started).seq == 5
        assert (await cue.peaked).seq == 9
        await daemon.say(ended("finished", "e1"))
        assert await cue.ended == await cue.ended
        assert (await cue.ended).kind == "finished"
    (sent,) = daemon.of("emotion")
    assert sent["hold_ms"] is None
    assert "attack_ms" not in sent


async def test_a_cue_that_ends_early_says_so(daemon: FakeDaemon) -> None:
    """Who waits for the start of a superseded or expired cue is told how it ended."""
    async with producer_of(daemon) as producer:
        one = await producer.emotion("happy", id="one")
        two = await producer.emotion("happy", id="two")
        await daemon.say(shown("started", "one", 5), ended("superseded", "one", by="two"))
        await daemon.say(ended("expired", "two"))
        with pytest.raises(NotShownError, match="superseded by 'two' before it had peaked"):
            await one.peaked
        assert (await one.started).seq == 5
        assert await one.ended == Ended(kind="superseded", by="two", seq=99, pts_ms=99.0)
        with pytest.raises(NotShownError) as raised:
            await two.started
        assert raised.value.ended == await two.ended == Ended(kind="expired")


async def test_a_rejection_is_typed(daemon: FakeDaemon) -> None:
    """It carries all that the daemon says, and the producer goes on."""
    error = {"code": "unknown_emotion", "message": "no", "field": "emotion", "suggestions": ["sad"]}
    async with producer_of(daemon) as producer:
        daemon.answer = lambda m: [{"type": "emotion.rejected", "id": m["id"], "error": error}]
        with pytest.raises(EmotionRejected) as raised:
            await producer.emotion("sda", id="a")
        refusal = raised.value
        assert (refusal.code, refusal.message) == ("unknown_emotion", "no")
        assert (refusal.field, refusal.suggestions) == ("emotion", ("sad",))
        daemon.answer = lambda m: [{"type": "error", "id": m["id"], "error": error}]
        with pytest.raises(RequestError):
            await producer.character("nobody")
        daemon.answer = daemon.usual_answer
        await producer.emotion("happy", id="a")  # a rejected id is free


async def test_everything_unsettled_is_sent_again(daemon: FakeDaemon) -> None:
    """After a cut: what was unanswered and what has not ended, same bodies, same order."""
    async with producer_of(daemon) as producer:
        over = await producer.emotion("happy", id="over")
        await daemon.say(ended("finished", "over"))
        await over.ended
        running = await producer.emotion("happy", id="running")
        daemon.answer = nothing
        asked = asyncio.create_task(producer.emotion("happy", id="asked"))
        state = asyncio.create_task(producer.state("speaking"))
        await daemon.until_received("state")
        before = daemon.received.copy()
        daemon.received.clear()
        daemon.answer = daemon.usual_answer
        daemon.drop()
        assert (await asked).id == "asked"
        await state
        assert daemon.received == before[1:]
        await daemon.say(shown("started", "running", 7))
        assert (await running.started).seq == 7


async def test_receipts_that_were_lost_are_heard_after_the_reconnect(daemon: FakeDaemon) -> None:
    """The daemon repeats them for a cue that comes again; those known already change nothing."""
    async with producer_of(daemon) as producer:
        cue = await producer.emotion("happy", id="e")
        await daemon.say(shown("started", "e", 1))
        await cue.started
        repeated = [shown("started", "e", 1), shown("peaked", "e", 4), ended("finished", "e")]
        usual = daemon.usual_answer
        daemon.answer = lambda m: usual(m) + repeated
        daemon.drop()
        assert (await cue.ended).kind == "finished"
        assert (await cue.started).seq == 1
        assert (await cue.peaked).seq == 4


async def test_waiting_for_a_daemon_that_is_away(daemon: FakeDaemon) -> None:
    """What is asked meanwhile goes out when it is back; what was given up on does not."""
    async with producer_of(daemon) as producer:
        await daemon.go_away()
        while producer.connected:  # noqa: ASYNC110 - it says so to nobody
            await asyncio.sleep(0.001)
        given_up = asyncio.create_task(producer.emotion("happy", id="given up"))
        kept = asyncio.create_task(producer.emotion("happy", id="kept"))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        again = asyncio.create_task(producer.emotion("happy", id="given up"))
        await asyncio.sleep(0)
        again.cancel()
        await daemon.come_back()
        assert (await kept).id == "kept"
        assert [message["id"] for message in daemon.received] == ["kept"]


async def test_giving_up_on_a_receipt_takes_it_from_nobody(daemon: FakeDaemon) -> None:
    """A cancelled wait leaves the receipt to those who wait on."""
    async with producer_of(daemon) as producer:
        cue = await producer.emotion("happy", id="e")

        async def wait() -> int:
            return (await cue.started).seq

        one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        one.cancel()
        await daemon.say(shown("started", "e", 3))
        assert await other == 3
        assert one.cancelled()


async def test_an_interrupt_that_arrived_is_not_sent_again(daemon: FakeDaemon) -> None:
    """It would end what was asked for after it; one that did not arrive is sent, in its place."""
    async with producer_of(daemon) as producer:
        daemon.answer = nothing
        first = asyncio.create_task(producer.interrupt())
        later = asyncio.create_task(producer.emotion("happy", id="later"))
        await daemon.until_received("emotion")
        daemon.received.clear()

        def has_it(message: Message) -> list[Message]:
            if message["type"] == "get_state":
                cues = [{"id": "later"}]
                return [{"type": "state_snapshot", "id": None, "cues": cues, "queue": []}]
            return daemon.usual_answer(message)

        daemon.answer = has_it
        daemon.drop()
        await later
        with pytest.raises(ReceiptLostError):
            await first
        assert [message["type"] for message in daemon.received] == ["get_state", "emotion"]

        daemon.answer = nothing
        second = asyncio.create_task(producer.interrupt())
        await daemon.until_received("interrupt")
        daemon.received.clear()
        done = {"type": "interrupt.done", "superseded": ["later"], "seq": 8, "pts_ms": 1.0}

        def lost_it(message: Message) -> list[Message]:
            if message["type"] == "interrupt":
                return [done | {"id": message["id"], "latency_ms": 5}]
            return daemon.usual_answer(message)

        daemon.answer = lost_it
        daemon.drop()
        assert (await second).superseded == ("later",)


async def test_full_is_said_at_once(daemon: FakeDaemon) -> None:
    """Beyond the bound nothing is taken; an ended cue makes room."""
    async with producer_of(daemon, max_pending=2) as producer:
        one = await producer.emotion("happy", id="one")
        await producer.emotion("happy", id="two")
        with pytest.raises(FullError, match="max_pending"):
            await producer.emotion("happy", id="three")
        assert len(daemon.of("emotion")) == 2
        await daemon.say(ended("finished", "one"))
        await one.ended
        await producer.emotion("happy", id="three")


async def test_a_burst_stays_below_the_daemons_limit(daemon: FakeDaemon) -> None:
    """200 at once and 200 a second are taken; a tight loop goes out more slowly than that."""
    arrived_s: list[float] = []

    def answer(message: Message) -> list[Message]:
        arrived_s.append(asyncio.get_running_loop().time())
        return daemon.usual_answer(message)

    daemon.answer = answer
    async with producer_of(daemon) as producer:
        for _ in range(210):
            await producer.state("idle")
    assert arrived_s[-1] - arrived_s[0] > 1.0


async def test_closing_resolves_everything(daemon: FakeDaemon) -> None:
    """Answers get their time, and then every awaitable raises ClosedError; so do new calls."""
    async with producer_of(daemon) as producer:
        cue = await producer.emotion("happy", id="e")
        daemon.answer = nothing
        asked = asyncio.create_task(producer.state("idle"))
        answered = asyncio.create_task(producer.mood(0.5))
        (mood,) = await daemon.until_received("mood")
        closing = asyncio.create_task(producer.close(0.2))
        await daemon.say({"type": "mood.ok", "id": mood["id"]})
        await closing
    await answered
    for waiting in (asked, cue.started, cue.peaked, cue.ended):
        with pytest.raises(ClosedError):
            await waiting
    with pytest.raises(ClosedError):
        await producer.ping()
    await daemon.until(lambda: not daemon.connections)


async def test_a_daemon_that_refuses(daemon: FakeDaemon) -> None:
    """Its own words and status, at once; where nobody listens, after the time that it has."""
    daemon.refuse = 401, json.dumps({"error": {"code": "unauthorized", "message": "a token!"}})
    with pytest.raises(ConnectError, match="a token!") as raised:
        async with producer_of(daemon):
            pass
    assert (raised.value.status, raised.value.refused) == (401, True)
    assert len(daemon.requests) == 1
    await daemon.go_away()
    with pytest.raises(ConnectError) as nobody:
        async with producer_of(daemon, open_timeout_s=0.1):
            pass
    assert not nobody.value.refused


async def test_a_daemon_that_turns_it_away_later(daemon: FakeDaemon) -> None:
    """A producer whose token has become wrong stops trying, and everything says why."""
    async with producer_of(daemon) as producer:
        cue = await producer.emotion("happy")
        daemon.refuse = 401, "{}"
        daemon.drop()
        with pytest.raises(ConnectError, match="401"):
            await cue.ended
        with pytest.raises(ConnectError):
            await producer.ping()


async def test_it_keeps_trying_while_the_daemon_is_busy(daemon: FakeDaemon) -> None:
    """503 is no reason to give up."""
    daemon.refuse = 503, ""
    opening = asyncio.create_task(producer_of(daemon).__aenter__())
    await daemon.until(lambda: len(daemon.requests) > 2)
    daemon.refuse = None
    producer = await opening
    assert await producer.ping() >= 0.0
    await producer.close()


async def test_token_and_stage(daemon: FakeDaemon) -> None:
    """The token goes into the header, the stage into the query; the hello is there."""
    async with producer_of(daemon, token="s3cret", stage="a b") as producer:
        assert producer.hello.server == "fake/0"
        assert producer.hello.emotions["happy"].aliases == ("joy",)
    assert daemon.requests == [("/v1/events?stage=a+b", "Bearer s3cret")]


@pytest.mark.parametrize("url", ["127.0.0.1:8081", "ftp://x", "http://", "http://h/?token=x", ""])
def test_addresses_that_are_none(url: str) -> None:
    """They are refused before anything is dialled."""
    with pytest.raises(AddressError):
        Producer(url)


async def test_a_message_that_is_too_large_is_not_sent_for_ever(daemon: FakeDaemon) -> None:
    """The daemon hangs up on it; it fails, and what was asked for with it does not."""
    async with producer_of(daemon) as producer:
        large = asyncio.create_task(producer.text("x" * 70_000))
        small = asyncio.create_task(producer.emotion("happy"))
        with pytest.raises(RequestError) as raised:
            await large
        assert raised.value.code == "too_large"
        await small


async def test_a_text_goes_on_after_a_lost_connection(daemon: FakeDaemon) -> None:
    """What the daemon had held back of it is sent again before what comes next."""
    async with producer_of(daemon) as producer:
        daemon.answer = lambda m: [text_clean(m, "Hi ")]
        assert (await producer.text("Hi [hap")).text == "Hi "
        daemon.drop()
        await daemon.until(lambda: daemon.accepted == 2)
        tag = {"id": "t.1", "emotion": "happy", "intensity": 1.0, "at": 0}
        daemon.answer = lambda m: [
            text_clean(m, " you", tag),
            ended("superseded", "t.1", by="x"),
        ]
        rest = await producer.text_final("py] you")
        assert [m["delta"] for m in daemon.of("text")] == ["Hi [hap", "[happy] you"]
        assert len({m["id"] for m in daemon.of("text")}) == 1
        assert (rest.text, rest.at) == (" you", (0,))
        assert (await rest.cues[0].ended).by == "x"
        daemon.answer = lambda m: [text_clean(m, "", tag | {"id": "u.1"})]
        lost = (await producer.text("[happy]", final=True)).cues[0]
        daemon.drop()
        with pytest.raises(ReceiptLostError):
            await lost.started


async def test_what_was_held_back_is_sent_again_once(daemon: FakeDaemon) -> None:
    """What the daemon holds back over the new connection, it has."""
    async with producer_of(daemon) as producer:
        daemon.answer = lambda m: [text_clean(m, "a ")]
        await producer.text("a [hap")
        daemon.drop()
        await daemon.until(lambda: daemon.accepted == 2)
        tag = {"id": "t.1", "emotion": "happy", "intensity": 1.0, "at": 0}
        daemon.answer = lambda m: [text_clean(m, " b ", tag)]
        await producer.text("py] b [s")
        daemon.answer = lambda m: [text_clean(m, "[sx")]
        await producer.text_final("x")
        assert [m["delta"] for m in daemon.of("text")] == ["a [hap", "[happy] b [s", "x"]


async def test_a_pipe_that_is_left_early_is_ended(daemon: FakeDaemon) -> None:
    """The daemon is told that nothing comes any more."""
    async with producer_of(daemon) as producer:
        pipe = producer.pipe(["one ", "two ", "three"])
        async for piece in pipe:
            assert piece.text == "one "
            break
        await pipe.aclose()
        finals = await daemon.until_received("text", 2)
        assert [m["final"] for m in finals] == [False, True]
        assert [p.text async for p in producer.pipe(["a", "", "b"])] == ["a", "b"]


async def test_a_cancelled_delta_keeps_the_order(daemon: FakeDaemon) -> None:
    """Its answer, when it comes, is not taken for the next one's."""
    async with producer_of(daemon) as producer:
        daemon.answer = nothing
        one = asyncio.create_task(producer.text("one"))
        await daemon.until_received("text")
        one.cancel()
        two = asyncio.create_task(producer.text("two"))
        for message in await daemon.until_received("text", 2):
            await daemon.say(text_clean(message))
        assert (await two).text == "two"


async def test_controls_are_the_newest_or_none(daemon: FakeDaemon) -> None:
    """A wrong name is said at once, another complaint of the daemon by the next call."""
    async with producer_of(daemon) as producer:
        with pytest.raises(RequestError, match="jawOpn"):
            await producer.controls({"jawOpn": 1.0})
        error = {"code": "invalid_message", "message": "a number from 0 to 1", "field": "weight"}
        daemon.answer = lambda m: [{"type": "error", "id": m["id"], "error": error}]
        await producer.controls({"jawopen": 0.5}, weight=7.0)
        await daemon.until_received("controls")
        daemon.answer = daemon.usual_answer
        await producer.ping()  # answers come in order
        with pytest.raises(RequestError, match="0 to 1"):
            await producer.controls({"jawOpen": 0.5})
        await producer.controls({"jawOpen": 0.5}, head={"yaw": 3})
        sent = (await daemon.until_received("controls", 2))[1]
        assert (sent["weights"], sent["head"]) == ({"jawOpen": 0.5}, {"yaw": 3})


async def test_nonsense_from_the_daemon_costs_the_connection_only(daemon: FakeDaemon) -> None:
    """Unknown types are ignored; what is no message is hung up on, and all goes on."""
    async with producer_of(daemon) as producer:
        await daemon.say({"type": "tomorrow"}, {"type": "emotion.started", "id": "nobody's"})
        await producer.ping()
        assert daemon.accepted == 1
        cue = await producer.emotion("happy", id="e")
        await daemon.say({"type": "emotion.started", "id": "e", "seq": "five"})
        await daemon.until(lambda: daemon.accepted == 2)
        await daemon.until_received("emotion", 2)
        await daemon.say(shown("started", "e", 5))
        assert (await cue.started).seq == 5


async def test_an_id_counts_once(daemon: FakeDaemon) -> None:
    """The daemon would only say that it knows the second one, and never how it ended."""
    async with producer_of(daemon) as producer:
        await producer.emotion("happy", id="e")
        with pytest.raises(RequestError, match="was used"):
            await producer.emotion("happy", id="e")


async def test_ids_and_values_that_no_message_can_have(daemon: FakeDaemon) -> None:
    """The daemon could not say whose fault it is, so they never go out."""
    async with producer_of(daemon) as producer:
        for wrong in ("", "é", "x" * 65, "a\n"):
            with pytest.raises(RequestError) as raised:
                await producer.emotion("happy", id=wrong)
            assert raised.value.field == "id"
            with pytest.raises(RequestError):
                await producer.text("a", id=wrong)
        with pytest.raises(RequestError, match="JSON"):
            await producer.text("\ud800")
        with pytest.raises(RequestError, match="JSON"):
            await producer.controls({"jawOpen": object()})  # type: ignore[dict-item]
        await producer.ping()
    assert [message["type"] for message in daemon.received] == ["ping"]


async def test_an_error_about_nothing_in_particular(daemon: FakeDaemon) -> None:
    """It is about the message that was to be answered next, and the type fits what was asked."""
    error = {"type": "error", "id": None, "error": {"code": "invalid_json", "message": "no"}}
    async with producer_of(daemon) as producer:
        daemon.answer = nothing
        interrupted = asyncio.create_task(producer.interrupt())
        asked = asyncio.create_task(producer.emotion("happy"))
        await daemon.until_received("emotion")
        await daemon.say(error)
        with pytest.raises(EmotionRejected, match="invalid_json"):
            await asked
        assert not interrupted.done()
        interrupted.cancel()


async def test_a_daemon_that_never_greets(daemon: FakeDaemon) -> None:
    """A handshake is not enough."""
    daemon.hello = None
    with pytest.raises(ConnectError):
        async with producer_of(daemon, open_timeout_s=0.1):
            pass


async def test_before_and_after(daemon: FakeDaemon) -> None:
    """A producer that is not open says what to do."""
    producer = producer_of(daemon)
    with pytest.raises(ClosedError, match="async with"):
        await producer.emotion("happy")
    with pytest.raises(ClosedError, match="async with"):
        _ = producer.hello
