"""The HTTP side on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from aiohttp import web

from adapters import events_post
from adapters.access import AccessPolicy, HttpLimits
from adapters.listening import HttpServer, serve
from pipeline.errors import (
    ConfigError,
    ErrorCode,
    InvalidEventError,
    OutOfMemoryError,
    PortTakenError,
    RenderError,
)
from pipeline.ports import Reply
from pipeline.types import (
    CharacterSwitch,
    CueRejected,
    EmotionEvent,
    ErrorInfo,
    Failure,
    ImageFormat,
    Interrupt,
    StageMessage,
    StageReply,
    StateSnapshot,
)
from tests.fakes.http_server import Served, served
from tests.fakes.stage import JPEG, FakeDaemon, FakeStage
from tests.fakes.waiting import until

HAPPY = {"type": "emotion", "id": "e", "emotion": "happy"}


def silent(message: StageMessage, reply: Reply) -> None:
    """A stage that never answers."""


async def raw(running: Served, request: bytes, *, vanish: bool = False) -> bytes:
    """Send bytes and take all that comes; `vanish` closes the sending side behind them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request)
    if vanish:
        writer.write_eof()
    async with asyncio.timeout(5.0):
        answer = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer


# --- questions ------------------------------------------------------------------------------


async def test_health_is_the_daemons_word() -> None:
    """200 while the loop lives."""
    async with served() as running:
        response = await running.http.get("/health")
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/json"
        assert response.json() == running.daemon.health()


async def test_ready_says_why_it_is_not() -> None:
    """503 with the reason until frames are published, then 200."""
    async with served() as running:
        running.daemon.reason = "the first frame is being drawn"
        response = await running.http.get("/ready")
        assert response.status_code == 503
        error = response.json()["error"]
        assert (error["code"], error["message"]) == ("not_ready", running.daemon.reason)
        running.daemon.reason = None
        assert (await running.http.get("/ready")).status_code == 200


async def test_metrics_are_prometheus_text() -> None:
    """In the text format, never from a cache."""
    async with served() as running:
        response = await running.http.get("/metrics")
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "# TYPE avatar_connections gauge" in response.text


async def test_state_is_the_stages_snapshot() -> None:
    """Of the stage that is asked for."""
    async with served(FakeDaemon(FakeStage(), FakeStage("second"))) as running:
        assert (await running.http.get("/v1/state")).json()["stage"] == "main"
        assert (await running.http.get("/v1/state?stage=second")).json()["stage"] == "second"


async def test_the_newest_frame_is_an_image() -> None:
    """As JPEG, and marked as not to be kept."""
    async with served() as running:
        running.daemon.main.publish()
        response = await running.http.get("/v1/snapshot.jpg")
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "image/jpeg"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.content == JPEG
        assert running.daemon.main.asked_formats == [ImageFormat.JPEG]


async def test_before_the_first_frame_there_is_no_image() -> None:
    """503 with the daemon's reason."""
    async with served() as running:
        running.daemon.reason = "the portrait is being loaded"
        response = await running.http.get("/v1/snapshot.jpg")
        assert response.status_code == 503
        assert response.json()["error"]["message"] == "the portrait is being loaded"


async def test_characters_and_expressions_are_listed() -> None:
    """In the protocol's words."""
    async with served() as running:
        assert (await running.http.get("/v1/characters")).json()["current"] == "astronaut"
        expressions = (await running.http.get("/expressions")).json()
        assert expressions["expressions"][0] == "neutral"
        assert len(expressions["expressions"]) == 7
        assert expressions["intensities"] == {"min": 0.0, "max": 1.0}


@pytest.mark.parametrize(
    "path", ["/v1/state", "/v1/snapshot.jpg", "/v1/characters", "/expressions"]
)
async def test_an_unknown_stage_is_404(path: str) -> None:
    """On every endpoint that takes one."""
    async with served() as running:
        response = await running.http.get(f"{path}?stage=nowhere")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "unknown_stage"
        assert response.json()["error"]["field"] == "stage"


