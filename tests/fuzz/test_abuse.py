"""Requests, frames and names that are meant badly, sent to the running daemon over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect

from tests.fakes.daemon import DaemonProcess
from tests.fuzz.sockets import SETTINGS, state

DEEP = "[" * 15_000 + "]" * 15_000
PACKED = gzip.compress(bytes(60 * 2**20), 9)
PATHS = (
    "../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..\\..\\x",
    "..%5c..%5cx", "%00", "astronaut%00.jpg", "/etc/passwd", "%2fetc%2fpasswd", "....//....//etc",
    "%c0%ae%c0%ae/", "%ff%fe", "%ef%bc%8e%ef%bc%8e%ef%bc%8f", ".", "..", "~", "a" * 3000,
    "astronaut/../astronaut", "con", "%0d%0aX-Evil:1", "%F0%9F%98%80", "-rf", "*", "?", "#",
)  # fmt: skip
ROUTES = (
    ("GET", "/{}"), ("GET", "/studio/{}"), ("GET", "/v1/characters/{}/thumbnail.jpg"),
    ("GET", "/v1/characters/{}/sheet.jpg"), ("DELETE", "/v1/characters/{}"),
    ("DELETE", "/v1/stages/{}"), ("GET", "/v1/state?stage={}"), ("GET", "/v1/frames?format={}"),
    ("GET", "/v1/snapshot.jpg?stage={}"), ("GET", "/health?stage={}"),
)  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path_factory.mktemp("state"), **SETTINGS) as process:
        yield process


@pytest.fixture(autouse=True)
def unharmed(daemon: DaemonProcess) -> Iterator[None]:
    """Whatever was sent, the face and the health are as before, memory too, and no error logged."""
    before, rss = state(daemon), psutil.Process(daemon.process.pid).memory_info().rss
    yield
    assert state(daemon) == before
    assert psutil.Process(daemon.process.pid).memory_info().rss - rss < 64 * 2**20
    assert [line for line in daemon.log if line.get("level") in {"error", "critical"}] == []


def ask(
    daemon: DaemonProcess, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    """A request as it is written here."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# --- names --------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_no_name_in_an_address_leads_anywhere(
    daemon: DaemonProcess, method: str, route: str
) -> None:
    """A 4xx with the error as JSON, or the answer of the route that it is by itself."""
    for trick in PATHS:
        status, body = ask(daemon, method, route.format(trick))
        assert status < 500, (trick, body)
        assert b"root:" not in body
        if status >= 400:
            assert json.loads(body)["error"]["code"], trick


