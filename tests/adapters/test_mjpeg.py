"""`/v1/stream.mjpg` on real sockets, read by hand, by aiohttp and by ffmpeg."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from typing import Any

import numpy as np
import pytest
import simplejpeg
from aiohttp import ClientSession, ClientTimeout, StreamReader

from adapters.mjpeg import KIND, MjpegEndpoint
from adapters.viewer import Audience
from pipeline.ports import Metric
from tests.fakes.frames import FakeDaemon, FakeStage, on_a_port, until
from tests.fakes.metrics import RecordingMetrics

FRAME = b"\xff\xd8" + bytes(40_000) + b"\xff\xd9"


@dataclass
class Server:
    """A served endpoint with its stage."""

    port: int
    stage: FakeStage
    endpoint: MjpegEndpoint
    metrics: RecordingMetrics

    def url(self, query: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/v1/stream.mjpg{query}"

    @property
    def connections(self) -> float | None:
        return self.metrics.gauge(Metric.CONNECTIONS, kind=KIND)


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Server]:
    stage, metrics = FakeStage(), RecordingMetrics()
    daemon = FakeDaemon(stage)
    endpoint = MjpegEndpoint(daemon, Audience(metrics, check_s=0.02, **limits))
    async with on_a_port(daemon, endpoint) as port:
        yield Server(port, stage, endpoint, metrics)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.setblocking(False)
        yield made


async def part(body: StreamReader) -> tuple[dict[str, str], bytes]:
    """The next part of a body whose last line read was a boundary."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        head += await body.readuntil(b"\r\n")
    headers = dict(BytesHeaderParser().parsebytes(bytes(head)))
    image = await body.readexactly(int(headers["Content-Length"]))
    assert await body.readuntil(b"\r\n") == b"\r\n"
    assert await body.readuntil(b"\r\n") == b"--frame\r\n"
    return headers, image


async def request(client: socket.socket, port: int, version: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    text = f"GET /v1/stream.mjpg HTTP/{version}\r\nHost: 127.0.0.1\r\n\r\n"
    await loop.sock_sendall(client, text.encode())


async def test_parts_are_whole_images_with_their_length(
    server: Server, http: ClientSession
) -> None:
    """The newest frame comes at once, each later one as it is published."""
    server.stage.publish(b"\xff\xd8old\xff\xd9")
    async with http.get(server.url()) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.content.readuntil(b"\r\n") == b"--frame\r\n"
        headers, image = await part(answer.content)
        assert image == b"\xff\xd8old\xff\xd9"
        for number in range(2, 12):
            server.stage.publish(FRAME)
            headers, image = await part(answer.content)
            assert image == FRAME
            assert headers["Content-Type"] == "image/jpeg"
            assert (headers["X-Seq"], headers["X-Dropped"]) == (str(number), "0")
        assert float(headers["X-Timestamp"]) == pytest.approx(1.7e9 + 11 / 30, abs=1e-5)


async def test_max_fps_picks_frames(server: Server, http: ClientSession) -> None:
    """A third of 30 fps is asked for, every third frame arrives."""
    async with http.get(server.url("?max_fps=10")) as answer:
        await until(lambda: server.stage.sinks)
        for _ in range(30):
            server.stage.publish(b"tiny")
            await asyncio.sleep(0)
        await answer.content.readuntil(b"\r\n")
        heads = [(await part(answer.content))[0] for _ in range(10)]
    assert [head["X-Seq"] for head in heads] == [str(seq) for seq in range(1, 31, 3)]
    assert {head["X-Dropped"] for head in heads} == {"0"}


async def test_an_http_1_0_client_gets_the_bare_stream(
    server: Server, client: socket.socket
) -> None:
    """Without chunks, which it would not understand, up to the end of the connection."""
    server.stage.publish(b"image")
    await request(client, server.port, "1.0")
    loop = asyncio.get_running_loop()
    data = bytearray()
    while b"image" not in data:
        data += await loop.sock_recv(client, 4096)
    await server.endpoint.close()
    while more := await loop.sock_recv(client, 4096):
        data += more
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b"--frame\r\nContent-Type: image/jpeg\r\n")
    assert body.endswith(b"\r\n\r\nimage\r\n--frame\r\n")


