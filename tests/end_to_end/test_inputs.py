"""Publishers and face trackers against the real daemon, and the README's examples of both."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from pythonosc.udp_client import SimpleUDPClient

from tests.fakes.daemon import DaemonProcess
from tests.fakes.publisher import FakePublisher
from tests.fakes.waiting import until

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
PATIENCE_S = 20.0


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def example(title: str) -> str:
    """The Python program in the section of that title."""
    (program,) = re.findall(rf"### {title}\n(?:(?!\n##).)*?```python\n(.*?)```", README, re.DOTALL)
    return str(program)


def figure(daemon: DaemonProcess, kind: str) -> str:
    """The number of connections of a kind, as /metrics has it."""
    text = httpx.get(f"{daemon.http}/metrics").text
    (number,) = re.findall(rf'^avatar_connections{{kind="{kind}"}} (\S+)$', text, re.MULTILINE)
    return str(number)


@pytest.fixture
async def publisher() -> AsyncIterator[FakePublisher]:
    async with FakePublisher() as made:
        yield made


async def test_a_publisher_and_a_face_tracker_move_one_face(
    publisher: FakePublisher, tmp_path: Path
) -> None:
    """Both at once: the emotion earns its receipts, and the jaw is where the tracker has it."""
    port = free_port(socket.SOCK_DGRAM)
    daemon = DaemonProcess(
        tmp_path,
        AVATAR_EVENTS__CONNECT=f'["{publisher.url}"]',
        AVATAR_EVENTS__TOKENS='["s3cret"]',
        AVATAR_VMC__PORT=str(port),
    )
    await asyncio.to_thread(daemon.__enter__)
    try:
        await until(lambda: bool(publisher.answers("hello")))
        assert publisher.authorizations == ["Bearer s3cret"]
        await publisher.publish('{"emotion":"joy","intensity":0.7,"hold_ms":5000}')
        tracker = SimpleUDPClient("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=daemon.http) as http:
            while True:
                tracker.send_message("/VMC/Ext/Blend/Val", ["JawOpen", 0.75])
                tracker.send_message("/VMC/Ext/Blend/Apply", [])
                tracker.send_message(
                    "/VMC/Ext/Bone/Pos", ["Head", 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.995]
                )
                await http.get("/v1/snapshot.jpg")
                state = (await http.get("/v1/state")).json()
                controls = state["controls"]
                jaw, yaw = controls.get("jawOpen", 0.0), controls.get("yaw", 0.0)
                smiles = state["weights"].get("happy", 0.0) > 0.3
                if abs(jaw - 0.75) < 0.02 and abs(yaw - 11.5) < 0.5 and smiles:
                    break
                await asyncio.sleep(1 / 60)
        tracker._sock.close()
        await until(lambda: bool(publisher.answers("emotion.peaked")))
        assert await asyncio.to_thread(figure, daemon, "publisher") == "1.0"
        assert await asyncio.to_thread(figure, daemon, "vmc") == "1.0"
        status = await asyncio.to_thread(daemon.stop)
        assert status == 0
        await until(lambda: bool(publisher.closed_with))
        assert publisher.closed_with == [(1001, "the daemon is stopping")]
    finally:
        if daemon.process.poll() is None:
            await asyncio.to_thread(daemon.stop)


def started(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[str]]]:
    """What a test has started, and ends with it."""
    made: list[subprocess.Popen[str]] = []
    yield made
    for each in made:
        each.kill()
        each.communicate()


def test_the_readmes_examples_work(tmp_path: Path, programs: list[subprocess.Popen[str]]) -> None:
    """The publisher prints receipts until its emotion has finished; the tracker opens the mouth."""
    stream, datagram = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    publisher = started(example("Publishers").replace("9100", str(stream)), tmp_path)
    programs.append(publisher)
    (address,) = re.findall(r'^connect = \["(.*)"\]', README, re.MULTILINE)
    with DaemonProcess(
        tmp_path / "state",
        AVATAR_EVENTS__CONNECT=f'["{address.replace("9100", str(stream))}"]',
        AVATAR_VMC__PORT=str(datagram),
    ) as daemon:
        assert publisher.stdout is not None
        said = [publisher.stdout.readline() for _ in range(4)]
        for line, kind in zip(said, ("hello", "accepted", "started", "peaked"), strict=True):
            assert kind in line, said
        programs.append(started(example("Face trackers").replace("39539", str(datagram)), tmp_path))
        widest, until_s = 0.0, time.monotonic() + PATIENCE_S
        while widest < 0.5 and time.monotonic() < until_s:
            httpx.get(f"{daemon.http}/v1/snapshot.jpg")
            controls = httpx.get(f"{daemon.http}/v1/state").json()["controls"]
            widest = max(widest, controls.get("jawOpen", 0.0))
        assert widest >= 0.5