async def test_head_asks_for_headers_alone() -> None:
    """HEAD is answered wherever GET is."""
    async with served() as running:
        for path in ("/health", "/v1/state", "/"):
            response = await running.http.head(path)
            assert response.status_code == 200
            assert response.content == b""


# --- events by POST -------------------------------------------------------------------------


async def post(running: Served, message: Any, query: str = "") -> httpx.Response:
    if isinstance(message, str | bytes):
        return await running.http.post(f"/v1/events{query}", content=message)
    return await running.http.post(f"/v1/events{query}", json=message)


async def test_an_emotion_is_accepted_by_post() -> None:
    """202 with the accepted reply; the stage got the event."""
    async with served() as running:
        response = await post(running, HAPPY)
        assert response.status_code == 202
        assert response.json()["type"] == "emotion.accepted"
        assert response.json()["id"] == "e"
        assert running.daemon.main.messages == [EmotionEvent(id="e", emotion="happy")]
        assert running.daemon.main.last_reply.closed, "later consequences have nowhere to go"


async def test_any_content_type_will_do() -> None:
    """`curl -d` calls everything a form."""
    async with served() as running:
        for content_type in ("application/x-www-form-urlencoded", "text/plain", ""):
            response = await running.http.post(
                "/v1/events",
                content='{"type":"emotion","emotion":"sad"}',
                headers={"Content-Type": content_type},
            )
            assert response.status_code == 202


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ({"type": "interrupt", "id": "i"}, 202, "interrupt.done"),
        ({"type": "mood", "id": "m", "valence": 0.3}, 202, "mood.ok"),
        ({"type": "character", "id": "c", "character": "astronaut"}, 202, "character.switched"),
        ({"type": "state", "id": "s", "state": "idle"}, 202, "state.ok"),
        ({"type": "controls", "id": "c", "weights": {}}, 202, "controls.accepted"),
        ({"type": "text", "id": "t", "delta": "Hi"}, 202, "text.clean"),
        ({"type": "get_state", "id": "g"}, 200, "state_snapshot"),
        ({"type": "ping", "t": [1, 2]}, 200, "pong"),
    ],
)
async def test_the_other_messages_are_answered_by_post(
    message: dict[str, Any], status: int, kind: str
) -> None:
    """What asks for an effect is 202, what asks a question 200."""
    async with served() as running:
        response = await post(running, message)
        assert response.status_code == status
        assert response.json()["type"] == kind


async def test_what_comes_by_post_from_one_address_is_one_producers() -> None:
    """A stage can join the deltas of a text that come in several requests."""
    async with served() as running:
        for delta in ("[hap", "py]"):
            await post(running, {"type": "text", "id": "t", "delta": delta})
        (first, second) = (reply for _, reply in running.daemon.main.submitted)
        assert first is not second
        assert first == second
        assert hash(first) == hash(second)


async def test_the_stage_may_be_in_the_address_or_in_the_message() -> None:
    """The message has the last word."""
    daemon = FakeDaemon(FakeStage(), FakeStage("second"), FakeStage("third"))
    async with served(daemon) as running:
        await post(running, HAPPY, "?stage=second")
        await post(running, HAPPY | {"stage": "third"}, "?stage=second")
        assert [len(stage.submitted) for stage in daemon.stages.values()] == [0, 1, 1]
        for query, fields in (("?stage=nowhere", {}), ("", {"stage": "nowhere"})):
            response = await post(running, HAPPY | fields, query)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "unknown_stage"


