"""POST /api/render and /api/render/batch over a real socket, hostile forms included."""

from __future__ import annotations

import asyncio
import io
import random
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from adapters.access import AccessPolicy, HttpLimits
from adapters.render_api import MAX_BATCH, RenderEndpoint
from pipeline.errors import (
    DropReason,
    ErrorCode,
    InvalidEventError,
    JobDroppedError,
    PortraitError,
)
from pipeline.orders import PictureMaker
from pipeline.types import ImageFormat
from tests.fakes.http_server import Served, served
from tests.fakes.keepers import FakeMaker
from tests.fakes.stage import JPEG
from tests.fakes.waiting import until

LIMITS = HttpLimits(upload_bytes=100_000, upload_s=1.0)
PICTURE = ("face.jpg", b"a picture", "image/jpeg")


@asynccontextmanager
async def rendering(
    maker: FakeMaker, limits: HttpLimits = LIMITS, **options: Any
) -> AsyncIterator[Served]:
    endpoint = RenderEndpoint(lambda: maker, limits)
    async with served(limits=limits, extra_routes=endpoint.routes(), **options) as running:
        yield running


async def raw(running: Served, body: bytes, boundary: str = "b", **headers: str) -> httpx.Response:
    """A multipart body as it is written here."""
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}", **headers}
    return await running.http.post("/api/render", content=body, headers=kind)


def part(name: str, value: str, extra: str = "") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    return f"--b\r\n{disposition}\r\n{extra}\r\n{value}\r\n".encode(errors="surrogateescape")


def error(response: httpx.Response) -> dict[str, Any]:
    body = response.json()["error"]
    assert isinstance(body, dict)
    return body


# --- what is asked for --------------------------------------------------------------------


async def test_a_form_with_a_picture_becomes_an_order() -> None:
    """Every field is read, and the picture comes back as a file of the wanted format."""
    maker = FakeMaker()
    async with rendering(maker) as running:
        fields = {"expression": "happy", "intensity": "0.7", "format": "PNG"}
        answer = await running.http.post(
            "/api/render", data=fields, files={"source_image": PICTURE}
        )
        assert (answer.status_code, answer.content) == (200, JPEG)
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["cache-control"] == "no-store"
        (order,) = maker.orders
        assert (order.source, order.expressions) == (b"a picture", ("happy",))
        assert (order.intensity, order.format, order.stage) == (0.7, ImageFormat.PNG, None)


@pytest.mark.parametrize(
    "form",
    [
        {"content": "expression=happy", "headers": {"Content-Type": "application/"
         "x-www-form-urlencoded"}},
        {"files": {"expression": (None, "happy")}},
        {"files": {"expression": (None, "happy"), "source_image": ("", b"")}},
        {"data": {"emotion": "happy", "intensity": "", "format": "", "colour": "green"}},
    ],
)  # fmt: skip
async def test_a_form_without_a_picture_is_about_the_stage(form: dict[str, Any]) -> None:
    """Urlencoded or multipart; empty fields are as good as none, unknown ones are ignored."""
    maker = FakeMaker()
    async with rendering(maker) as running:
        answer = await running.http.post("/api/render?stage=lobby", **form)
        assert answer.status_code == 200, answer.text
        (order,) = maker.orders
        assert (order.source, order.intensity, order.stage) == (None, 1.0, "lobby")


@pytest.mark.parametrize(
    "data",
    [
        {"expressions": ["happy", "sad", "happy"]},
        {"expressions[]": ["happy", "sad"]},
        {"expressions": "happy, sad"},
        {"expressions": '["happy","sad"]'},
        {"expression": ["happy", "sad"]},
    ],
)
async def test_a_batch_is_a_zip_file_of_pictures(data: dict[str, Any]) -> None:
    """Named after the emotions, whichever way they are listed; each once."""
    maker = FakeMaker()
    async with rendering(maker) as running:
        answer = await running.http.post("/api/render/batch", data=data | {"format": "webp"})
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.namelist() == ["happy.webp", "sad.webp"]
            assert archive.testzip() is None
            assert archive.read("sad.webp") == JPEG


