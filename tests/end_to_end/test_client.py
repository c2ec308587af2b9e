"""The Python client against the running daemon."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.client import (
    ConnectError,
    EmotionRejected,
    NotShownError,
    Producer,
    Reconnect,
    Viewer,
)
from tests.fakes.daemon import DaemonProcess

SOON = Reconnect(first_s=0.05, limit_s=0.2)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path_factory.mktemp("state"), AVATAR_IDLE__ENABLED="false") as process:
        yield process


class Wire:
    """A TCP relay in front of the daemon, which can be cut like a cable."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def run(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def ended(self) -> None:
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, to_there]
        for source, sink in ((reader, to_there), (there, writer)):
            task = asyncio.create_task(self._relay(source, sink))
            self._tasks.add(task)

    @staticmethod
    async def _relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()


@pytest.fixture
async def wire(daemon: DaemonProcess) -> AsyncIterator[Wire]:
    relay = Wire(daemon.port)
    server = await relay.run()
    yield relay
    server.close()
    await relay.ended()
    await server.wait_closed()


async def test_everything_a_producer_can_do(daemon: DaemonProcess) -> None:
    """Each call is answered by the real daemon with what its type says."""
    async with asyncio.timeout(30), Producer(daemon.http) as producer:
        assert "happy" in producer.hello.emotions
        assert producer.hello.policies == ("replace", "queue", "blend", "override")
        cue = await producer.emotion("JOY", 0.7, mix={"surprised": 0.2}, attack_ms=60, hold_ms=60)
        assert cue.accepted is not None
        assert (cue.emotion, cue.accepted.mapped_from) == ("happy", "JOY")
        assert (await cue.started).seq <= (await cue.peaked).seq
        assert (await cue.ended).kind == "finished"
        with pytest.raises(EmotionRejected) as rejected:
            await producer.emotion("hapy")
        assert (rejected.value.field, rejected.value.suggestions[0]) == ("emotion", "happy")
        with pytest.raises(EmotionRejected) as invalid:
            await producer.emotion("happy", hold_ms=-5)
        assert (invalid.value.code, invalid.value.field) == ("invalid_message", "hold_ms")
        held = await producer.emotion("sad", attack_ms=5000, hold_ms=None)
        by = await producer.emotion("angry", hold_ms=None)
        with pytest.raises(NotShownError):
            await held.peaked
        assert (await held.ended).by == by.id
        await by.peaked
        assert (await producer.interrupt(fade_ms=50)).superseded == (by.id,)
        await producer.state("thinking")
        await producer.mood(0.3, 0.1, decay_ms=1000)
        await producer.controls({"JawOpen": 0.4}, head={"yaw": 5})
        assert (await producer.get_state())["state"] == "thinking"
        assert (await producer.character("astronaut")).character == "astronaut"
        assert 0.0 < await producer.ping() < 5000.0
        pieces = [piece async for piece in producer.pipe(["See [1]: [hap", "py:0.5] so ", "good"])]
        assert "".join(piece.text for piece in pieces) == "See [1]:  so good"
        (tagged,) = [each for piece in pieces for each in piece.cues]
        assert (tagged.emotion, tagged.intensity) == ("happy", 0.5)
        await tagged.peaked
        assert (await producer.text("bye", final=True)).text == "bye"


async def test_a_cable_that_is_cut(daemon: DaemonProcess, wire: Wire) -> None:
    """Cues and the picture go on after it; nothing happens twice; missed receipts arrive."""
    url = f"http://127.0.0.1:{wire.port}"
    async with (
        asyncio.timeout(40),
        Producer(url, reconnect=SOON) as producer,
        Viewer(url, max_fps=10, reconnect=SOON) as viewer,
        Producer(daemon.http) as witness,
    ):
        cues = []
        for number in range(6):
            cue = await producer.emotion("happy", 0.5 + number / 20, attack_ms=40, hold_ms=200)
            cues.append(cue)
            if number % 2:
                wire.cut()
        endings = [await cue.ended for cue in cues]
        assert [ending.kind for ending in endings] == ["superseded"] * 5 + ["finished"]
        assert [ending.by for ending in endings[:5]] == [cue.id for cue in cues[1:]]
        assert (await cues[-1].started).seq <= (await cues[-1].peaked).seq
        first = await viewer.frame()
        wire.cut()
        waiting = asyncio.create_task(producer.emotion("sad", hold_ms=100))
        later = [await viewer.frame() for _ in range(3)]
        assert first.seq < later[-1].seq
        assert later[-1].image.startswith(b"\xff\xd8\xff")
        await (await waiting).started
        assert len((await witness.get_state())["cues"]) <= 2


async def test_a_daemon_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """What has not ended is asked for again, and is seen."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {"AVATAR_SERVER__PORT": port, "AVATAR_AUTH__TOKEN": "s3cret"}
    url = f"ws://127.0.0.1:{port}"
    with DaemonProcess(tmp_path / "state", **settings) as first:
        with pytest.raises(ConnectError, match="token") as refused:
            async with Producer(url):
                pass
        assert refused.value.status == 401
        async with asyncio.timeout(50), Producer(url, token="s3cret", reconnect=SOON) as producer:
            cue = await producer.emotion("surprised", hold_ms=300)
            await cue.started
            first.signal(signal.SIGKILL)
            await asyncio.to_thread(first.wait)
            asked = asyncio.create_task(producer.emotion("happy", hold_ms=100))
            second = DaemonProcess(tmp_path / "state", **settings)
            await asyncio.to_thread(second.__enter__)
            try:
                assert (await cue.ended).by == (await asked).id
                assert (await (await asked).ended).kind == "finished"
            finally:
                await asyncio.to_thread(second.stop)
