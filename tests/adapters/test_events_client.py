"""Publishers on real sockets: what they say, and how they come and go."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from adapters import dialling
from adapters.access import HttpLimits
from adapters.events_client import KIND, OTHER, Address, EventPublishers, for_us
from pipeline.ports import Metric, Reply
from pipeline.types import (
    CueAccepted,
    EmotionEvent,
    GetState,
    Interrupt,
    StageMessage,
    StateSnapshot,
)
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.publisher import FakePublisher
from tests.fakes.stage import FakeDaemon, FakeStage
from tests.fakes.waiting import until

HAPPY = {"type": "emotion", "id": "e1", "emotion": "happy", "intensity": 0.7}


class Running:
    """A client at work, its daemon and its figures."""

    def __init__(self, daemon: FakeDaemon, metrics: RecordingMetrics) -> None:
        self.daemon = daemon
        self.metrics = metrics

    @property
    def stage(self) -> FakeStage:
        return self.daemon.main

    @property
    def connected(self) -> float:
        return self.metrics.gauge(Metric.CONNECTIONS, kind=KIND) or 0.0


@asynccontextmanager
async def listening(
    *addresses: Address, daemon: FakeDaemon | None = None, **options: Any
) -> AsyncIterator[Running]:
    daemon, metrics = daemon or FakeDaemon(), RecordingMetrics()
    settings: dict[str, Any] = {
        "limits": HttpLimits(),
        "max_delay_s": 0.02,
        "rng": random.Random(1),
    } | options
    client = EventPublishers(addresses, daemon=daemon, metrics=metrics, **settings)
    task = asyncio.create_task(client.run())
    try:
        yield Running(daemon, metrics)
    finally:
        assert not task.done(), "it has stopped trying"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def publisher() -> AsyncIterator[FakePublisher]:
    async with FakePublisher() as made:
        yield made


# --- what they say --------------------------------------------------------------------------


async def test_an_event_reaches_the_stage_and_receipts_go_back(publisher: FakePublisher) -> None:
    """The publisher is greeted like a producer, and hears of what it published."""
    async with listening(Address(publisher.url)) as running:
        await until(lambda: bool(publisher.connections))
        await publisher.publish(HAPPY)
        await until(lambda: bool(publisher.answers("emotion.accepted")))
        (event,) = running.stage.messages
        assert event == EmotionEvent("e1", "happy", 0.7)
        assert [answer["type"] for answer in publisher.received] == ["hello", "emotion.accepted"]
        assert publisher.answers("emotion.accepted")[0]["id"] == "e1"
        assert running.metrics.total(Metric.MESSAGES, type="emotion") == 1
        assert running.metrics.gauge(Metric.PUBLISHERS_WANTED) == 1


async def test_every_message_of_producers_is_understood(publisher: FakePublisher) -> None:
    """Interrupts, questions and pings are what they are on /v1/events."""
    async with listening(Address(publisher.url)) as running:
        await until(lambda: bool(publisher.connections))
        for message in (
            {"type": "interrupt", "id": "i"},
            {"type": "get_state"},
            {"type": "ping", "t": 5},
        ):
            await publisher.publish(message)
        await until(lambda: len(publisher.received) == 4)
        kinds = [answer["type"] for answer in publisher.received]
        assert kinds == ["hello", "interrupt.done", "state_snapshot", "pong"]
        assert running.stage.messages == [Interrupt("i"), GetState()]


@pytest.mark.parametrize(
    "bare",
    [
        '{"emotion":"happy","intensity":0.7}',
        '  {"intensity": 0.7, "emotion": "happy", "timestamp": 1.5}\n',
        b'{"emotion":"happy","intensity":0.7}',
    ],
)
async def test_a_bare_emotion_is_an_emotion(publisher: FakePublisher, bare: str | bytes) -> None:
    """No `type`, but an `emotion`: what some character-managers publish, in text or binary."""
    async with listening(Address(publisher.url)) as running:
        await until(lambda: bool(publisher.connections))
        await publisher.publish(bare)
        await until(lambda: bool(publisher.answers("emotion.accepted")))
        (event,) = running.stage.messages
        assert isinstance(event, EmotionEvent)
        assert (event.emotion, event.intensity) == ("happy", 0.7)


async def test_a_bad_message_for_us_is_answered_and_forgotten(publisher: FakePublisher) -> None:
    """The error names the field; the connection and the face stay as they are."""
    async with listening(Address(publisher.url)) as running:
        await until(lambda: bool(publisher.connections))
        await publisher.publish({"emotion": "happy", "intensity": "much", "id": "b"})
        await publisher.publish('{"type":"state","state":"asleep"}')
        await publisher.publish(b'{"type":"emotion","emotion":"\xff"}')
        await publisher.publish(HAPPY)
        await until(lambda: bool(publisher.answers("emotion.accepted")))
        errors = publisher.answers("error")
        assert [error["error"].get("field") for error in errors] == ["intensity", "state", None]
        assert errors[0]["id"] == "b"
        assert errors[2]["error"]["code"] == "invalid_json"
        assert len(running.stage.messages) == 1
        assert running.metrics.total(Metric.BAD_MESSAGES) == 3
        assert len(publisher.paths) == 1


@pytest.mark.parametrize(
    "other",
    [
        '{"type":"chat","text":"hi"}',
        '{"type":"emotion.accepted","id":"e1"}',
        '{"type":null,"emotion":"happy"}',
        '{"type":["emotion"]}',
        '{"text":"hi"}',
        '["emotion"]',
        "plain words",
        '{"emotion":',
        b"\x00\xff",
        "[" * 3000,
        "",
    ],
)
async def test_what_is_not_for_us_is_passed_over(
    publisher: FakePublisher, other: str | bytes
) -> None:
    """A publisher may publish what it likes: it is counted, and neither answered nor an error."""
    async with listening(Address(publisher.url)) as running:
        await until(lambda: bool(publisher.connections))
        await publisher.publish(other)
        await publisher.publish(HAPPY)
        await until(lambda: bool(publisher.answers("emotion.accepted")))
        assert [answer["type"] for answer in publisher.received] == ["hello", "emotion.accepted"]
        assert running.metrics.total(Metric.MESSAGES, type=OTHER) == 1
        assert running.metrics.total(Metric.BAD_MESSAGES) == 0
        assert for_us(other if isinstance(other, bytes) else other.encode()) is None


async def test_a_publisher_that_sends_our_answers_round_starts_no_exchange(
    publisher: FakePublisher,
) -> None:
    """What we said comes back and ends there."""
    publisher.echoes = True
    async with listening(Address(publisher.url)) as running:
        await until(lambda: bool(publisher.connections))
        await publisher.publish(HAPPY)
        await publisher.publish({"type": "emotion", "emotion": 5})
        await until(lambda: running.metrics.total(Metric.MESSAGES, type=OTHER) >= 3)
        await asyncio.sleep(0.05)
        assert [answer["type"] for answer in publisher.received] == [
            "hello", "emotion.accepted", "error",
        ]  # fmt: skip


async def test_a_publisher_that_minds_is_not_spoken_to(publisher: FakePublisher) -> None:
    """Without answers it is listened to all the same."""
    async with listening(Address(publisher.url), answers=False) as running:
        await until(lambda: bool(publisher.connections))
        await publisher.publish(HAPPY)
        await publisher.publish({"type": "emotion", "emotion": 5})
        await until(lambda: running.metrics.total(Metric.BAD_MESSAGES) == 1)
        await asyncio.sleep(0.02)
        assert publisher.received == []
        assert len(running.stage.messages) == 1


async def test_the_stage_is_that_of_the_address_else_of_the_settings(
    publisher: FakePublisher,
) -> None:
    """`?stage=` wins; a message may name another; a stage that is not there is no dead end."""
    lobby, main = FakeStage("lobby"), FakeStage("main")
    daemon = FakeDaemon(main, lobby)
    address = Address(f"{publisher.url}?stage=lobby", stage="main")
    async with listening(address, daemon=daemon):
        await until(lambda: bool(publisher.connections))
        await publisher.publish(HAPPY)
        await publisher.publish(HAPPY | {"id": "e2", "stage": "main"})
        await publisher.publish(HAPPY | {"id": "e3", "stage": "attic"})
        await until(lambda: bool(publisher.answers("error")))
        assert publisher.paths == ["/emotions?stage=lobby"]
        assert publisher.received[0]["stage"] == "lobby"
        assert [message.id for message in lobby.messages] == ["e1"]  # type: ignore[union-attr]
        assert [message.id for message in main.messages] == ["e2"]  # type: ignore[union-attr]
        error = publisher.answers("error")[0]
        assert (error["id"], error["error"]["code"]) == ("e3", "unknown_stage")
        del daemon.stages["lobby"]
        await publisher.publish(HAPPY | {"id": "e4"})
        await until(lambda: len(publisher.answers("error")) == 2)


async def test_a_stage_that_comes_later_is_waited_for(publisher: FakePublisher) -> None:
    """Nobody is dialled for a stage that is not there; it is said once."""
    daemon = FakeDaemon(FakeStage("main"))
    with structlog.testing.capture_logs() as lines:
        async with listening(Address(publisher.url, stage="lobby"), daemon=daemon):
            await asyncio.sleep(0.1)
            assert publisher.paths == []
            daemon.stages["lobby"] = FakeStage("lobby")
            await until(lambda: bool(publisher.answers("hello")))
    unreachable = [line for line in lines if line["event"] == "publisher_unreachable"]
    assert len(unreachable) == 1
    assert "lobby" in unreachable[0]["reason"]


# --- how they come and go -------------------------------------------------------------------


async def test_tokens_are_shown_to_their_own_publishers_only(publisher: FakePublisher) -> None:
    """Each address has its own token or none, and no log line has any."""
    async with FakePublisher() as other:
        addresses = (Address(publisher.url, "s3cret"), Address(f"{other.url}?key=s4cret"))
        with structlog.testing.capture_logs() as lines:
            async with listening(*addresses) as running:
                await until(lambda: running.connected == 2)
        assert publisher.authorizations == ["Bearer s3cret"]
        assert other.authorizations == [None]
        assert lines
        assert "s3cret" not in repr((lines, addresses[0]))
        assert "s4cret" not in repr(lines)


async def test_a_lost_connection_is_made_again(publisher: FakePublisher) -> None:
    """After cuts, polite closes and refusals the events go on, and the gauge follows."""
    async with listening(Address(publisher.url)) as running:
        for cut in range(1, 4):
            await until(lambda: running.connected == 1 and bool(publisher.connections))
            await publisher.publish(HAPPY | {"id": f"e{cut}"})
            await until(lambda: len(running.stage.messages) == cut)  # noqa: B023 - awaited here
            if cut == 1:
                publisher.drop()
            elif cut == 2:
                await publisher.close(1001)
            else:
                publisher.refuse_status = 503
                publisher.drop()
            await until(lambda: not publisher.connections)
        await until(lambda: len(publisher.paths) >= 5)
        assert running.connected == 0
        publisher.refuse_status = None
        await until(lambda: running.connected == 1)


async def test_a_publisher_that_is_away_is_dialled_until_it_comes(
    publisher: FakePublisher,
) -> None:
    """One line for each time that it is away, not one for each attempt."""
    with structlog.testing.capture_logs() as lines:
        async with listening(Address(publisher.url)) as running:
            for _ in range(2):
                await publisher.go_away()
                await asyncio.sleep(0.2)
                await publisher.come_back()
                await until(lambda: running.connected == 1)
    assert len([line for line in lines if line["event"] == "publisher_unreachable"]) == 2


async def test_a_publisher_that_brought_something_is_dialled_again_soon(
    publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some close after each event: the delay does not grow, as for those that say nothing."""
    monkeypatch.setattr(dialling, "_FIRST_DELAY_S", 0.01)
    publisher.greeting = ['{"emotion":"happy"}']
    publisher.leaves = True
    async with listening(Address(publisher.url), max_delay_s=30.0):
        await until(lambda: len(publisher.paths) == 14)  # half a minute, if it doubled
        publisher.greeting = []
        before = len(publisher.paths)
        await asyncio.sleep(1.0)
        assert len(publisher.paths) - before < 12