async def test_the_same_pictures_are_the_same_zip_file() -> None:
    """No time of day in it."""
    maker = FakeMaker()
    async with rendering(maker) as running:
        data = {"expressions": ["happy"]}
        answers = [await running.http.post("/api/render/batch", data=data) for _ in range(2)]
        assert answers[0].content == answers[1].content


# --- what is wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "field", "right"),
    [
        ({}, "expression", "happy"),
        ({"expression": ["happy", "sad"]}, "expression", "once"),
        ({"expression": "happy", "intensity": "2"}, "intensity", "0 to 1"),
        ({"expression": "happy", "intensity": "nan"}, "intensity", "0 to 1"),
        ({"expression": "happy", "intensity": "strong"}, "intensity", "0 to 1"),
        ({"expression": "happy", "format": "gif"}, "format", "webp"),
        ({"expression": "happy", "source_image": "text"}, "source_image", "a file"),
    ],
)
async def test_a_wrong_field_is_named(data: dict[str, Any], field: str, right: str) -> None:
    """400 with the field and what would be right; nothing is drawn."""
    maker = FakeMaker()
    async with rendering(maker) as running:
        answer = await running.http.post("/api/render", data=data)
        assert answer.status_code == 400
        assert error(answer)["field"] == field
        assert right in error(answer)["message"]
        assert maker.orders == []


@pytest.mark.parametrize("name", ["source_image", "image"])
async def test_an_empty_file_is_no_missing_file(name: str) -> None:
    """400; the stage's character, whom nobody asked for, is not drawn in its place."""
    maker = FakeMaker()
    async with rendering(maker) as running:
        answer = await running.http.post(
            "/api/render", data={"expression": "happy"}, files={name: ("me.jpg", b"")}
        )
        assert (answer.status_code, error(answer)["field"]) == (400, name)
        assert "empty" in error(answer)["message"]
        assert maker.orders == []


async def test_an_unknown_expression_is_a_bad_request_with_suggestions() -> None:
    """400, as clients of the older service expect."""
    async with rendering(FakeMaker()) as running:
        for path, field in (("", "expression"), ("/batch", "expressions")):
            answer = await running.http.post(f"/api/render{path}", data={field: "hapy"})
            assert answer.status_code == 400
            assert error(answer) | {"message": ""} == {
                "code": "unknown_expression",
                "message": "",
                "field": field,
                "suggestions": ["happy"],
            }


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
async def test_a_batch_has_some_but_not_endless_pictures(count: int) -> None:
    """Between one and so many."""
    async with rendering(FakeMaker()) as running:
        data = {"expressions": ["happy"] * count, "format": "png"}
        answer = await running.http.post("/api/render/batch", data=data)
        assert (answer.status_code, error(answer)["field"]) == (400, "expressions")


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (PortraitError("p", "no face found", no_face=True), 422, "no_face"),
        (PortraitError("p", "too many pixels", too_large=True), 413, "too_large"),
        (PortraitError("p", "not a picture"), 400, "invalid_image"),
        (JobDroppedError(DropReason.FULL), 503, "not_ready"),
        (InvalidEventError(ErrorCode.NOT_READY, "starting"), 503, "not_ready"),
        (InvalidEventError(ErrorCode.UNKNOWN_STAGE, "none such"), 404, "unknown_stage"),
    ],
)
async def test_what_goes_wrong_has_its_status(trouble: Exception, status: int, code: str) -> None:
    """As the protocol says."""
    maker = FakeMaker()

    def fail() -> None:
        raise trouble

    maker.trouble = fail
    async with rendering(maker) as running:
        answer = await running.http.post("/api/render", data={"expression": "happy"})
        assert (answer.status_code, error(answer)["code"]) == (status, code)
        if isinstance(trouble, PortraitError):
            assert error(answer)["field"] == "source_image"
        if status == 503:
            assert "retry-after" in answer.headers


