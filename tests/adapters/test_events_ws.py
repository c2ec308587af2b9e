"""Producers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from adapters.access import HttpLimits
from adapters.producer import RateLimit, Verdict
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import Metric, Reply
from pipeline.types import (
    CueExpired,
    CueFinished,
    CuePeaked,
    CueRejected,
    CueStarted,
    CueSuperseded,
    EmotionEvent,
    ErrorInfo,
    GetState,
    Interrupt,
    InterruptDone,
    StageMessage,
    StateSnapshot,
)
from tests.fakes.http_server import Served, ask, receive, served
from tests.fakes.stage import FakeDaemon, FakeStage
from tests.fakes.waiting import until

PING = '{"type":"ping","t":1}'
HAPPY = '{"type":"emotion","id":"e","emotion":"happy"}'


def fast(**changes: Any) -> HttpLimits:
    """Limits with a short patience, so that tests do not wait."""
    return HttpLimits(**({"goodbye_s": 1.0} | changes))


async def closed(producer: ClientConnection) -> tuple[int, list[dict[str, Any]]]:
    """The close code, and what came before it."""
    received: list[dict[str, Any]] = []

    async def receive_all() -> None:
        while True:
            received.append(await receive(producer))

    with pytest.raises(ConnectionClosed) as end:
        await receive_all()
    assert end.value.rcvd is not None, "closed without a close frame"
    return end.value.rcvd.code, received


class RawProducer:
    """A producer that is made of bytes, to do what no library does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, running: Served, receive_bytes: int = 0) -> AsyncIterator[RawProducer]:
        """Connected, its handshake done; `receive_bytes` bounds the kernel's receive buffer."""
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", running.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
        try:
            writer.write(
                f"GET /v1/events HTTP/1.1\r\nHost: {running.address}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def send(self, payload: bytes, *, first: int = 0x81, claims: int | None = None) -> None:
        """One masked frame; `claims` announces another length than that of the payload."""
        length = len(payload) if claims is None else claims
        size = struct.pack("!B", 0x80 | length)
        if length >= 126:
            size = struct.pack("!BH", 0x80 | 126, length)
        self.writer.write(bytes([first]) + size + b"\0\0\0\0" + payload)

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        async with asyncio.timeout(5.0):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)


# --- asking and being answered ------------------------------------------------------------


async def test_a_producer_is_greeted() -> None:
    """The first message is the stage's `hello`."""
    async with served() as running, running.connect() as producer:
        hello = await receive(producer)
        assert hello["type"] == "hello"
        assert hello["protocol"] == "1.0"
        assert hello["stage"] == "main"
        assert "happy" in hello["emotions"]


async def test_an_emotion_reaches_the_stage_and_its_answer_the_producer() -> None:
    """A message becomes the value of the core, and the core's answer a message."""
    async with served() as running:
        producer = await running.producer()
        answer = await ask(producer, HAPPY)
        assert answer["type"] == "emotion.accepted"
        assert answer["id"] == "e"
        assert running.daemon.main.messages == [EmotionEvent(id="e", emotion="happy")]


async def test_every_consequence_comes_in_order_to_its_own_producer_alone() -> None:
    """What happens to a cue later on goes to the connection that sent it."""
    async with served() as running:
        producer, other = await running.producer(), await running.producer()
        await ask(producer, HAPPY)
        reply = running.daemon.main.last_reply
        error = ErrorInfo("outranked", "a cue of priority 9 is on")
        for consequence in (
            CueStarted("e", 3, 0.1, 0.033),
            CuePeaked("e", 9, 0.3, 0.25),
            CueFinished("e", 80, 2.7),
            CueSuperseded("e", "f", 81, 2.8),
            CueExpired("e"),
            CueRejected("e", error),
            InterruptDone("i", ("e",), 82, 2.9, 0.1),
        ):
            reply(consequence)
        answers = [await receive(producer) for _ in range(7)]
        assert [answer["type"] for answer in answers] == [
            "emotion.started",
            "emotion.peaked",
            "emotion.finished",
            "emotion.superseded",
            "emotion.expired",
            "emotion.rejected",
            "interrupt.done",
        ]
        assert await ask(other, PING) == {"type": "pong", "t": 1}


