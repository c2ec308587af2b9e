"""`/v1/frames` on real sockets with real clients."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psutil  # type: ignore[import-untyped]
import pytest
import structlog
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from adapters import frame_codec
from adapters.frames_ws import KIND, MAX_INPUT_BYTES, FramesEndpoint
from adapters.viewer import Audience
from adapters.viewer_query import Pace
from orchestrator.pacing import PULL_SHARE
from pipeline.ports import Metric
from pipeline.types import ImageFormat
from tests.fakes.frames import FakeDaemon, FakeStage, on_a_port, until
from tests.fakes.metrics import RecordingMetrics

FRAME = bytes(range(256)) * 160  # 40 KiB
HANDSHAKE = (
    b"GET /v1/frames HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass
class Server:
    """A served endpoint with its stage."""

    port: int
    daemon: FakeDaemon
    stage: FakeStage
    audience: Audience
    endpoint: FramesEndpoint
    metrics: RecordingMetrics

    def url(self, query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}/v1/frames{query}"

    def total(self, metric: Metric) -> float:
        return self.metrics.total(metric, kind=KIND)


@asynccontextmanager
async def serving(stage: FakeStage | None = None, **limits: Any) -> AsyncIterator[Server]:
    stage, metrics = stage or FakeStage(), RecordingMetrics()
    daemon = FakeDaemon(stage)
    audience = Audience(metrics, check_s=0.02, **limits)
    endpoint = FramesEndpoint(daemon, audience)
    async with on_a_port(daemon, endpoint) as port:
        yield Server(port, daemon, stage, audience, endpoint, metrics)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


async def frame(client: ClientConnection) -> tuple[frame_codec.FrameHeader, bytes]:
    async with asyncio.timeout(10):
        message = await client.recv()
    assert isinstance(message, bytes)
    return frame_codec.decode(message)


@pytest.fixture
def raw_clients() -> Iterator[list[socket.socket]]:
    """Sockets to close when the test is over."""
    opened: list[socket.socket] = []
    yield opened
    for client in opened:
        client.close()


class Stalled(Protocol):
    def __call__(self, port: int, receive_bytes: int | None = None) -> Awaitable[socket.socket]: ...


@pytest.fixture
def stalled(raw_clients: list[socket.socket]) -> Stalled:
    """Opens a client that shakes hands and then never reads."""

    async def opened(port: int, receive_bytes: int | None = None) -> socket.socket:
        client = socket.socket()
        raw_clients.append(client)
        await shake_hands(client, port, receive_bytes)
        return client

    return opened


async def shake_hands(client: socket.socket, port: int, receive_bytes: int | None) -> None:
    client.setblocking(False)
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, HANDSHAKE % port)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await loop.sock_recv(client, 1)
    assert b" 101 " in answer.splitlines()[0]


async def read_to_the_end(client: socket.socket) -> bytes:
    """Everything that still arrives."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while part := await loop.sock_recv(client, 1 << 20):
                data += part
    return bytes(data)


# --- what a viewer gets -------------------------------------------------------------------


async def test_avf1_frames_arrive_whole_and_in_order(server: Server) -> None:
    """The newest frame comes at once, then every published one, with nothing missed."""
    for _ in range(3):
        server.stage.publish(b"old")
    async with connect(server.url(), max_size=None) as client:
        header, image = await frame(client)
        assert (header.seq, image) == (3, b"old")
        for number in range(4, 34):
            server.stage.publish(FRAME)
            header, image = await frame(client)
            assert (header.seq, header.dropped, image) == (number, 0, FRAME)
    assert header.format is ImageFormat.JPEG
    assert (header.width, header.height, header.event) == (512, 512, "evt-1")
    assert header.emotion == {"neutral": 0.25, "happy": 0.75}
    assert header.pts_ms == pytest.approx(33 / 30 * 1000, abs=1e-3)


@pytest.mark.parametrize("length", [1, 125, 126, 65_535, 65_536, 400_000])
async def test_bare_framing_is_the_image_and_nothing_else(server: Server, length: int) -> None:
    """Each message is one image file, in each of WebSocket's length forms."""
    async with connect(server.url("?framing=bare"), max_size=None) as client:
        await until(lambda: server.stage.sinks)
        server.stage.publish(os.urandom(length))
        assert server.stage.newest is not None
        assert await client.recv() == server.stage.newest[1]