async def test_before_there_is_a_stage_nothing_can_be_drawn() -> None:
    """503, and the form is not even read."""

    def nobody() -> PictureMaker:
        raise InvalidEventError(ErrorCode.NOT_READY, "the daemon is starting; try again")

    endpoint = RenderEndpoint(nobody, LIMITS)
    async with served(extra_routes=endpoint.routes()) as running:
        answer = await running.http.post("/api/render", data={"expression": "happy"})
        assert (answer.status_code, error(answer)["code"]) == (503, "not_ready")


async def test_the_rules_of_all_routes_hold_here_too() -> None:
    """A token where one is needed; no foreign page."""
    access = AccessPolicy(token="secret")
    async with rendering(FakeMaker(), access=access) as running:
        data = {"expression": "happy"}
        assert (await running.http.post("/api/render", data=data)).status_code == 401
        answer = await running.http.post("/api/render?token=secret", data=data)
        assert answer.status_code == 200
        foreign = {"Origin": "http://evil.example", "Authorization": "Bearer secret"}
        answer = await running.http.post("/api/render", data=data, headers=foreign)
        assert answer.status_code == 403


# --- hostile forms ------------------------------------------------------------------------


async def test_a_picture_beyond_the_limit_is_refused_by_its_declared_length() -> None:
    """413 before any of it is read."""
    async with rendering(FakeMaker()) as running:
        files = {"source_image": ("x.jpg", bytes(300_000))}
        answer = await running.http.post("/api/render", files=files, data={"expression": "happy"})
        assert (answer.status_code, error(answer)["code"]) == (413, "too_large")