@pytest.mark.parametrize(
    ("message", "status", "code", "field"),
    [
        ("", 400, "invalid_json", None),
        ("{", 400, "invalid_json", None),
        (b"\xff", 400, "invalid_json", None),
        ("[]", 400, "invalid_message", None),
        ({"type": "emotion", "id": "e", "emotion": "x", "intensity": "1"}, 400, "invalid_message",
         "intensity"),
        ({"type": "emotion", "id": "e"}, 400, "invalid_message", "emotion"),
        ({"type": "dance"}, 400, "unknown_type", "type"),
        ("x" * 65_537, 413, "too_large", None),
    ],
)  # fmt: skip
async def test_a_bad_message_by_post_is_4xx(
    message: Any, status: int, code: str, field: str | None
) -> None:
    """With the error in the protocol's form, and nothing changed."""
    async with served() as running:
        response = await post(running, message)
        assert response.status_code == status
        error = response.json()["error"]
        assert (error["code"], error["field"]) == (code, field)
        assert error["message"]
        assert not running.daemon.main.submitted
        assert f'bad_messages_total{{code="{code}"}} 1.0' in running.metrics.render().decode()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.UNKNOWN_EMOTION, 422),
        (ErrorCode.UNKNOWN_CHARACTER, 404),
        (ErrorCode.OUTRANKED, 409),
        (ErrorCode.ID_REUSED, 409),
        (ErrorCode.RATE_LIMITED, 429),
        (ErrorCode.NOT_READY, 503),
    ],
)
async def test_what_a_stage_refuses_is_said_with_a_status(code: ErrorCode, status: int) -> None:
    """The rejection of the protocol is the body, its code chooses the status."""
    daemon = FakeDaemon()
    error = ErrorInfo(code.value, "not so", "emotion", ("happy",))
    for kind, answer in (
        ("emotion.rejected", CueRejected("e", error)),
        ("error", Failure("e", error)),
    ):

        def refuse(message: StageMessage, reply: Reply, answer: StageReply = answer) -> None:
            reply(answer)

        daemon.main.answer = refuse
        async with served(daemon) as running:
            response = await post(running, HAPPY)
            assert response.status_code == status
            body = response.json()
            assert (body["type"], body["id"]) == (kind, "e")
            assert body["error"]["code"] == code
            assert body["error"]["suggestions"] == ["happy"]