async def test_many_messages_at_once_are_answered_in_order() -> None:
    """Answers keep the order of their messages, however many come in one packet."""
    async with served() as running:
        producer = await running.producer()
        for number in range(150):
            await producer.send(f'{{"type":"ping","t":{number}}}')
        assert [(await receive(producer))["t"] for _ in range(150)] == list(range(150))


async def test_sixty_four_producers_at_once_each_get_their_own_answers() -> None:
    """Nobody hears what somebody else has asked."""
    async with served() as running:

        async def produce(number: int) -> None:
            async with running.connect() as producer:
                await receive(producer)
                for turn in range(5):
                    event_id = f"{number}-{turn}"
                    answer = await ask(
                        producer, {"type": "emotion", "id": event_id, "emotion": "happy"}
                    )
                    assert answer["id"] == event_id

        async with asyncio.timeout(20):
            await asyncio.gather(*(produce(number) for number in range(64)))
        assert len(running.daemon.main.submitted) == 64 * 5


async def test_the_other_messages_are_answered() -> None:
    """State, interrupt, mood and character go the same way."""
    async with served() as running:
        producer = await running.producer()
        snapshot = await ask(producer, {"type": "get_state", "id": "g"})
        assert snapshot["type"] == "state_snapshot"
        assert snapshot["seq"] == 7
        done = await ask(producer, {"type": "interrupt", "id": "i", "fade_ms": 50})
        assert done["type"] == "interrupt.done"
        assert running.daemon.main.messages[-1] == Interrupt("i", 0.05)
        assert (await ask(producer, {"type": "mood", "valence": 0.5}))["type"] == "mood.ok"
        switch = {"type": "character", "id": "c", "character": "astronaut"}
        assert (await ask(producer, switch))["type"] == "character.switched"
        state = {"type": "state", "state": "thinking"}
        assert await ask(producer, state) == {"type": "state.ok", "id": None}
        text = {"type": "text", "id": "t", "delta": "Hi"}
        assert await ask(producer, text) == {
            "type": "text.clean", "id": "t", "delta": "Hi", "cues": [],
        }  # fmt: skip


async def test_a_connection_is_compressed_for_nobody() -> None:
    """Small JSON is not worth it: no extension is agreed on."""
    async with served() as running, running.connect(compression="deflate") as producer:
        assert producer.response is not None
        assert "Sec-WebSocket-Extensions" not in producer.response.headers


# --- stages -------------------------------------------------------------------------------


async def test_a_connection_may_be_for_another_stage() -> None:
    """`?stage=` chooses the stage of every message that names none."""
    daemon = FakeDaemon(FakeStage(), FakeStage("second"))
    async with served(daemon) as running, running.connect("?stage=second") as producer:
        assert (await receive(producer))["stage"] == "second"
        await ask(producer, HAPPY)
        await ask(producer, {"type": "emotion", "id": "m", "emotion": "sad", "stage": "main"})
        assert [m.id for m in daemon.stages["second"].messages if m.id] == ["e"]
        assert [m.id for m in daemon.main.messages if m.id] == ["m"]


async def test_an_unknown_stage_in_the_address_is_refused_before_the_upgrade() -> None:
    """The handshake is answered 404 with the error as JSON."""
    async with served() as running:
        with pytest.raises(InvalidStatus) as caught:
            await running.connect("?stage=nowhere")
        response = caught.value.response
        assert response.status_code == 404
        assert response.body is not None
        error = msgspec.json.decode(response.body)["error"]
        assert error["code"] == "unknown_stage"
        assert error["field"] == "stage"