async def test_a_picture_beyond_the_limit_is_refused_while_it_comes() -> None:
    """413 too where no length is declared."""

    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="source_image"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)
            await asyncio.sleep(0)

    async with rendering(FakeMaker()) as running:
        answer = await running.http.post(
            "/api/render",
            content=endless(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert (answer.status_code, error(answer)["code"]) == (413, "too_large")


async def test_a_form_that_never_ends_is_given_up() -> None:
    """408 when its time is over."""
    async with rendering(FakeMaker(), HttpLimits(upload_s=0.1)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            b"POST /api/render HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        async with asyncio.timeout(5.0):
            assert b" 408 " in await reader.readline()
            writer.write(bytes(995))  # or the server would wait for it for a while
            await asyncio.sleep(0.05)
            writer.close()
            await writer.wait_closed()


async def test_a_form_that_dribbles_in_is_given_up_long_before_its_time() -> None:
    """A few bytes now and then do not hold a place for pictures."""
    begin = b'--b\r\nContent-Disposition: form-data; name="source_image"; filename="x"\r\n\r\n'
    left = 5000
    async with rendering(FakeMaker(), HttpLimits(upload_first_s=0.1)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            b"POST /api/render HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(begin) + left, begin)
        )
        answer = asyncio.create_task(reader.readline())
        async with asyncio.timeout(10.0):
            while not answer.done():
                writer.write(b"x")
                left -= 1
                await asyncio.sleep(0.01)
            assert b" 408 " in answer.result()
            writer.write(bytes(left))  # or the server would wait for it for a while
            await asyncio.sleep(0.05)
            writer.close()
            await writer.wait_closed()


async def test_a_form_that_keeps_coming_has_its_time() -> None:
    """What has arrived buys time: pauses between large pieces do no harm."""
    file = b"\xff" * 200_000
    body = (
        b'--b\r\nContent-Disposition: form-data; name="source_image"; filename="x"\r\n\r\n'
        + file
        + b"\r\n"
        + part("expression", "happy")
        + b"--b--"
    )

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50_000):
            yield body[at : at + 50_000]
            await asyncio.sleep(0.3)

    async with rendering(FakeMaker(), HttpLimits(upload_first_s=1.0)) as running:
        answer = await running.http.post(
            "/api/render",
            content=pieces(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code != 408


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (b"", "b"),
        (b"no parts at all", "b"),
        (b"--b\r\n\r\nno name\r\n--b--\r\n", "b"),
        (part("expression", "happy", "Content-Transfer-Encoding: base64\r\n") + b"--b--", "b"),
        (part("expression", "happy", "Content-Encoding: gzip\r\n") + b"--b--", "b"),
        (part("x", "y", "Content-Type: multipart/mixed; boundary=c\r\n") + b"--b--", "b"),
        (b"".join(part(f"f{n}", "v") for n in range(100)) + b"--b--", "b"),
        (part("express\udcffion", "happy") + b"--b--", "b"),
        (part("expression", "happy").replace(b'"', b"'", 1) + b"--b--", "b"),
        (part("expression", "happy").replace(b"form-data", b"form-\xff") + b"--b--", "b"),
        (part("a", "b") + part("x\"; name*=UTF-8''%ff", "happy") + b"--b--", "b"),
        (part("x" * 65, "happy") + b"--b--", "b"),
        (part("expression", "happy"), ""),
        (part("expression", "happy"), "x" * 200),
    ],
)
async def test_a_malformed_form_is_a_bad_request(body: bytes, boundary: str) -> None:
    """400, never a failure of ours."""
    maker = FakeMaker()
    async with rendering(maker) as running:
        answer = await raw(running, body, boundary)
        assert answer.status_code == 400, answer.text
        assert maker.orders == []


@pytest.mark.parametrize(
    ("text", "status"), [(b"\xff\xfe", 400), (b"a" * 70_000, 413), (b"hap\0py", 400)]
)
async def test_text_is_bounded_and_utf_8(text: bytes, status: int) -> None:
    """And a NUL is just a name that there is not."""
    head = b'--b\r\nContent-Disposition: form-data; name="expression"\r\n\r\n'
    async with rendering(FakeMaker()) as running:
        assert (await raw(running, head + text + b"\r\n--b--\r\n")).status_code == status


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/mixed; boundary=b"])
async def test_another_kind_of_body_is_not_understood(kind: str) -> None:
    """415 says what is."""
    async with rendering(FakeMaker()) as running:
        answer = await running.http.post(
            "/api/render", content=b"{}", headers={"Content-Type": kind}
        )
        assert answer.status_code == 415
        assert "multipart/form-data" in error(answer)["message"]


async def test_only_a_few_are_drawn_at_a_time_and_few_wait() -> None:
    """The others are told to come back: 503."""
    maker = FakeMaker()
    maker.gate = asyncio.Event()
    async with rendering(maker, HttpLimits()) as running:
        data = {"expression": "happy"}
        asking = [
            asyncio.create_task(running.http.post("/api/render", data=data)) for _ in range(40)
        ]
        await until(lambda: sum(task.done() for task in asking) == 4)
        assert len(maker.orders) == 4
        maker.gate.set()
        answers = await asyncio.gather(*asking)
        assert sorted(answer.status_code for answer in answers) == [200] * 36 + [503] * 4


async def test_whatever_comes_is_answered_and_never_fails() -> None:
    """Forms with some bytes changed, lost or doubled: no answer is a failure of ours."""
    rng = random.Random(5)
    file = part("source_image", "\x01\x02").replace(b'image"', b'image"; filename="a.jpg"')
    form = part("expression", "happy") + file + part("intensity", "0.5") + b"--b--\r\n"
    odd = (b"\r\n", b"--b", b"--b--", b"\0", b'"', b"\xff", b"filename*=UTF-8''%ff", b"; name=x")
    async with rendering(FakeMaker()) as running:
        statuses = set()
        for _ in range(200):
            body = bytearray(form)
            for _ in range(rng.randint(1, 5)):
                at, upto = rng.randrange(len(body)), rng.randrange(40)
                body[at : at + rng.choice((0, 1, upto))] = rng.choice(
                    (rng.choice(odd), bytes([rng.randrange(256)]), b"", body[upto : 2 * upto])
                )
            statuses.add((await raw(running, bytes(body))).status_code)
        assert statuses == {200, 400}