async def test_an_interrupt_is_answered_when_it_is_done() -> None:
    """The answer waits for the face to be at rest."""
    daemon = FakeDaemon()
    daemon.main.answer = silent
    async with served(daemon) as running:
        asking = asyncio.create_task(post(running, {"type": "interrupt", "id": "i"}))
        await until(lambda: bool(daemon.main.submitted))
        assert not asking.done()
        message, reply = daemon.main.submitted[0]
        daemon.main.usual_answer(message, reply)
        response = await asking
        assert (response.status_code, response.json()["type"]) == (202, "interrupt.done")


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ({"type": "interrupt", "id": "i", "fade_ms": 10}, 202, "interrupt.accepted"),
        ({"type": "character", "id": "c", "character": "x"}, 202, "character.accepted"),
        (HAPPY, 503, None),
    ],
)
async def test_a_stage_that_does_not_answer_keeps_nobody_waiting(
    message: dict[str, Any], status: int, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long is said to be accepted; an emotion is either accepted or not."""
    monkeypatch.setattr(events_post, "_ANSWER_S", 0.05)
    monkeypatch.setattr(events_post, "_SWITCH_S", 0.05)
    daemon = FakeDaemon()
    daemon.main.answer = silent
    async with served(daemon) as running:
        response = await post(running, message)
        assert response.status_code == status
        assert response.json().get("type") == kind
        reply = daemon.main.last_reply
        assert reply.closed
        reply(StateSnapshot(None, {}))


async def test_a_message_is_bounded_however_it_is_sent() -> None:
    """Neither chunks nor compression get around the limit."""
    async with served() as running:

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 1000

        response = await running.http.post("/v1/events", content=chunks())
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "too_large"


async def test_a_message_at_the_limit_is_taken() -> None:
    """64 KiB exactly is not too large."""
    async with served() as running:
        body = '{"type":"ping","t":""}'
        t = "x" * (65_536 - len(body))
        response = await post(running, f'{{"type":"ping","t":"{t}"}}')
        assert response.status_code == 200


async def test_messages_by_post_are_limited_in_rate() -> None:
    """429 and when to come back; other requests go on."""
    async with served(limits=HttpLimits(messages_per_s=5.0, goodbye_s=1.0)) as running:
        responses = [await post(running, HAPPY) for _ in range(12)]
        statuses = [response.status_code for response in responses]
        assert statuses[:5] == [202] * 5
        assert 429 in statuses
        refused = responses[statuses.index(429)]
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "rate_limited"
        assert (await running.http.get("/health")).status_code == 200


async def test_who_floods_by_post_waits_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals beyond the limit's number are held back; other requests are not."""
    release = asyncio.Event()

    async def hold(seconds: float) -> None:
        assert seconds > 0.0
        await release.wait()

    monkeypatch.setattr(events_post, "sleep", hold)
    async with served(limits=HttpLimits(messages_per_s=5.0, goodbye_s=1.0)) as running:
        flood = [asyncio.create_task(post(running, HAPPY)) for _ in range(30)]
        await until(lambda: sum(task.done() for task in flood) >= 10)
        assert (await running.http.get("/health")).status_code == 200
        assert sum(task.done() for task in flood) < 30
        release.set()
        assert {(await task).status_code for task in flood} == {202, 429}


async def test_a_message_that_does_not_arrive_is_given_up() -> None:
    """A body that is promised and not sent is answered 408."""
    async with served(limits=HttpLimits(request_s=0.1, goodbye_s=1.0)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            f"POST /v1/events HTTP/1.1\r\nHost: {running.address}\r\n"
            "Content-Length: 100\r\n\r\n{".encode()
        )
        async with asyncio.timeout(5.0):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            writer.write(b" " * 99)
            await reader.readuntil(b"}}")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100\r\n\r\n" + b'{"type":"emo',
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
async def test_a_client_may_vanish_or_talk_nonsense_in_the_middle(body: bytes) -> None:
    """It costs nobody else anything, and no line with a traceback."""
    async with served() as running:
        with structlog.testing.capture_logs() as lines:
            request = f"POST /v1/events HTTP/1.1\r\nHost: {running.address}\r\n".encode()
            answer = await raw(running, request + body, vanish=True)
            assert answer == b"" or b" 400 Bad Request\r\n" in answer
        assert not [line for line in lines if line["log_level"] == "error"]
        assert not running.daemon.main.submitted
        assert (await post(running, HAPPY)).status_code == 202


async def test_a_client_that_does_not_wait_for_its_answer_does_no_harm() -> None:
    """A connection closed while the stage is still at it is nobody's error."""
    daemon = FakeDaemon()
    daemon.main.answer = silent
    async with served(daemon) as running:
        with structlog.testing.capture_logs() as lines:
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            body = b'{"type":"interrupt","fade_ms":0}'
            writer.write(
                f"POST /v1/events HTTP/1.1\r\nHost: {running.address}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await until(lambda: bool(daemon.main.submitted))
            writer.transport.abort()
            message, reply = daemon.main.submitted[0]
            assert isinstance(message, Interrupt)
            daemon.main.usual_answer(message, reply)
            await until(lambda: reply.closed)
            assert (await running.http.get("/health")).status_code == 200
        assert not lines


async def test_many_posts_at_once_each_get_their_own_answer() -> None:
    """Answers do not get mixed up."""
    async with served() as running:

        async def ask(number: int) -> None:
            response = await post(running, HAPPY | {"id": f"e{number}"})
            assert response.json()["id"] == f"e{number}"

        await asyncio.gather(*(ask(number) for number in range(100)))
        assert len(running.daemon.main.submitted) == 100


async def test_a_character_is_switched_with_its_own_patience() -> None:
    """Loading a portrait may take longer than a second."""
    assert events_post.patience_s(CharacterSwitch("c", "x")) > 5.0
    assert events_post.patience_s(Interrupt("i", 2.0)) == 3.0


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/state/", 404, "not_found"),
        ("GET", "/studio/", 404, "not_found"),
        ("GET", "/studio/nothing.js", 404, "not_found"),
        ("POST", "/v1/state", 405, "method_not_allowed"),
        ("DELETE", "/v1/events", 405, "method_not_allowed"),
        ("PUT", "/", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
async def test_every_error_has_the_protocols_form(
    method: str, path: str, status: int, code: str
) -> None:
    """JSON with code and message, on paths that exist and on those that do not."""
    async with served() as running:
        response = await running.http.request(method, path)
        assert response.status_code == status
        assert response.headers["Content-Type"] == "application/json"
        error = response.json()["error"]
        assert error["code"] == code
        assert error["message"]
        assert error["field"] is None
        if status == 405:
            assert response.headers["Allow"]


def broken_routes() -> list[web.RouteDef]:
    async def unexpected(request: web.Request) -> web.Response:
        raise RuntimeError("a secret detail")

    async def no_memory(request: web.Request) -> web.Response:
        raise OutOfMemoryError("the device is out of memory")

    async def refused(request: web.Request) -> web.Response:
        raise InvalidEventError(ErrorCode.INVALID_MESSAGE, "format is one of jpeg", field="format")

    async def too_late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"the beginning")
        raise RenderError("in the middle")

    async def upload(request: web.Request) -> web.Response:
        return web.json_response(len(await request.read()))

    return [
        web.get("/unexpected", unexpected),
        web.get("/no-memory", no_memory),
        web.get("/refused", refused),
        web.get("/too-late", too_late),
        web.post("/upload", upload),
    ]


async def test_a_fault_of_ours_is_500_and_logged_but_not_shown() -> None:
    """What failed is for the log, not for the client."""
    async with served(extra_routes=broken_routes()) as running:
        with structlog.testing.capture_logs() as lines:
            response = await running.http.get("/unexpected?token=secret")
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "internal"
        assert "detail" not in response.text
        assert [line["event"] for line in lines] == ["request_failed"]
        assert "token" not in repr(lines)


async def test_errors_of_other_adapters_get_the_same_form() -> None:
    """Whatever a route raises from our error tree, the client can read."""
    async with served(extra_routes=broken_routes()) as running:
        response = await running.http.get("/no-memory")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        response = await running.http.get("/refused")
        assert response.status_code == 400
        assert response.json()["error"]["field"] == "format"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_error_in_the_middle_of_a_response_ends_it() -> None:
    """No second answer is written into the first."""
    async with served(extra_routes=broken_routes()) as running:
        with contextlib.suppress(httpx.RemoteProtocolError):
            response = await running.http.get("/too-late")
            assert b"HTTP" not in response.content
        assert (await running.http.get("/health")).status_code == 200


async def test_uploads_are_bounded() -> None:
    """413 in the protocol's form beyond the limit for other requests."""
    limits = HttpLimits(upload_bytes=1000, goodbye_s=1.0)
    async with served(limits=limits, extra_routes=broken_routes()) as running:
        assert (await running.http.post("/upload", content=b"x" * 1000)).json() == 1000
        response = await running.http.post("/upload", content=b"x" * 1001)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "too_large"


async def test_what_is_no_http_is_answered_400_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever speaks something else to the port leaves no mess in the log."""
    async with served() as running:
        for nonsense in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/9\r\nx\r\n\r\n", b"\0" * 50):
            answer = await raw(running, nonsense, vanish=True)
            assert answer == b"" or b" 400 Bad Request\r\n" in answer
        assert not [record for record in caplog.records if record.exc_info]


async def test_every_response_has_the_security_headers() -> None:
    """Errors included; the server does not tell its version."""
    async with served() as running:
        for path in ("/health", "/nowhere", "/", "/v1/snapshot.jpg"):
            headers = (await running.http.get(path)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Server"] == "avatar-orchestrator"


# --- the studio -----------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder with a page."""
    folder = tmp_path / "studio"
    (folder / "icons").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>ü", "utf-8")
    (folder / "app.js").write_text("export {};", "utf-8")
    (folder / "style.css").write_text("a {}", "utf-8")
    (folder / "icons" / "icon.svg").write_text("<svg/>", "utf-8")
    (folder / "notes.py").write_text("secret = 1", "utf-8")
    (tmp_path / "outside.js").write_text("secret", "utf-8")
    return folder


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/studio/index.html", "text/html; charset=utf-8"),
        ("/studio/app.js", "text/javascript; charset=utf-8"),
        ("/studio/style.css", "text/css; charset=utf-8"),
        ("/studio/icons/icon.svg", "image/svg+xml"),
    ],
)
async def test_the_studio_is_served_with_its_types(
    path: str, content_type: str, page: Path
) -> None:
    """The page at `/`, its files below `/studio/`, with a policy that allows only ourselves."""
    async with served(studio_dir=page) as running:
        response = await running.http.get(path)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == content_type
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


