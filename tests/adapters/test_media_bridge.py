"""The MediaBridge sink against a receiver that drops, stalls, refuses and comes back."""

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

from adapters.dialling import Backoff
from adapters.media_bridge import KIND, MediaBridgeSink
from pipeline.ports import Metric
from pipeline.types import ImageFormat
from tests.fakes.frames import FakeStage, until
from tests.fakes.media_bridge import FakeMediaBridge
from tests.fakes.metrics import RecordingMetrics

FRAME = bytes(40_000)


class Running:
    """A sink at work, its stage and its figures."""

    def __init__(self, sink: MediaBridgeSink, stage: FakeStage, metrics: RecordingMetrics) -> None:
        self.sink = sink
        self.stage = stage
        self.metrics = metrics

    @property
    def connected(self) -> bool:
        return self.metrics.gauge(Metric.MEDIA_BRIDGE_CONNECTED) == 1

    @property
    def reconnects(self) -> float:
        return self.metrics.total(Metric.MEDIA_BRIDGE_RECONNECTS)


@asynccontextmanager
async def pushing(url: str, token: str | None = None, **limits: Any) -> AsyncIterator[Running]:
    stage, metrics = FakeStage(), RecordingMetrics()
    settings: dict[str, Any] = {
        "max_delay_s": 0.02,
        "check_s": 0.02,
        "rng": random.Random(1),
    } | limits
    sink = MediaBridgeSink(url, token, stage=stage, metrics=metrics, **settings)
    task = asyncio.create_task(sink.run())
    try:
        yield Running(sink, stage, metrics)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def logged(event: str) -> AsyncIterator[list[Any]]:
    """The lines of that event, complete after the block."""
    lines: list[Any] = []
    with structlog.testing.capture_logs() as captured:
        yield lines
    lines += [line for line in captured if line["event"] == event]


@pytest.fixture
async def bridge() -> AsyncIterator[FakeMediaBridge]:
    async with FakeMediaBridge() as made:
        yield made


async def test_frames_arrive_as_avf1_with_the_token_shown(bridge: FakeMediaBridge) -> None:
    """The newest frame comes first, then every one, each a whole `avf1` message."""
    async with pushing(bridge.url, "s3cret") as running:
        running.stage.publish(b"first")
        await until(lambda: bridge.received)
        for _ in range(10):
            info = running.stage.publish(FRAME)
            await until(lambda: bridge.received[-1][0].seq == info.seq)  # noqa: B023 - awaited here
    assert bridge.authorizations == ["Bearer s3cret"]
    assert [header.seq for header, _ in bridge.received] == list(range(1, 12))
    header, image = bridge.received[-1]
    assert image == FRAME
    assert (header.width, header.height, header.format) == (512, 512, ImageFormat.JPEG)
    assert (header.dropped, header.emotion) == (0, {"neutral": 0.25, "happy": 0.75})


async def test_without_a_token_none_is_shown(bridge: FakeMediaBridge) -> None:
    """No Authorization header goes out where no token is set."""
    async with pushing(bridge.url) as running:
        await until(lambda: running.connected)
    assert bridge.authorizations == [None]


async def test_frames_that_come_too_fast_are_replaced_by_newer_ones(
    bridge: FakeMediaBridge,
) -> None:
    """One message is on its way and one frame waits: the newest; the rest count as missed."""
    async with pushing(bridge.url) as running:
        await until(lambda: running.connected)
        await until(lambda: running.stage.sinks)
        taken = [running.sink.offer(*_frame(running)) for _ in range(20)]
        assert taken == [True] + [False] * 19
        await until(lambda: bridge.received)
        await asyncio.sleep(0.05)
        assert [(header.seq, header.dropped) for header, _ in bridge.received] == [(20, 19)]
        await until(lambda: running.metrics.total(Metric.FRAMES_DROPPED, kind=KIND) == 19)
        await until(lambda: running.metrics.total(Metric.FRAMES_SENT, kind=KIND) == 1)


def _frame(running: Running) -> Any:
    sinks, running.stage.sinks = running.stage.sinks, {}
    running.stage.publish(FRAME)
    running.stage.sinks = sinks
    return running.stage.newest


async def test_a_dropped_connection_is_made_again(bridge: FakeMediaBridge) -> None:
    """After each cut the frames go on, newest first, and the reconnects are counted."""
    async with pushing(bridge.url) as running:
        for cut in range(1, 4):
            await until(lambda: running.connected and bridge.connections)
            running.stage.publish(FRAME)
            await until(lambda: bridge.received and bridge.received[-1][0].seq == running.stage.seq)
            bridge.drop()
            await until(lambda: bridge.accepted == cut + 1)  # noqa: B023 - awaited here
        await until(lambda: running.reconnects == 3)
    # The last frame was sent again to each new connection, with a count of its own.
    assert all(header.dropped == 0 for header, _ in bridge.received)