async def test_an_unknown_stage_in_a_message_is_an_error_message() -> None:
    """It costs that message, not the connection."""
    async with served() as running:
        producer = await running.producer()
        answer = await ask(producer, {"type": "interrupt", "id": "i", "stage": "nowhere"})
        assert (answer["type"], answer["id"]) == ("error", "i")
        assert answer["error"]["code"] == "unknown_stage"
        assert answer["error"]["field"] == "stage"
        assert (await ask(producer, PING))["type"] == "pong"


# --- bad messages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "field", "event_id"),
    [
        ("", "invalid_json", None, None),
        ("{", "invalid_json", None, None),
        ("[]", "invalid_message", None, None),
        ('{"type":"emotion","id":"e"}', "invalid_message", "emotion", "e"),
        ('{"type":"emotion","id":"e","emotion":"x","intensity":"0.7"}', "invalid_message",
         "intensity", "e"),
        ('{"type":"emotion","id":"e","mix":{"happy":null}}', "invalid_message", "mix.happy", "e"),
        ('{"type":"dance","id":"e"}', "unknown_type", "type", "e"),
        (b'{"type":"ping"}', "invalid_message", None, None),
        (b"\xff\xfe", "invalid_message", None, None),
    ],
)  # fmt: skip
async def test_a_bad_message_is_answered_and_changes_nothing(
    message: str | bytes, code: str, field: str | None, event_id: str | None
) -> None:
    """The error says which message and field it is about; the connection goes on."""
    async with served() as running:
        producer = await running.producer()
        answer = await ask(producer, message)
        assert (answer["type"], answer["id"]) == ("error", event_id)
        assert (answer["error"]["code"], answer["error"]["field"]) == (code, field)
        assert answer["error"]["message"]
        assert (await ask(producer, PING))["type"] == "pong"
        assert not running.daemon.main.submitted


async def test_text_that_is_no_unicode_does_not_close_the_connection() -> None:
    """Invalid UTF-8 in a text frame is a bad message like any other."""
    async with served() as running, RawProducer.on(running) as producer:
        await producer.frame()
        producer.send(b'{"type":"ping","t":"\xff"}')
        opcode, payload = await producer.frame()
        assert opcode == 1
        assert msgspec.json.decode(payload)["error"]["code"] == "invalid_json"
        producer.send(PING.encode())
        assert await producer.frame() == (1, b'{"type":"pong","t":1}')


async def test_what_a_stage_raises_becomes_an_error_message() -> None:
    """A stage that refuses by raising is understood as well."""

    def refuse(message: StageMessage, reply: Reply) -> None:
        raise InvalidEventError(ErrorCode.OUTRANKED, "not now", event_id="e")

    daemon = FakeDaemon()
    daemon.main.answer = refuse
    async with served(daemon) as running:
        answer = await ask(await running.producer(), HAPPY)
        assert answer["id"] == "e"
        assert answer["error"]["code"] == "outranked"


async def test_a_stage_that_fails_does_not_cost_the_connection() -> None:
    """A fault of ours is logged, and the producer learns which message it cost."""

    def fail(message: StageMessage, reply: Reply) -> None:
        raise RuntimeError("a fault")

    daemon = FakeDaemon()
    daemon.main.answer = fail
    async with served(daemon) as running:
        producer = await running.producer()
        with structlog.testing.capture_logs() as lines:
            answer = await ask(producer, HAPPY)
        assert (answer["type"], answer["id"]) == ("error", "e")
        assert answer["error"]["code"] == "internal"
        assert [line["event"] for line in lines] == ["message_failed"]
        assert (await ask(producer, PING))["type"] == "pong"