async def test_a_browser_that_has_the_page_need_not_load_it_again(page: Path) -> None:
    """The ETag is asked about each time and answered 304."""
    async with served(studio_dir=page) as running:
        first = await running.http.get("/")
        assert first.headers["Cache-Control"] == "no-cache"
        etag = first.headers["ETag"]
        again = await running.http.get("/", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
        changed = await running.http.get("/", headers={"If-None-Match": '"other"'})
        assert changed.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/studio/../outside.js",
        "/studio/..%2foutside.js",
        "/studio/%2e%2e/outside.js",
        "/studio//etc/passwd",
        "/studio/icons/../../outside.js",
        "/studio/notes.py",
        "/studio/icons",
    ],
)
async def test_nothing_but_the_pages_files_is_served(path: str, page: Path) -> None:
    """No path leads out of the folder, or to files that are no part of a page."""
    async with served(studio_dir=page) as running:
        request = f"GET {path} HTTP/1.1\r\nHost: {running.address}\r\nConnection: close\r\n\r\n"
        answer = await raw(running, request.encode())
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"secret" not in answer


async def test_without_a_page_the_rest_is_served(tmp_path: Path) -> None:
    """A missing folder is a missing page, nothing worse."""
    async with served(studio_dir=tmp_path / "nowhere") as running:
        assert (await running.http.get("/")).status_code == 404
        assert (await running.http.get("/health")).status_code == 200