async def test_a_receiver_that_closes_in_order_is_dialled_again(bridge: FakeMediaBridge) -> None:
    """A restart on the other side, with 1012 or 1001, is no reason to stop."""
    async with pushing(bridge.url) as running:
        for code in (1000, 1001, 1012):
            await until(lambda: bridge.connections)
            accepted = bridge.accepted
            await bridge.close(code)
            await until(lambda: bridge.accepted > accepted)  # noqa: B023 - awaited here
        await until(lambda: running.connected)


async def test_a_receiver_that_is_away_is_found_when_it_is_back(bridge: FakeMediaBridge) -> None:
    """Nothing is attached to the stage meanwhile, so nothing is rendered for nobody."""
    async with pushing(bridge.url) as running:
        await until(lambda: running.connected)
        await bridge.go_away()
        await until(lambda: not running.connected)
        assert not running.stage.sinks
        for _ in range(10):
            running.stage.publish(FRAME)
            await asyncio.sleep(0.01)
        assert not running.connected
        await bridge.come_back()
        await until(lambda: running.connected and bridge.received)
        assert [header.seq for header, _ in bridge.received] == [10]
        assert list(running.stage.sinks) == [running.sink]
    assert not running.stage.sinks


async def test_a_receiver_that_stalls_is_given_up(bridge: FakeMediaBridge) -> None:
    """It keeps the connection and reads nothing: after the limit a new one is made, and why."""
    async with (
        pushing(bridge.url, stall_s=0.4) as running,
        logged("media_bridge_lost") as lost,
    ):
        await until(lambda: running.connected and bridge.connections)
        bridge.stall()
        while bridge.accepted == 1:
            running.stage.publish(FRAME)
            await asyncio.sleep(0.005)
        assert running.metrics.total(Metric.FRAMES_DROPPED, kind=KIND) > 0
        bridge.received.clear()
        running.stage.publish(b"after")
        await until(lambda: any(image == b"after" for _, image in bridge.received))
        bridge.drop()
    assert lost[0]["reason"] == "SinkError: took nothing for 0.4 s"


async def test_a_half_open_connection_is_noticed_without_traffic(bridge: FakeMediaBridge) -> None:
    """With no frame to send, an unanswered ping tells that nobody is there."""
    async with pushing(bridge.url, ping_s=0.1) as running:
        await until(lambda: running.connected and bridge.connections)
        bridge.stall()
        await until(lambda: bridge.accepted == 2)
        bridge.drop()


async def test_a_receiver_that_never_answers_is_given_up_and_tried_again(
    bridge: FakeMediaBridge,
) -> None:
    """A port that accepts and stays silent holds an attempt no longer than its limit."""
    await bridge.go_away()
    bridge.listen_in_silence()
    async with pushing(bridge.url, open_s=0.1) as running:
        await asyncio.sleep(0.3)
        assert not running.connected
        await bridge.go_away()
        await bridge.come_back()
        await until(lambda: running.connected)


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_a_refusal_is_logged_once_and_tried_again(
    bridge: FakeMediaBridge, status: int
) -> None:
    """One line for the refusal however often it is repeated, one when it ends."""
    bridge.refuse_status = status
    with structlog.testing.capture_logs() as lines:
        async with pushing(bridge.url, "s3cret") as running:
            await until(lambda: len(bridge.authorizations) >= 4)
            bridge.refuse_status = None
            await until(lambda: running.connected)
            bridge.drop()
            await until(lambda: bridge.accepted == 2)
            await until(lambda: running.connected)
    assert [line["event"] for line in lines] == [
        "media_bridge_unreachable",
        "media_bridge_connected",
        "media_bridge_lost",
        "media_bridge_connected",
    ]
    assert str(status) in lines[0]["reason"]
    assert "s3cret" not in str(lines)


@pytest.mark.parametrize(
    "url",
    [
        "ws://user:s3cret@127.0.0.1:1/ingest?token=s3cret",
        "ws://no-such-host.invalid/?token=s3cret",
        "ws://" + "x" * 80 + "/?token=s3cret",
        "wss://127.0.0.1:1/?token=s3cret",
    ],
)
async def test_an_unreachable_address_is_tried_for_ever_and_not_told_in_full(url: str) -> None:
    """No kind of failure ends the sink, and the log shows no secrets."""
    with structlog.testing.capture_logs() as lines:
        async with pushing(url) as running:
            await until(lambda: lines)
            await asyncio.sleep(0.1)
            assert not running.connected
            assert not running.stage.sinks
    assert {line["event"] for line in lines} == {"media_bridge_unreachable"}
    assert "s3cret" not in str(lines)