async def test_an_answer_that_cannot_be_said_harms_nobody() -> None:
    """The reply never raises into the stage; the fault is logged."""
    async with served() as running:
        producer = await running.producer()
        await ask(producer, HAPPY)
        with structlog.testing.capture_logs() as lines:
            running.daemon.main.last_reply(StateSnapshot("g", {"x": object()}))
        assert [line["event"] for line in lines] == ["answer_not_sent"]
        assert (await ask(producer, PING))["type"] == "pong"


# --- limits -------------------------------------------------------------------------------


async def test_a_message_at_the_size_limit_is_taken() -> None:
    """64 KiB exactly is not too large."""
    async with served() as running:
        producer = await running.producer()
        frame = '{"type":"ping","t":""}'
        t = "x" * (65_536 - len(frame))
        assert await ask(producer, f'{{"type":"ping","t":"{t}"}}') == {"type": "pong", "t": t}


@pytest.mark.parametrize(("size", "kind"), [(65_537, str), (8_000_000, str), (70_000, bytes)])
async def test_a_message_over_the_size_limit_closes_with_1009(size: int, kind: type) -> None:
    """However large it is, the producer gets to see why."""
    async with served() as running:
        producer = await running.producer()
        with contextlib.suppress(ConnectionClosed):
            await producer.send("x" * size if kind is str else b"x" * size)
        code, _ = await closed(producer)
        assert code == 1009
        assert (await ask(await running.producer(), PING))["type"] == "pong"


async def test_a_message_in_pieces_counts_as_a_whole() -> None:
    """Fragments do not get around the size limit."""
    async with served() as running:
        producer = await running.producer()
        with contextlib.suppress(ConnectionClosed):
            await producer.send(["x" * 30_000] * 3)
        code, _ = await closed(producer)
        assert code == 1009


async def test_messages_over_the_rate_are_refused_by_id_until_the_rate_falls() -> None:
    """A burst of a second's worth is taken, the rest answered `rate_limited`; later it goes on."""
    async with served(limits=fast(messages_per_s=50.0)) as running:
        producer = await running.producer()
        for number in range(80):
            await producer.send(f'{{"type":"emotion","id":"e{number}","emotion":"happy"}}')
        answers = [await receive(producer) for _ in range(80)]
        taken = [a["id"] for a in answers if a["type"] == "emotion.accepted"]
        refused = [a for a in answers if a["type"] == "error"]
        assert taken[:50] == [f"e{number}" for number in range(50)]
        assert 15 <= len(refused) <= 30
        assert {answer["error"]["code"] for answer in refused} == {"rate_limited"}
        assert refused[0]["id"] == "e50"
        await asyncio.sleep(0.1)
        assert (await ask(producer, PING))["type"] == "pong"


async def test_flooding_closes_with_1008() -> None:
    """A tight loop is hung up on, having been warned; its answers are bounded."""
    async with served(limits=fast(messages_per_s=50.0)) as running:
        producer = await running.producer()
        ending = asyncio.create_task(closed(producer))
        with contextlib.suppress(ConnectionClosed):
            for _ in range(20_000):
                await producer.send(HAPPY)
        code, answers = await ending
        assert code == 1008
        refused = [a for a in answers if a["type"] == "error"]
        assert refused
        assert {answer["error"]["code"] for answer in refused} == {"rate_limited"}
        assert len(answers) < 250


async def test_who_floods_on_after_the_goodbye_is_cut_off() -> None:
    """It is not waited for as long as others are."""
    limits = fast(messages_per_s=50.0, goodbye_s=30.0)
    async with served(limits=limits) as running, RawProducer.on(running) as producer:
        ended = asyncio.create_task(producer.reader.read())
        async with asyncio.timeout(10.0):
            while not producer.reader.at_eof() and producer.reader.exception() is None:
                for _ in range(20):
                    producer.send(PING.encode())
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            await ended


async def test_a_flood_by_one_producer_does_not_disturb_another() -> None:
    """Rates are each producer's own."""
    async with served(limits=fast(messages_per_s=50.0)) as running:
        flooding, other = await running.producer(), await running.producer()
        for _ in range(200):
            await flooding.send(PING)
        for _ in range(20):
            assert (await ask(other, PING))["type"] == "pong"