async def test_the_bundled_page_refers_only_to_files_that_are_served() -> None:
    """Every `studio/` address in the page leads somewhere."""
    async with served() as running:
        html = (await running.http.get("/")).text
        addresses = {part.split('"')[0] for part in html.split('="')[1:]}
        files = {address for address in addresses if address.startswith("studio/")}
        assert files
        for file in files:
            assert (await running.http.get(f"/{file}")).status_code == 200


# --- listening ------------------------------------------------------------------------------


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


def small_application() -> web.Application:
    application = web.Application()
    application.add_routes([web.get("/", hello)])
    return application


@contextlib.asynccontextmanager
async def listening(host: str, port: int = 0, **options: Any) -> AsyncIterator[HttpServer]:
    server = await serve(small_application(), host, port, **options)
    try:
        yield server
    finally:
        await server.close()


async def test_a_free_port_is_found_and_told() -> None:
    """Port 0 takes a free one."""
    async with listening("127.0.0.1") as server, httpx.AsyncClient() as client:
        assert server.port > 0
        assert server.addresses == [("127.0.0.1", server.port)]
        assert (await client.get(f"http://127.0.0.1:{server.port}/")).text == "hello"


async def test_all_addresses_of_a_name_share_the_port() -> None:
    """`localhost` is IPv4 and IPv6 where the machine has both."""
    async with listening("localhost") as server:
        assert {port for _, port in server.addresses} == {server.port}
        for host, port in server.addresses:
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::", ""])
async def test_everywhere_is_ipv4_and_ipv6(host: str) -> None:
    """`::` and the empty host are reached over both."""
    async with listening(host) as server:
        for address in ("127.0.0.1", "::1"):
            _, writer = await asyncio.open_connection(address, server.port)
            writer.close()
            await writer.wait_closed()