def test_no_name_in_a_body_leads_anywhere(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Characters and stages have plain names; nothing is written elsewhere."""
    names = ["../x", "/x", "a\0b", "..", ".", "", "a/b", "a\\b", "\u202ex", "é", "x" * 65, "A B"]
    for name in names:
        for path, body in (
            ("/v1/stages", {"name": name}),
            ("/v1/stages", {"name": "fine", "character": name or "?"}),
            ("/v1/characters", {"name": name, "url": "http://127.0.0.1:9/x"}),
            ("/v1/events", {"type": "character", "character": name}),
            ("/v1/events", {"type": "emotion", "emotion": "happy", "stage": name or "?"}),
        ):
            sent = json.dumps(body).encode()
            status, answer = ask(daemon, "POST", path, sent, Content_Type="application/json")
            assert 400 <= status < 500, (path, body, status, answer)
            assert json.loads(answer)["error"]["code"]


# --- bodies -------------------------------------------------------------------------------


BOMBS = {
    "nested": f'{{"name":"a","x":{DEEP}}}',
    "nested where it matters": f'{{"name":{DEEP},"type":{DEEP}}}',
    "nested objects": '{"name":' * 5000,
    "a number of thousands of digits": '{"name":"a","fps":' + "9" * 30_000 + "}",
    "an endless number": '{"name":"a","fps":1e999}',
    "not a number": '{"name":"a","fps":NaN}',
    "a lone surrogate": '{"name":"\\ud800","fps":2}',
    "bytes that are no text": '{"name":"\udcff\udcfe"}',
    "a byte order mark": '\ufeff{"name":"a"}',
    "nothing": "",
    "null": "null",
    "a list": "[1,2,3]",
}


@pytest.mark.parametrize("path", ["/v1/events", "/v1/stages", "/v1/characters"])
@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_json_that_is_meant_badly_is_refused(daemon: DaemonProcess, path: str, body: str) -> None:
    """400 in the one form of errors."""
    sent = body.encode(errors="surrogateescape")
    status, answer = ask(daemon, "POST", path, sent, Content_Type="application/json")
    assert status == 400, answer
    assert json.loads(answer)["error"]["code"] in {"invalid_json", "invalid_message"}


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/characters", "gains"), ("/api/render/batch", "expressions")]
)
def test_json_in_a_form_is_no_way_in(daemon: DaemonProcess, path: str, name: str) -> None:
    """The same in fields of forms."""
    for value in (DEEP, '["\\ud800"]', '{"a":' * 5000, "[" * 50_000):
        body = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n--b--\r\n'
        kind = {"Content_Type": "multipart/form-data; boundary=b"}
        status, answer = ask(daemon, "POST", path, body.encode(), **kind)
        assert status == 400, answer
        assert json.loads(answer)["error"]["field"] == name


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/characters", "name"), ("/v1/stages", "name"), ("/v1/characters", "gains")],
)
def test_a_key_that_is_there_twice_is_refused(daemon: DaemonProcess, path: str, field: str) -> None:
    """In bodies, and in the JSON of a form; however it is written."""
    for twice in ('{"name":"a","n\\u0061me":"b"}', '{"name":"a","name":"a","fps":9}'):
        sent, kind = twice.encode(), "application/json"
        if field == "gains":
            value = twice.replace("name", "happy").replace('"a"', "1").replace('"b"', "1")
            value = value.replace("n\\u0061me", "h\\u0061ppy")
            part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
            sent = (part.format("name", "a") + part.format("gains", value) + "--b--").encode()
            kind = "multipart/form-data; boundary=b"
        status, answer = ask(daemon, "POST", path, sent, Content_Type=kind)
        assert status == 400, answer
        assert json.loads(answer)["error"]["field"] == field
        assert "twice" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize("lead", [b"\n" * 100_000, b"a" * 100_000, b"a\n" * 100_000])
@pytest.mark.parametrize("path", ["/v1/characters", "/api/render"])
def test_what_stands_before_a_form_is_not_read_for_ever(
    daemon: DaemonProcess, path: str, lead: bytes
) -> None:
    """Lines without an end, or one without an end, where the first boundary should be."""
    kind = {"Content_Type": "multipart/form-data; boundary=b"}
    status, answer = ask(daemon, "POST", path, lead + b"--b--\r\n", **kind)
    assert status == 400
    assert "malformed" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/stages", "/v1/characters", "/api/render"])
def test_a_compressed_body_is_not_unpacked(daemon: DaemonProcess, path: str, encoding: str) -> None:
    """60 MiB in 60 KB are refused by their header."""
    kind = {"Content_Type": "application/json", "Content_Encoding": encoding}
    status, answer = ask(daemon, "POST", path, PACKED, **kind)
    assert status == 415, answer
    assert "Content-Encoding" in json.loads(answer)["error"]["message"]


# --- requests as raw bytes ----------------------------------------------------------------


GET = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
KEY = (
    b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
)
SMUGGLED = b"GET /metrics HTTP/1.1\r\n\r\n"
RAW = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "noise": os.urandom(4000) + b"\r\n\r\n",
    "a long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a long header": GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "thousands of headers": GET + b"X: y\r\n" * 20_000 + b"\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}    ",
    "a length and chunks": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "a length below nought": POST + b"Content-Length: -1\r\n\r\n",
    "a huge length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}",
    "a wrong chunk": CHUNKED + b"zz\r\n",
    "a chunk of 2^63": CHUNKED + b"7fffffffffffffff\r\nabc",
    "a header of another": GET + b"X: a\nInjected: b\r\n\r\n",
    "a key that is no text": b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n"
    + KEY
    + b"\xff\r\n\r\n",
    "a viewer's, too": b"GET /v1/frames HTTP/1.1\r\nHost: localhost\r\n" + KEY + b"\xff\r\n\r\n",
    "two hosts": GET + b"Host: evil.example\r\n\r\n",
    "a foreign target": b"GET http://evil.example/v1/state HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
}


async def exchanged(daemon: DaemonProcess, sent: bytes, answers: int = 10**9) -> bytes:
    """What comes back: so many answers, or what there is when nothing comes for a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    heard = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(sent)
        while heard.count(b"HTTP/1.") < answers:
            async with asyncio.timeout(1.0):
                data = await reader.read(65_536)
            if not data:
                break
            heard += data
    writer.close()
    return heard


@pytest.mark.parametrize("sent", RAW.values(), ids=RAW.keys())
async def test_a_request_that_is_none_gets_an_error_or_nothing(
    daemon: DaemonProcess, sent: bytes
) -> None:
    """4xx at the most, and never a second answer to what was smuggled in."""
    heard = await exchanged(daemon, sent)
    assert not heard or heard.split(b" ", 2)[1].startswith(b"4"), heard[:200]
    assert heard.count(b"HTTP/1.") <= 1


async def test_many_requests_at_once_on_one_connection_are_answered_in_order(
    daemon: DaemonProcess,
) -> None:
    """A thousand, pipelined: all answered, none kept waiting in memory."""
    request = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
    heard = await exchanged(daemon, request * 1000, answers=1000)
    assert heard.count(b"HTTP/1.1 200 OK") == 1000


# --- frames of WebSockets -----------------------------------------------------------------


def frame(
    opcode: int, payload: bytes = b"", *, first: int = 0x80, masked: bool = True, says: int = -1
) -> bytes:
    """A frame as RFC 6455 has it, or not."""
    length = len(payload) if says < 0 else says
    mask = 0x80 if masked else 0
    head = bytes([first | opcode])
    if length < 126:
        head += bytes([mask | length])
    elif length < 65_536:
        head += struct.pack("!BH", mask | 126, length)
    else:
        head += struct.pack("!BQ", mask | 127, length)
    return head + (b"\0\0\0\0" if masked else b"") + payload


def deflated(mib: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(mib * 2**20)) + packer.flush(zlib.Z_SYNC_FLUSH)


FRAMES = {
    "an unmasked frame": frame(1, b"{}", masked=False),
    "an unknown opcode": frame(3, b"{}"),
    "a reserved bit": frame(1, b"{}", first=0xA0),
    "compressed, though not agreed": frame(1, deflated(50), first=0xC0),
    "a continuation of nothing": frame(0, b"{}"),
    "a text inside a text": frame(1, b"{", first=0) + frame(1, b"}"),
    "a ping in pieces": frame(9, b"x", first=0),
    "a ping of 126 bytes": frame(9, b"x" * 126),
    "a close of one byte": frame(8, b"\x03"),
    "a close with no such code": frame(8, struct.pack("!H", 999)),
    "a length of 2^63": frame(1, b"x", says=2**63),
    "a length of 2^63 - 1": frame(1, b"x", says=2**63 - 1),
    "a gigabyte": frame(1, b"x" * 1000, says=2**30),
    "more than a message may have": frame(1, b"x" * 70_000),
    "the same in pieces": frame(1, b"x" * 1000, first=0) + frame(0, b"x" * 1000, first=0) * 80,
    "without end, a byte at a time": frame(1, b"x", first=0) + frame(0, b"x", first=0) * 70_000,
    "empty pieces without end": frame(1, b"", first=0) + frame(0, b"", first=0) * 50_000,
    "noise": os.urandom(5000),
}


@pytest.mark.parametrize("path", ["/v1/events", "/v1/frames"])
@pytest.mark.parametrize("sent", FRAMES.values(), ids=FRAMES.keys())
async def test_frames_that_break_the_rules_end_their_connection_alone(
    daemon: DaemonProcess, path: str, sent: bytes
) -> None:
    """Closed, or waited for; the others are served meanwhile."""
    handshake = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    writer.write(handshake)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head
    assert b"permessage-deflate" not in head  # nothing to unpack, so no bomb
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(sent)
        async with asyncio.timeout(3.0):
            await writer.drain()
    async with connect(f"{daemon.ws}/v1/events", compression=None) as other:
        await other.recv()
        await other.send('{"type":"ping","t":1}')
        async with asyncio.timeout(5.0):
            assert json.loads(await other.recv()) == {"type": "pong", "t": 1}
    writer.transport.abort()


# --- crowds that ask for nothing ----------------------------------------------------------


async def test_hundreds_of_requests_that_never_end_are_in_nobodys_way(
    daemon: DaemonProcess,
) -> None:
    """Half headers, half handshakes, half bodies: a viewer still gets its frames."""
    halves = (
        b"",
        GET[:-9],
        b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnec",
        POST + b"Content-Length: 60000\r\n\r\n{",
        b"POST /api/render HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n",
    )
    writers = []
    for number in range(400):
        _, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(halves[number % len(halves)])
        writers.append(writer)
    async with connect(f"{daemon.ws}/v1/frames", max_size=None) as viewer:
        async with asyncio.timeout(10.0):
            for _ in range(20):
                assert await viewer.recv()
    assert (await asyncio.to_thread(ask, daemon, "GET", "/ready"))[0] == 200
    for writer in writers:
        writer.transport.abort()