@pytest.mark.parametrize("fmt", list(ImageFormat))
async def test_the_format_asked_for_is_what_the_stage_is_asked_for(
    server: Server, fmt: ImageFormat
) -> None:
    """The sink names its format, and the header repeats it."""
    async with connect(server.url(f"?format={fmt}&stage=main&unknown=1")) as client:
        await until(lambda: server.stage.sinks)
        assert [sink.format for sink in server.stage.sinks] == [fmt]
        server.stage.publish()
        assert (await frame(client))[0].format is fmt


async def test_frames_in_one_breath_all_arrive(server: Server) -> None:
    """Attaching and publishing in the same turn of the loop loses no frame to a reader."""
    server.stage.publish(b"first")
    async with connect(server.url()) as client:
        await until(lambda: server.stage.sinks)
        server.stage.publish(b"second")
        assert [(await frame(client))[0].seq for _ in range(2)] == [1, 2]


async def test_max_fps_picks_frames_and_calls_none_of_the_others_missed(server: Server) -> None:
    """A third of 30 fps is asked for, every third frame arrives, `dropped` stays 0."""
    async with connect(server.url("?max_fps=10")) as slow, connect(server.url()) as full:
        await until(lambda: len(server.stage.sinks) == 2)
        picked = []
        for _ in range(31):
            server.stage.publish()
            await frame(full)
        for _ in range(11):
            header, _image = await frame(slow)
            assert header.dropped == 0
            picked.append(header.seq)
    assert picked == list(range(1, 32, 3))
    assert server.total(Metric.FRAMES_DROPPED) == 0


async def test_a_max_fps_above_the_rate_of_the_stage_skips_nothing(server: Server) -> None:
    """30 of 30 fps are all frames, 1000 of 30 as well."""
    async with (
        connect(server.url("?max_fps=30")) as same,
        connect(server.url("?max_fps=1e3")) as more,
    ):
        await until(lambda: len(server.stage.sinks) == 2)
        for number in range(1, 40):
            server.stage.publish()
            assert (await frame(same))[0].seq == (await frame(more))[0].seq == number


@given(
    st.sampled_from([1.0, 10.0, 24.0, 30.0, 60.0]),
    st.lists(st.floats(0.0, PULL_SHARE), min_size=2, max_size=50),
)
def test_a_max_fps_as_high_as_the_stages_skips_no_frame_that_comes_early(
    fps: float, early: list[float]
) -> None:
    """However far a stage pulls a deadline: that frame is the one that somebody waits for."""
    pace = Pace(fps)
    assert all(pace.due((number - share) / fps) for number, share in enumerate(early, 7))


async def test_equal_viewers_share_the_bytes(server: Server) -> None:
    """One frame is built once for all viewers with equal wishes and equal luck."""
    clients = [await connect(server.url()) for _ in range(5)]
    other = await connect(server.url("?framing=bare"))
    await until(lambda: len(server.stage.sinks) == 6)
    written: list[bytes] = []
    for sink in server.stage.sinks:
        transport = sink._transport  # type: ignore[attr-defined]
        sink._transport = _Recorder(transport, written)  # type: ignore[attr-defined]
    server.stage.publish(FRAME)
    assert Counter(map(id, written)).most_common() == [
        (id(written[0]), 5),
        (id(written[-1]), 1),
    ]
    for client in [*clients, other]:
        await client.close()


class _Recorder:
    """A transport that remembers what is written."""

    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


# --- requests that are refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values", "status", "code"),
    [
        ("format", ["gif", "JPEG", ""], 400, "invalid_message"),
        ("framing", ["mp4"], 400, "invalid_message"),
        ("max_fps", ["0", "-1", "1000.5", "nan", "inf", "", "ten"], 400, "invalid_message"),
        ("stage", ["nowhere"], 404, "unknown_stage"),
    ],
)
async def test_a_bad_query_is_refused_by_name(
    server: Server, field: str, values: list[str], status: int, code: str
) -> None:
    """The answer is the protocol's error, with the field that is to blame."""
    async with ClientSession() as http:
        for value in values:
            url = server.url(f"?{field}={value}").replace("ws", "http", 1)
            async with http.get(url) as answer:
                error = (await answer.json())["error"]
            assert (answer.status, error["code"], error["field"]) == (status, code, field)
            assert error["message"]


async def test_a_plain_request_is_told_what_this_is(server: Server) -> None:
    """GET without an upgrade is answered in the protocol's form, and the connection goes on."""
    async with ClientSession() as http:
        for _ in range(2):
            async with http.get(server.url().replace("ws", "http", 1)) as answer:
                assert answer.status == 426
                assert (await answer.json())["error"]["code"] == "upgrade_required"