async def test_head_is_answered_without_a_stream(server: Server, http: ClientSession) -> None:
    """A client that only asks what this is gets the headers."""
    async with http.head(server.url()) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
    assert server.connections is None


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [("?format=png", 400, "format"), ("?max_fps=no", 400, "max_fps"), ("?stage=x", 404, "stage")],
)
async def test_a_bad_query_is_refused_by_name(
    server: Server, http: ClientSession, query: str, status: int, field: str
) -> None:
    """The answer is the protocol's error, with the field that is to blame."""
    async with http.get(server.url(query)) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["field"] == field


async def test_the_stream_ends_cleanly_at_shutdown(server: Server, http: ClientSession) -> None:
    """The body is complete: a client sees an end, not an error."""
    async with http.get(server.url()) as answer:
        server.stage.publish(FRAME)
        await answer.content.readuntil(b"\r\n")
        await part(answer.content)
        await server.endpoint.close()
        assert await answer.content.read() == b""
    assert server.connections == 0
    async with http.get(server.url()) as late:
        assert late.status == 503


async def test_a_stalled_client_misses_frames_and_is_let_go(
    client: socket.socket, http: ClientSession
) -> None:
    """Another viewer gets every frame meanwhile; a shutdown does not wait for the stalled one."""
    async with serving(stall_s=0.5) as server, http.get(server.url()) as healthy:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await request(client, server.port, "1.1")
        await until(lambda: len(server.stage.sinks) == 2)
        await healthy.content.readuntil(b"\r\n")
        began = time.monotonic()
        while len(server.stage.sinks) == 2:
            info = server.stage.publish(FRAME)
            headers, _image = await part(healthy.content)
            assert (headers["X-Seq"], headers["X-Dropped"]) == (str(info.seq), "0")
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 10
        await until(lambda: server.connections == 1)
        assert server.metrics.total(Metric.EVICTIONS, kind=KIND) == 1
        assert server.metrics.total(Metric.FRAMES_DROPPED, kind=KIND) > 0


async def test_a_slow_client_is_told_what_it_missed(server: Server, client: socket.socket) -> None:
    """`X-Dropped` of a frame counts those that were replaced while it did not read."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await request(client, server.port, "1.1")
    await until(lambda: server.stage.sinks)
    for _ in range(60):
        server.stage.publish(FRAME)
        await asyncio.sleep(0.001)
    data = bytearray()
    async with asyncio.timeout(10):
        while b"X-Seq: 60\r\n" not in data or not data.endswith(b"--frame\r\n\r\n"):
            data += await asyncio.get_running_loop().sock_recv(client, 65_536)
    missed = int(data.rpartition(b"X-Dropped: ")[2].partition(b"\r\n")[0])
    assert missed > 0
    assert missed + data.count(b"X-Seq: ") == 60


async def test_a_client_that_vanishes_is_forgotten(server: Server, http: ClientSession) -> None:
    """Also while nothing is published."""
    answer = await http.get(server.url())
    await until(lambda: server.stage.sinks)
    answer.close()
    await until(lambda: not server.stage.sinks)
    await until(lambda: server.connections == 0)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
async def test_ffmpeg_plays_it(server: Server) -> None:
    """ffmpeg, and so ffplay, OpenCV and OBS, decode the very images that were published."""
    published = {}

    async def publish() -> None:
        for shade in range(0, 256, 4):
            image = np.full((64, 64, 3), shade, np.uint8)
            jpeg = simplejpeg.encode_jpeg(image, quality=95)
            server.stage.publish(jpeg)
            published[shade] = jpeg
            await asyncio.sleep(0.02)

    command = "ffmpeg -v error -f mpjpeg -i URL -frames:v 10 -f rawvideo -pix_fmt gray pipe:1"
    player = await asyncio.create_subprocess_exec(
        *command.replace("URL", server.url()).split(), stdout=asyncio.subprocess.PIPE
    )
    await until(lambda: server.stage.sinks)
    publishing = asyncio.create_task(publish())
    output, _ = await player.communicate()
    with suppress(asyncio.CancelledError):
        publishing.cancel()
        await publishing
    assert player.returncode == 0
    frames = np.frombuffer(output, np.uint8).reshape(10, 64, 64)
    shades = [round(float(frame.mean())) for frame in frames]
    assert np.diff(shades).tolist() == pytest.approx([4] * 9, abs=1)


async def test_the_stream_of_a_removed_stage_ends(server: Server, http: ClientSession) -> None:
    """The response ends; the place is free again."""
    async with http.get(server.url()) as response:
        await until(lambda: server.stage.sinks)
        server.stage.publish()
        server.endpoint._audience.let_go(server.stage)
        assert (await response.content.read()).endswith(b"--frame\r\n")
    await until(lambda: server.connections == 0)