async def test_too_many_producers_are_refused_before_the_upgrade() -> None:
    """The handshake is answered 503 with the error as JSON; a place freed can be taken."""
    async with served(limits=fast(producers=2)) as running:
        first, _ = await running.producer(), await running.producer()
        with pytest.raises(InvalidStatus) as caught:
            await running.connect()
        response = caught.value.response
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert response.body is not None
        assert msgspec.json.decode(response.body)["error"]["code"] == "not_ready"
        await first.close()
        await until(lambda: b'connections{kind="producer"} 1.0' in running.metrics.render())
        assert (await ask(await running.producer(), PING))["type"] == "pong"


async def test_a_producer_that_does_not_read_is_dropped_with_1008() -> None:
    """Unread answers are bounded; the close frame waits behind those that were sent."""
    daemon = FakeDaemon()
    daemon.main.answer = lambda message, reply: reply(StateSnapshot(None, {"x": "x" * 400_000}))
    async with served(daemon, limits=fast(unsent_bytes=100_000, goodbye_s=3.0)) as running:
        async with RawProducer.on(running, receive_bytes=4096) as producer:
            for _ in range(60):
                producer.send(b'{"type":"get_state"}')
            await until(lambda: bool(daemon.main.submitted) and daemon.main.last_reply.closed)
            assert len(daemon.main.submitted) < 60
            frames: list[tuple[int, bytes]] = []
            while not frames or frames[-1][0] != 8:
                frames.append(await producer.frame())
            assert struct.unpack("!H", frames[-1][1][:2]) == (1008,)
            producer.send(frames[-1][1][:2], first=0x88)
        await until(lambda: b'connections{kind="producer"} 0.0' in running.metrics.render())


async def test_a_producer_that_never_reads_is_cut_off() -> None:
    """Nobody has to take a close frame for the connection to end."""
    daemon = FakeDaemon()
    daemon.main.answer = lambda message, reply: reply(StateSnapshot(None, {"x": "x" * 400_000}))
    limits = fast(unsent_bytes=100_000, goodbye_s=0.2)
    async with (
        served(daemon, limits=limits) as running,
        RawProducer.on(running, receive_bytes=4096) as producer,
    ):
        for _ in range(60):
            producer.send(b'{"type":"get_state"}')
        await until(lambda: b'connections{kind="producer"} 0.0' in running.metrics.render())


# --- ends ---------------------------------------------------------------------------------


async def test_answers_for_a_producer_that_has_left_are_dropped() -> None:
    """The reply knows that it is closed, and taking more does no harm."""
    async with served() as running:
        producer = await running.producer()
        await ask(producer, HAPPY)
        reply = running.daemon.main.last_reply
        assert not reply.closed
        await producer.close()
        await until(lambda: reply.closed)
        reply(CueFinished("e", 80, 2.7))


async def test_replies_of_one_connection_are_equal() -> None:
    """A stage can tell whether two messages came from the same producer."""
    async with served() as running:
        producer, other = await running.producer(), await running.producer()
        for each in (producer, producer, other):
            await ask(each, HAPPY)
        first, second, third = (reply for _, reply in running.daemon.main.submitted)
        assert first == second
        assert first != third


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_producer_may_vanish_in_the_middle_of_a_message(how: str) -> None:
    """Half a frame and the end of the connection disturb nobody."""
    async with served() as running:
        async with RawProducer.on(running) as producer:
            await producer.frame()
            producer.send(b'{"type":"emo', claims=100)
            await producer.writer.drain()
            if how == "reset":
                producer.writer.transport.abort()
        await until(lambda: b'connections{kind="producer"} 0.0' in running.metrics.render())
        assert not running.daemon.main.submitted
        assert (await ask(await running.producer(), PING))["type"] == "pong"