async def test_no_more_viewers_than_the_limit() -> None:
    """The viewer beyond the limit gets 503, and a place as soon as one leaves."""
    async with serving(limit=2) as server:
        first = await connect(server.url())
        async with connect(server.url()):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url())
            assert refused.value.response.status_code == 503
            assert json.loads(refused.value.response.body)["error"]["code"] == "not_ready"
            await first.close()
            await until(lambda: server.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 1)
            async with connect(server.url()):
                assert server.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 2


async def test_a_token_subprotocol_is_returned_to_the_browser(server: Server) -> None:
    """A browser that offers `bearer.<token>` gives up unless it gets that back."""
    async with connect(server.url(), subprotocols=["chat", "bearer.s3cret"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "bearer.s3cret"


# --- slow viewers -------------------------------------------------------------------------


async def test_a_stalled_viewer_costs_the_others_nothing_and_is_let_go(stalled: Stalled) -> None:
    """Healthy viewers get every frame, the stalled one is gone after its limit, with 1008."""
    async with serving(stall_s=0.6) as server:
        clients = [await connect(server.url(), max_size=None) for _ in range(3)]
        deaf = await stalled(server.port)
        await until(lambda: len(server.stage.sinks) == 4)
        began = time.monotonic()
        while len(server.stage.sinks) == 4:
            info = server.stage.publish(FRAME)
            for client in clients:
                header, _image = await frame(client)
                assert (header.seq, header.dropped) == (info.seq, 0)
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 10
        assert time.monotonic() - began >= 0.6
        assert server.total(Metric.EVICTIONS) == 1
        for client in clients:
            await client.close()
        await until(lambda: server.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0)
        # It wakes up late, and still finds out why.
        reason = b"took no frame for too long"
        goodbye = struct.pack("!BBH", 0x88, 2 + len(reason), 1008) + reason
        assert (await read_to_the_end(deaf)).endswith(goodbye)


async def test_a_viewer_that_stalls_in_roomy_kernels_is_let_go_as_soon(stalled: Stalled) -> None:
    """What kernels take for a client that does not read does not count as taken."""
    async with serving(stall_s=0.6) as server:
        await stalled(server.port, receive_bytes=4 << 20)
        await until(lambda: server.stage.sinks)
        began = time.monotonic()
        while server.stage.sinks:
            server.stage.publish(FRAME[:8192])
            await asyncio.sleep(0.02)
            assert time.monotonic() - began < 5
        assert server.total(Metric.FRAMES_DROPPED) == 0


async def test_a_slow_viewer_that_goes_on_reading_stays(stalled: Stalled) -> None:
    """A trickle of reading is enough; frames are skipped and counted."""
    async with serving(stall_s=0.5) as server:
        slow = await stalled(server.port, receive_bytes=16_384)
        for _ in range(110):
            server.stage.publish(FRAME)
            await asyncio.sleep(0.01)
            with suppress(BlockingIOError):
                slow.recv(16_384)
        assert len(server.stage.sinks) == 1
        assert server.total(Metric.EVICTIONS) == 0
        assert server.total(Metric.FRAMES_DROPPED) > 10


async def test_a_viewer_of_few_small_frames_is_not_taken_for_stalled() -> None:
    """One frame now and then gives a reader's kernel little to acknowledge; it stays."""
    async with serving(stall_s=0.3) as server, connect(server.url()) as client:
        await until(lambda: server.stage.sinks)
        for number in range(1, 7):
            server.stage.publish(b"small")
            await asyncio.sleep(0.15)
            assert (await frame(client))[0].seq == number
        assert server.total(Metric.EVICTIONS) == 0


async def test_nobody_is_let_go_while_nothing_is_published() -> None:
    """Taking nothing is no fault where nothing is to be had."""
    async with serving(stall_s=0.1) as server, connect(server.url()) as client:
        await until(lambda: server.stage.sinks)
        server.stage.publish(FRAME)
        await asyncio.sleep(0.3)
        server.stage.publish(FRAME)
        assert [(await frame(client))[0].seq for _ in range(2)] == [1, 2]


async def test_the_newest_frame_reaches_a_viewer_that_catches_up_in_a_pause(
    stalled: Stalled,
) -> None:
    """When publishing pauses, a viewer that was behind ends on the last frame, not before it."""
    async with serving() as server:
        slow = await stalled(server.port, receive_bytes=16_384)
        await until(lambda: server.stage.sinks)
        for _ in range(60):
            server.stage.publish(os.urandom(30_000))
            await asyncio.sleep(0.002)
        loop = asyncio.get_running_loop()
        received = bytearray()
        async with asyncio.timeout(10):
            while b'"seq":60,' not in received:
                received += await loop.sock_recv(slow, 65_536)


async def test_dropped_is_honest() -> None:
    """For every frame that arrives: frames received plus `dropped` is frames published."""
    async with serving() as server:
        # The client reads no further ahead than one message.
        async with connect(server.url(), max_size=None, max_queue=1) as client:
            await until(lambda: server.stage.sinks)
            for _ in range(300):
                server.stage.publish(FRAME)
                await asyncio.sleep(0.001)
            received, header = 0, None
            while header is None or header.seq < 300:
                header, _image = await frame(client)
                received += 1
                assert received + header.dropped == header.seq
            assert header.dropped > 0
        await until(lambda: not server.stage.sinks)
        assert server.total(Metric.FRAMES_SENT) == received
        assert server.total(Metric.FRAMES_SENT) + server.total(Metric.FRAMES_DROPPED) == 300


async def test_frames_a_slow_encoder_left_out_count_as_missed(server: Server) -> None:
    """A gap in `seq` is a frame missed, whoever left it out."""
    async with connect(server.url("?format=png")) as client:
        await until(lambda: server.stage.sinks)
        server.stage.publish()
        server.stage.seq += 4
        server.stage.publish()
        assert [(h.seq, h.dropped) for h in [(await frame(client))[0] for _ in range(2)]] == [
            (1, 0),
            (6, 4),
        ]


async def test_a_frame_offered_twice_is_sent_once(server: Server) -> None:
    """Attaching while a frame is being published shows it once."""
    async with connect(server.url()) as client:
        await until(lambda: server.stage.sinks)
        server.stage.publish()
        assert server.stage.newest is not None
        for sink in server.stage.sinks:
            assert not sink.offer(*server.stage.newest)
        server.stage.publish()
        assert [(await frame(client))[0].seq for _ in range(2)] == [1, 2]


async def test_stalled_viewers_hold_no_pile_of_frames(stalled: Stalled) -> None:
    """Twenty viewers that read nothing, three hundred frames: memory stays flat."""
    async with serving() as server:
        for _ in range(20):
            await stalled(server.port, receive_bytes=4096)
        await until(lambda: len(server.stage.sinks) == 20)
        for _ in range(50):
            server.stage.publish(os.urandom(100_000))
            await asyncio.sleep(0.001)
        gc.collect()
        before = psutil.Process().memory_info().rss
        for _ in range(300):
            server.stage.publish(os.urandom(100_000))
            await asyncio.sleep(0.001)
        gc.collect()
        assert psutil.Process().memory_info().rss - before < 10_000_000


# --- viewers that leave -------------------------------------------------------------------


async def test_a_viewer_that_closes_is_answered_and_forgotten(server: Server) -> None:
    """The close is answered at once; nothing is sent after it."""
    client = await connect(server.url())
    await until(lambda: server.stage.sinks)
    server.stage.publish()
    await client.close(1000)
    assert client.close_code == 1000
    await until(lambda: not server.stage.sinks)
    await until(lambda: server.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0)
    assert server.total(Metric.FRAMES_SENT) == 1


async def test_viewers_that_vanish_are_forgotten(server: Server, stalled: Stalled) -> None:
    """A reset connection and one that only ends leave nothing behind."""
    reset, ended = [await stalled(server.port) for _ in range(2)]
    await until(lambda: len(server.stage.sinks) == 2)
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset.close()
    ended.shutdown(socket.SHUT_WR)
    for _ in range(5):
        server.stage.publish(FRAME)
        await asyncio.sleep(0.01)
    await until(lambda: not server.stage.sinks)
    await until(lambda: server.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0)


async def test_what_viewers_say_is_ignored_within_limits(server: Server) -> None:
    """Messages and pings do no harm; a message over the limit closes with 1009."""
    async with connect(server.url()) as client:
        await client.send("hello")
        await client.send(b"\x00" * (MAX_INPUT_BYTES - 1))
        await (await client.ping())
        server.stage.publish()
        assert (await frame(client))[0].seq == 1
        await client.send("x" * MAX_INPUT_BYTES)
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        await until(lambda: not server.stage.sinks)


async def test_a_viewer_that_pings_without_reading_is_let_go(stalled: Stalled) -> None:
    """Pongs that nobody takes do not pile up, nor do they count as progress."""
    async with serving(stall_s=0.5) as server:
        deaf = await stalled(server.port, receive_bytes=4096)
        await until(lambda: server.stage.sinks)
        ping = b"\x89" + bytes([0x80 | 125]) + bytes(4) + bytes(125)
        began = time.monotonic()
        while server.stage.sinks:
            server.stage.publish(FRAME)
            with suppress(BlockingIOError, ConnectionError):
                deaf.send(ping * 20)
            await asyncio.sleep(0.005)
            assert time.monotonic() - began < 8
        await until(lambda: server.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0)


# --- shutting down ------------------------------------------------------------------------


async def test_two_hundred_viewers_are_closed_quickly_and_politely(stalled: Stalled) -> None:
    """All get 1001; viewers that have stalled do not hold the others or us up."""
    async with serving() as server:
        clients = [await connect(server.url(), max_size=None) for _ in range(200)]
        for _ in range(5):
            await stalled(server.port, receive_bytes=4096)
        await until(lambda: len(server.stage.sinks) == 205)
        for _ in range(10):
            server.stage.publish(FRAME)
            await asyncio.gather(*(frame(client) for client in clients))
        began = time.monotonic()
        closing = asyncio.create_task(server.endpoint.close())
        for client in clients:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1001
        await closing
        assert time.monotonic() - began < 5  # a bound on hanging, not a measurement
        assert not server.stage.sinks
        assert server.metrics.gauge(Metric.CONNECTIONS, kind=KIND) == 0
        with pytest.raises(InvalidStatus, match="503"):
            await connect(server.url())


async def test_viewers_of_a_removed_stage_are_closed_and_no_others(server: Server) -> None:
    """1001 for those, too, who come a moment too late; another stage of that name has its own."""
    other, again = FakeStage("other"), FakeStage()
    server.daemon.stages["other"] = other
    async with connect(server.url()) as gone, connect(server.url("?stage=other")) as stays:
        await until(lambda: server.stage.sinks and other.sinks)
        server.audience.let_go(server.stage)
        with pytest.raises(ConnectionClosed):
            await frame(gone)
        assert (gone.close_code, gone.close_reason) == (1001, "the stage has been removed")
        async with connect(server.url()) as late:
            with pytest.raises(ConnectionClosed):
                await frame(late)
            assert late.close_code == 1001
        server.daemon.stages["main"] = again
        async with connect(server.url()) as new:
            await until(lambda: again.sinks)
            again.publish(b"of the new stage")
            other.publish(b"of the other")
            assert (await frame(new))[1] == b"of the new stage"
        assert (await frame(stays))[1] == b"of the other"


async def test_closing_twice_is_harmless(server: Server) -> None:
    """The second close finds nothing to do, also while the first is at it."""
    async with connect(server.url()):
        await until(lambda: server.stage.sinks)
        await asyncio.gather(server.endpoint.close(), server.endpoint.close())
    await server.endpoint.close()


async def test_one_line_per_opening_and_closing(server: Server) -> None:
    """The log says when a viewer came, when and why it went, and what it got; no more."""
    with structlog.testing.capture_logs() as lines:
        async with connect(server.url("?max_fps=15")):
            await until(lambda: server.stage.sinks)
            for _ in range(5):
                server.stage.publish()
        await until(lambda: not server.stage.sinks)
    assert [line["event"] for line in lines] == ["viewer_opened", "viewer_closed"]
    assert lines[0].items() >= {"stage": "main", "format": "jpeg", "max_fps": 15.0}.items()
    assert lines[1].items() >= {"parting": "left", "sent": 3, "dropped": 0}.items()
    json.dumps(lines)


async def test_a_crowd_comes_and_goes_one_by_one(raw_clients: list[socket.socket]) -> None:
    """However many come or leave at once, each turn of the event loop has one of them at most."""
    crowd, turns, now = 40, Counter[str](), 0

    class CountingStage(FakeStage):
        def attach(self, sink: Any) -> None:
            turns[f"come {now}"] += 1
            super().attach(sink)

        def detach(self, sink: Any) -> None:
            turns[f"go {now}"] += 1
            super().detach(sink)

    async def count_turns() -> None:
        nonlocal now
        while True:
            now += 1
            await asyncio.sleep(0)

    async with serving(stage=CountingStage()) as server:
        counting = asyncio.create_task(count_turns())
        raw_clients += [socket.socket() for _ in range(crowd)]
        for client in raw_clients:
            # Without a turn of the loop in between, so that all their requests wait for it.
            client.connect(("127.0.0.1", server.port))
            client.sendall(HANDSHAKE % server.port)
        await until(lambda: len(server.stage.sinks) == crowd)
        for client in raw_clients:
            client.close()
        await until(lambda: not server.stage.sinks)
        counting.cancel()
    assert sum(turns.values()) == 2 * crowd
    assert set(turns.values()) == {1}