async def test_what_the_receiver_says_is_ignored(bridge: FakeMediaBridge) -> None:
    """Text and binary messages from the other side do no harm."""
    async with pushing(bridge.url) as running:
        await until(lambda: bridge.connections)
        await bridge.connections[0].send("hello")
        await bridge.connections[0].send(bytes(10_000))
        running.stage.publish(FRAME)
        await until(lambda: bridge.received)
        assert bridge.accepted == 1


@pytest.mark.parametrize("trusted", [True, False])
async def test_wss_is_pushed_to_only_if_the_certificate_is_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """Every frame arrives over TLS, a stall is noticed there too; a stranger gets nothing."""
    key, signed = certificate
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(signed))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    with structlog.testing.capture_logs() as lines:
        async with FakeMediaBridge(context) as bridge, pushing(bridge.url, stall_s=0.4) as running:
            if not trusted:
                await until(lambda: lines)
                assert lines[0]["event"] == "media_bridge_unreachable"
                assert "CERTIFICATE_VERIFY_FAILED" in lines[0]["reason"]
                return
            await until(lambda: running.connected and bridge.connections)
            for _ in range(20):
                info = running.stage.publish(FRAME)
                await until(
                    lambda: bridge.received and bridge.received[-1][0].seq == info.seq  # noqa: B023 - awaited here
                )
            assert len(bridge.received) == 20
            bridge.stall()
            while bridge.accepted == 1:
                running.stage.publish(FRAME)
                await asyncio.sleep(0.005)


async def test_stopping_says_goodbye(bridge: FakeMediaBridge) -> None:
    """Cancelled, the sink closes with 1001 and detaches."""
    async with pushing(bridge.url) as running:
        await until(lambda: running.connected and bridge.connections)
    await until(lambda: bridge.closed_with)
    assert bridge.closed_with == [1001]
    assert not running.connected
    assert not running.stage.sinks


async def test_stopping_does_not_wait_for_a_receiver_that_has_stalled(
    bridge: FakeMediaBridge,
) -> None:
    """A goodbye that nobody takes is cut short."""
    async with pushing(bridge.url) as running:
        await until(lambda: running.connected and bridge.connections)
        bridge.stall()
        for _ in range(200):
            running.stage.publish(bytes(100_000))
            await asyncio.sleep(0.001)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    bridge.drop()


# --- the delays ---------------------------------------------------------------------------


def test_delays_double_up_to_the_limit_with_jitter() -> None:
    """Each delay lies between half and all of 0.5, 1, 2, ... 30 s, at random."""
    backoff = Backoff(30.0, random.Random(7))
    nominal = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    delays = [backoff.next_s() for _ in nominal]
    for delay, most in zip(delays, nominal, strict=True):
        assert most / 2 <= delay <= most
    assert len(set(delays[-3:])) == 3
    backoff.reset()
    assert backoff.next_s() <= 0.5


async def test_only_a_connection_that_lasts_makes_the_next_delay_short_again(
    bridge: FakeMediaBridge,
) -> None:
    """A receiver that accepts and drops at once is not hammered."""
    now_s = 0.0
    resets: list[float] = []
    async with pushing(bridge.url, stable_s=5.0, clock=lambda: now_s) as running:
        running.sink._backoff.reset = lambda: resets.append(now_s)  # type: ignore[method-assign]
        await until(lambda: running.connected and bridge.connections)
        now_s = 4.9
        bridge.drop()
        await until(lambda: bridge.accepted == 2 and running.connected)
        assert resets == []
        now_s = 10.0
        bridge.drop()
        await until(lambda: resets)
    assert resets == [10.0]


async def test_why_it_is_not_connected_is_known(bridge: FakeMediaBridge) -> None:
    """Until it is connected, and from the moment it is lost, the sink says what is wrong."""
    bridge.refuse_status = 503
    async with pushing(bridge.url) as running:
        assert running.sink.problem
        await until(lambda: "503" in (running.sink.problem or ""))
        bridge.refuse_status = None
        await until(lambda: running.sink.problem is None)
        assert running.connected
        await bridge.go_away()
        await until(lambda: running.sink.problem is not None)