async def test_a_producer_that_vanishes_in_the_handshake_disturbs_nobody() -> None:
    """A connection that ends right behind its request leaves no place taken."""
    async with served() as running:
        for _ in range(5):
            async with RawProducer.on(running) as producer:
                producer.writer.transport.abort()
        await until(lambda: b'connections{kind="producer"} 0.0' in running.metrics.render())


async def test_a_frame_that_breaks_the_websocket_protocol_closes_with_1002() -> None:
    """What is no WebSocket any more is closed as such."""
    async with served() as running, RawProducer.on(running) as producer:
        await producer.frame()
        producer.send(b"x", first=0xF1)
        opcode, payload = await producer.frame()
        assert opcode == 8
        assert struct.unpack("!H", payload[:2]) == (1002,)


async def test_a_producer_that_answers_no_ping_is_gone() -> None:
    """Half-open connections do not keep their place."""
    async with served(limits=fast(heartbeat_s=0.1)) as running, RawProducer.on(running) as producer:
        await producer.frame()
        assert (await producer.frame())[0] == 9
        async with asyncio.timeout(5.0):
            assert await producer.reader.read() == b""


async def test_a_producer_that_answers_pings_stays() -> None:
    """Silence alone is no reason to go."""
    async with served(limits=fast(heartbeat_s=0.05)) as running:
        producer = await running.producer()
        await asyncio.sleep(0.4)
        assert (await ask(producer, PING))["type"] == "pong"


async def test_stopping_says_goodbye_with_1001() -> None:
    """Every producer is told that the daemon goes away, and nobody new is let in."""
    async with served() as running:
        producers = [await running.producer() for _ in range(10)]
        endings = [asyncio.create_task(closed(producer)) for producer in producers]
        await running.events.close()
        assert [code for code, _ in await asyncio.gather(*endings)] == [1001] * 10
        with pytest.raises(InvalidStatus) as caught:
            await running.connect()
        assert caught.value.response.status_code == 503
        await running.events.close()


async def test_stopping_in_the_middle_of_messages_says_goodbye_too() -> None:
    """A producer that keeps sending gets to see the 1001."""
    async with served(limits=fast(messages_per_s=100_000.0)) as running:
        producer = await running.producer()
        ending = asyncio.create_task(closed(producer))

        async def keep_sending() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await producer.send(PING)
                    await asyncio.sleep(0)

        sending = asyncio.create_task(keep_sending())
        await until(lambda: b'messages_total{type="ping"}' in running.metrics.render())
        await running.events.close()
        code, _ = await ending
        assert code == 1001
        await sending


async def test_stopping_does_not_wait_for_those_who_do_not_answer() -> None:
    """The closing handshake has its time, and then the connection is cut."""
    async with served(limits=fast(goodbye_s=0.2)) as running, RawProducer.on(running) as producer:
        await producer.frame()
        async with asyncio.timeout(2.0):
            await running.events.close()
        assert (await producer.frame())[0] == 8
        async with asyncio.timeout(2.0):
            assert await producer.reader.read() == b""


async def test_a_stop_that_runs_out_of_time_cuts_connections() -> None:
    """Cancelling the stop leaves no connection open."""
    async with served(limits=fast(goodbye_s=30.0)) as running, RawProducer.on(running) as producer:
        await producer.frame()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await running.events.close()
        assert (await producer.frame())[0] == 8
        async with asyncio.timeout(2.0):
            assert await producer.reader.read() == b""


# --- being seen ---------------------------------------------------------------------------