async def test_a_port_in_use_is_a_clear_error() -> None:
    """It names the setting and the port."""
    async with listening("127.0.0.1") as server:
        with pytest.raises(PortTakenError) as caught:
            await serve(small_application(), "127.0.0.1", server.port)
        assert caught.value.where == "server.port"
        assert str(server.port) in str(caught.value)
        assert "in use" in str(caught.value)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such name", "nowhere.invalid", "x" * 300])
async def test_an_address_that_is_not_ours_is_a_clear_error(host: str) -> None:
    """It names the setting."""
    with pytest.raises(ConfigError) as caught:
        await serve(small_application(), host, 0)
    assert caught.value.where == "server.host"


async def test_a_port_that_is_not_permitted_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It names the setting and what would do."""

    def bind(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind, raising=False)
    with pytest.raises(ConfigError) as caught:
        await serve(small_application(), "127.0.0.1", 80)
    assert caught.value.where == "server.port"
    assert "not permitted" in str(caught.value)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_connections_inherit_how_long_silence_lasts() -> None:
    """The kernel drops a client that acknowledges nothing, and asks one that is sent nothing."""
    wanted = {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 12_500,
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 4,
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 4,
    }
    seen: list[int] = []

    async def look(request: web.Request) -> web.Response:
        assert request.transport is not None
        connection = request.transport.get_extra_info("socket")
        seen.extend(connection.getsockopt(*option) for option in wanted)
        return web.Response()

    application = web.Application()
    application.add_routes([web.get("/", look)])
    server = await serve(application, "127.0.0.1", 0, tcp_user_timeout_s=12.5)
    async with httpx.AsyncClient() as client:
        await client.get(f"http://127.0.0.1:{server.port}/")
    await server.close()
    assert seen == list(wanted.values())


async def test_closing_lets_requests_end_and_cuts_those_that_do_not() -> None:
    """Running requests get their time and no more; closing twice is harmless."""
    entered = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await asyncio.sleep(float(request.query["s"]))
        return web.Response(text="done")

    application = web.Application()
    application.add_routes([web.get("/", slow)])
    server = await serve(application, "127.0.0.1", 0, shutdown_s=0.3)
    address = f"http://127.0.0.1:{server.port}/"
    async with httpx.AsyncClient() as client:
        short = asyncio.create_task(client.get(address, params={"s": 0.1}))
        long = asyncio.create_task(client.get(address, params={"s": 30}))
        await entered.wait()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5.0):
            await server.close()
        assert (await short).text == "done"
        with pytest.raises(httpx.HTTPError):
            await long
        with pytest.raises(httpx.ConnectError):
            await client.get(address)
    await server.close()


async def test_a_policy_beyond_loopback_is_served_with_its_token() -> None:
    """The whole way: every interface, a token, a request with it."""
    access = AccessPolicy(host="0.0.0.0", token="t0ken")
    async with served(access=access) as running:
        assert (await running.http.get("/v1/state")).status_code == 401
        headers = {"Authorization": "Bearer t0ken"}
        assert (await running.http.get("/v1/state", headers=headers)).status_code == 200


async def test_health_tells_strangers_what_is_wrong_but_not_where() -> None:
    """Without the token, files and addresses are left out; with it, nothing is."""
    access = AccessPolicy(host="0.0.0.0", token="t0ken")
    async with served(access=access) as running:
        told = (await running.http.get("/health")).json()
        assert told["problems"] == ["configuration"]
        headers = {"Authorization": "Bearer t0ken"}
        told = (await running.http.get("/health", headers=headers)).json()
        assert told == running.daemon.health()