async def test_a_publisher_that_floods_each_time_is_dialled_ever_later(
    publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it brought messages does not count for it."""
    monkeypatch.setattr(dialling, "_FIRST_DELAY_S", 0.01)
    publisher.greeting = ['{"emotion":"happy"}'] * 40
    limits = HttpLimits(messages_per_s=2.0)
    async with listening(Address(publisher.url), limits=limits, max_delay_s=30.0):
        await asyncio.sleep(1.0)
        assert 2 <= len(publisher.paths) < 12


async def test_a_publisher_that_vanished_without_a_word_is_noticed(
    publisher: FakePublisher,
) -> None:
    """Half-open: no answer to pings, so it is dialled again."""
    async with listening(Address(publisher.url), ping_s=0.1) as running:
        await until(lambda: running.connected == 1 and bool(publisher.connections))
        publisher.stall()
        await until(lambda: len(publisher.paths) == 2)


async def test_a_server_that_never_answers_is_given_up_and_tried_again(
    publisher: FakePublisher,
) -> None:
    """The handshake has a limit; another publisher does not wait for it."""
    accepted = 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    addresses = (Address(f"ws://127.0.0.1:{port}/"), Address(publisher.url))
    async with server, listening(*addresses, open_s=0.1) as running:
        await until(lambda: running.connected == 1)
        await until(lambda: accepted >= 3)


async def test_flooding_is_hung_up_on_and_harms_nobody_else(publisher: FakePublisher) -> None:
    """Beyond twice the limit it is closed with 1008; the quiet publisher keeps its connection."""
    limits = HttpLimits(messages_per_s=20.0)
    async with FakePublisher() as quiet:
        addresses = (Address(publisher.url), Address(quiet.url))
        async with listening(*addresses, limits=limits, max_delay_s=30.0) as running:
            await until(lambda: running.connected == 2 and bool(publisher.connections))
            for number in range(400):
                await publisher.publish(HAPPY | {"id": f"f{number}"})
            await until(lambda: bool(publisher.closed_with))
            assert publisher.closed_with == [(1008, "too many messages")]
            assert 20 <= len(running.stage.messages) <= 60
            assert len(publisher.answers("error")) <= 60
            codes = {answer["error"]["code"] for answer in publisher.answers("error")}
            assert codes == {"rate_limited"}
            await quiet.publish(HAPPY | {"id": "q"})
            await until(lambda: bool(quiet.answers("emotion.accepted")))
            assert running.connected == 1


async def test_other_traffic_beyond_the_limit_is_not_answered(publisher: FakePublisher) -> None:
    """Refusals are for messages that were for us."""
    async with listening(Address(publisher.url), limits=HttpLimits(messages_per_s=20.0)) as running:
        await until(lambda: running.connected == 1 and bool(publisher.connections))
        for _ in range(60):
            await publisher.publish('{"type":"token","text":"la"}')
        await until(lambda: running.metrics.total(Metric.MESSAGES, type=OTHER) >= 40)
        assert [answer["type"] for answer in publisher.received] == ["hello"]


async def test_a_message_over_the_limit_ends_the_connection(publisher: FakePublisher) -> None:
    """It is closed with 1009, and dialled again."""
    async with listening(Address(publisher.url), limits=HttpLimits(message_bytes=1000)):
        await until(lambda: bool(publisher.connections))
        await publisher.publish('{"type":"emotion","emotion":"' + "x" * 1000 + '"}')
        await until(lambda: bool(publisher.closed_with))
        assert publisher.closed_with[0] is not None
        assert publisher.closed_with[0][0] == 1009
        await until(lambda: len(publisher.paths) == 2)


async def test_a_publisher_that_reads_no_answers_is_cut_off(publisher: FakePublisher) -> None:
    """What waits for it is bounded; whoever answers is not held up."""

    def talkative(message: StageMessage, reply: Reply) -> None:
        reply(StateSnapshot(None, {"padding": "x" * 100_000}))

    limits = HttpLimits(unsent_bytes=300_000)
    async with listening(Address(publisher.url), limits=limits) as running:
        running.stage.answer = talkative
        await until(lambda: bool(publisher.connections))
        publisher.stall()
        for _ in range(190):  # the kernel takes megabytes first
            await publisher.publish({"type": "get_state"})
            if len(publisher.paths) > 1:
                break
        await until(lambda: len(publisher.paths) > 1)
        assert running.stage.submitted[0][1].closed


async def test_only_answers_that_wait_count_against_a_publisher(publisher: FakePublisher) -> None:
    """One that reads them may be told any amount."""
    async with listening(Address(publisher.url), limits=HttpLimits(unsent_bytes=1000)):
        await until(lambda: bool(publisher.answers("hello")))
        for number in range(100):
            await publisher.publish({"type": "ping", "t": number})
            await until(lambda: len(publisher.answers("pong")) == number + 1)  # noqa: B023 - awaited here
        assert len(publisher.paths) == 1


async def test_answers_after_the_end_are_dropped(publisher: FakePublisher) -> None:
    """A receipt that comes late finds a closed reply and harms nobody."""
    async with listening(Address(publisher.url)) as running:
        await until(lambda: bool(publisher.connections))
        await publisher.publish(HAPPY)
        await until(lambda: bool(running.stage.submitted))
        reply = running.stage.last_reply
        assert not reply.closed
        assert hash(reply) == hash(reply)
        publisher.drop()
        await until(lambda: reply.closed)
        reply(CueAccepted("e1", "happy", 0.7, {}, None, False))


async def test_a_stage_that_fails_costs_the_message_not_the_connection(
    publisher: FakePublisher,
) -> None:
    """The publisher learns that it was ours, the log has the traceback."""

    def fail(message: StageMessage, reply: Reply) -> None:
        raise RuntimeError("broken")

    with structlog.testing.capture_logs() as lines:
        async with listening(Address(publisher.url)) as running:
            running.stage.answer = fail
            await until(lambda: bool(publisher.connections))
            await publisher.publish(HAPPY)
            await until(lambda: bool(publisher.answers("error")))
            running.stage.answer = running.stage.usual_answer
            await publisher.publish(HAPPY)
            await until(lambda: bool(publisher.answers("emotion.accepted")))
            assert len(publisher.paths) == 1
    assert publisher.answers("error")[0]["error"]["code"] == "internal"
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["message_failed"]


@pytest.mark.parametrize("trusted", [True, False])
async def test_wss_is_listened_to_only_if_the_certificate_is_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """Events and receipts pass over TLS; a stranger is not even shown the token."""
    key, signed = certificate
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(signed))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    with structlog.testing.capture_logs() as lines:
        async with FakePublisher(context) as secure, listening(Address(secure.url, "s3cret")):
            if not trusted:
                await until(lambda: bool(lines))
                assert "CERTIFICATE_VERIFY_FAILED" in lines[0]["reason"]
                assert secure.authorizations == []
                return
            await until(lambda: bool(secure.connections))
            await secure.publish(HAPPY)
            await until(lambda: bool(secure.answers("emotion.accepted")))


async def test_the_end_is_said_with_1001(publisher: FakePublisher) -> None:
    """Stopping closes every connection in order."""
    async with listening(Address(publisher.url)) as running:
        await until(lambda: running.connected == 1)
    await until(lambda: bool(publisher.closed_with))
    assert publisher.closed_with == [(1001, "the daemon is stopping")]
    assert running.connected == 0


async def test_the_end_does_not_wait_for_those_that_hang(publisher: FakePublisher) -> None:
    """Publishers that do not take part in the close are cut off together, within seconds."""
    addresses = [Address(f"{publisher.url}?n={number}") for number in range(5)]
    async with asyncio.timeout(4.0):
        async with listening(*addresses) as running:
            await until(lambda: running.connected == 5 and len(publisher.connections) == 5)
            publisher.stall()
    assert running.connected == 0