async def test_a_connection_leaves_one_line_when_it_opens_and_one_when_it_closes() -> None:
    """The second says how much came over it; nothing is logged in between."""
    async with served() as running:
        with structlog.testing.capture_logs() as lines:
            async with running.connect("?token=secret") as producer:
                await receive(producer)
                await ask(producer, HAPPY)
                await ask(producer, "nonsense")
            await until(lambda: len(lines) == 2)
        opened, ended = lines
        assert opened["event"] == "producer_connected"
        assert ended["event"] == "producer_disconnected"
        assert opened["connection"] == ended["connection"]
        assert (ended["messages"], ended["bad"], ended["refused"]) == (2, 1, 0)
        assert (ended["reason"], ended["code"]) == ("left", 1000)
        assert "secret" not in repr(lines)


async def test_messages_and_connections_are_counted() -> None:
    """Each type, each error code, and who is there."""
    async with served() as running:
        producer = await running.producer()
        for message in (HAPPY, HAPPY, PING, "nonsense", '{"type":"dance"}'):
            await ask(producer, message)
        shown = running.metrics.render().decode()
        assert 'avatar_connections{kind="producer"} 1.0' in shown
        assert 'avatar_messages_total{type="emotion"} 2.0' in shown
        assert 'avatar_messages_total{type="ping"} 1.0' in shown
        assert 'avatar_bad_messages_total{code="invalid_json"} 1.0' in shown
        assert 'avatar_bad_messages_total{code="unknown_type"} 1.0' in shown
        assert Metric.CONNECTIONS.value in shown


async def test_a_plain_request_is_told_to_upgrade() -> None:
    """GET without a WebSocket handshake is answered 426."""
    async with served() as running:
        response = await running.http.get("/v1/events")
        assert response.status_code == 426
        assert response.headers["Upgrade"] == "websocket"
        assert "POST" in response.json()["error"]["message"]


async def test_a_broken_handshake_is_answered_400() -> None:
    """An upgrade without its key is refused in the protocol's error form."""
    async with served() as running:
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
        }
        response = await running.http.get("/v1/events", headers=headers)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_message"


async def test_a_snapshot_asked_for_without_an_id_has_none() -> None:
    """`get_state` needs no id."""
    async with served() as running:
        answer = await ask(await running.producer(), '{"type":"get_state"}')
        assert answer["type"] == "state_snapshot"
        assert running.daemon.main.messages == [GetState(None)]


# --- the rate limit by itself ---------------------------------------------------------------


def verdicts(rate: RateLimit, times: list[float]) -> list[Verdict]:
    return [rate.judge(at) for at in times]


def test_a_steady_producer_at_the_limit_is_never_refused() -> None:
    """200 a second for a minute are taken."""
    rate = RateLimit(200.0, 0.0)
    times = [number / 200.0 for number in range(60 * 200)]
    assert set(verdicts(rate, times)) == {Verdict.TAKE}


def test_a_producer_at_twice_the_limit_is_refused_half_but_borne() -> None:
    """It is answered for every message and keeps its connection."""
    rate = RateLimit(200.0, 0.0)
    judged = verdicts(rate, [number / 400.0 for number in range(60 * 400)])
    assert Verdict.HANG_UP not in judged
    assert 0.45 < judged.count(Verdict.TAKE) / len(judged) < 0.55


def test_a_burst_of_five_seconds_worth_is_borne_and_a_longer_one_is_not() -> None:
    """A resend after a long break does not cost the connection; a loop without end does."""
    rate = RateLimit(200.0, 0.0)
    judged = verdicts(rate, [0.0] * 1300)
    assert judged[:200] == [Verdict.TAKE] * 200
    assert judged[200:400] == [Verdict.REFUSE] * 200
    assert judged[400:1200] == [Verdict.IGNORE] * 800
    assert judged[1200:] == [Verdict.HANG_UP] * 100


def test_three_times_the_limit_is_too_much_in_the_end() -> None:
    """It takes seconds, not minutes."""
    rate = RateLimit(200.0, 0.0)
    judged = verdicts(rate, [number / 600.0 for number in range(30 * 600)])
    assert 4.0 < judged.index(Verdict.HANG_UP) / 600.0 < 10.0
