"""The HTTP side: health, state, pictures, single events by POST, and the studio page (section 4).

Everything is served on one port. `/v1/events`, `/v1/frames` and `/v1/stream.mjpg` come from
their own adapters as further routes; the checks, limits and error form here hold for them, too.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from cachetools import LRUCache

from adapters import event_codec, events_ws
from adapters.access import (
    AccessPolicy,
    HttpLimits,
    access_check,
    cross_origin_headers,
    open_to_all,
)
from adapters.described import Answer, Body, Refusal, StageQuery, described
from adapters.descriptions import Descriptions
from adapters.event_codec import INTERNAL, ClientMessage, Ping
from adapters.metrics import PrometheusMetrics
from adapters.producer import RateLimit, Verdict, dispatch, rate_limited
from pipeline.bodies import CharactersBody, ExpressionsBody, HealthBody, ReadyBody, StateBody
from pipeline.errors import AvatarError, ConfigError, ErrorCode, InvalidEventError
from pipeline.ports import DaemonPort, Metric, StagePort
from pipeline.types import (
    CharacterSwitch,
    CueRejected,
    DirectControls,
    ErrorInfo,
    Failure,
    ImageFormat,
    Interrupt,
    StageReply,
    StateSnapshot,
)

log = structlog.get_logger()

STUDIO_DIR: Final = Path(__file__).parent / "studio"
BACKLOG: Final = 1024  # connections that the kernel holds for us: a crowd of viewers at once

_NO_SUCH_ADDRESS: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_KEEP_ALIVE_S: Final = 75.0
_LINGER_S: Final = 2.0  # how long the rest of a refused body is read and discarded
_ANSWER_S: Final = 1.0  # beyond what a message takes by itself
_SWITCH_S: Final = 10.0  # loading a portrait and drawing its face ahead
_REMEMBERED_CLIENTS: Final = 1024

_STATUS: Final[Mapping[str, int]] = {
    ErrorCode.INVALID_JSON: 400,
    ErrorCode.INVALID_MESSAGE: 400,
    ErrorCode.UNKNOWN_TYPE: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.UNKNOWN_STAGE: 404,
    ErrorCode.UNKNOWN_CHARACTER: 404,
    ErrorCode.OUTRANKED: 409,
    ErrorCode.ID_REUSED: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNKNOWN_EMOTION: 422,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.NOT_READY: 503,
}
# The codes of the protocol are about messages; HTTP has more that can go wrong.
_CODES: Final[Mapping[int, str]] = {
    400: ErrorCode.INVALID_MESSAGE,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.UNAUTHORIZED,
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: ErrorCode.TOO_LARGE,
    426: "upgrade_required",
    429: ErrorCode.RATE_LIMITED,
    500: INTERNAL,
    503: ErrorCode.NOT_READY,
}


def _codes_by_status() -> list[tuple[int, list[str]]]:
    """What messages are refused with: each status, and the codes that it stands for."""
    return [
        (status, sorted(code for code, its_status in _STATUS.items() if its_status == status))
        for status in sorted(set(_STATUS.values()))
    ]


_EVERY_RESPONSE: Final = {
    hdrs.SERVER: "avatar-orchestrator",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # an address may hold ?token=
}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    ),
    hdrs.CACHE_CONTROL: "no-cache",  # kept, but asked about each time: it is one ETag
}
_RETRY_SOON: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: "1"}
_LIVE_HEADERS: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: "no-store"}
_CONTENT_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".txt": "text/plain",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


def build_application(
    daemon: DaemonPort,
    *,
    metrics: PrometheusMetrics,
    access: AccessPolicy,
    limits: HttpLimits | None = None,
    extra_routes: Iterable[web.AbstractRouteDef] = (),
    studio_dir: Path = STUDIO_DIR,
) -> web.Application:
    """The whole HTTP side as an aiohttp application.

    Args:
        daemon: what it is about.
        metrics: shown at `/metrics`; messages by POST are counted there.
        access: who may connect.
        limits: sizes and rates.
        extra_routes: of the other adapters.
        studio_dir: folder of the page; read once, now.
    """
    limits = limits or HttpLimits()
    application = web.Application(
        middlewares=[_errors_as_json, access_check(access)], client_max_size=limits.upload_bytes
    )
    application.on_response_prepare.append(_add_headers)
    application.on_response_prepare.append(cross_origin_headers(access))
    application.add_routes(_Api(daemon, metrics).routes())
    application.add_routes(_EventsByPost(daemon, metrics, limits).routes())
    application.add_routes(extra_routes)
    application.add_routes(_Studio(studio_dir).routes())
    application.add_routes(Descriptions(_code_of).routes())
    return application


class _Api:
    """The requests that ask something."""

    def __init__(self, daemon: DaemonPort, metrics: PrometheusMetrics) -> None:
        self._daemon = daemon
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/v1/state", self.state),
            web.get("/v1/snapshot.jpg", self.snapshot),
            web.get("/v1/characters", self.characters),
            web.get("/expressions", self.expressions),
        ]

    @open_to_all
    @described(Answer(200, "the daemon lives", (HealthBody,)), query=StageQuery)
    async def health(self, request: web.Request) -> web.Response:
        """Whether the daemon lives, and how well."""
        self._check_stage(request)
        return _json(self._daemon.health())

    @open_to_all
    @described(
        Answer(200, "frames are being published", (ReadyBody,)),
        Refusal(503, "they are not, for the reason that the message says"),
        query=StageQuery,
    )
    async def ready(self, request: web.Request) -> web.Response:
        """Whether frames are being published."""
        self._check_stage(request)
        reason = self._daemon.not_ready_reason()
        if reason is not None:
            raise web.HTTPServiceUnavailable(text=reason)
        body: ReadyBody = {"status": "ready"}
        return _json(body)

    @described(Answer(200, "every metric", content=("text/plain",)))
    async def metrics(self, request: web.Request) -> web.Response:
        """Figures in Prometheus' text format."""
        text = await asyncio.to_thread(self._metrics.render)
        headers = {**_LIVE_HEADERS, hdrs.CONTENT_TYPE: self._metrics.content_type}
        return web.Response(body=text, headers=headers)

    @described(
        Answer(200, "the stage as it is now", (StateBody,)),
        Refusal(503, "the stage is being set up"),
        query=StageQuery,
        tag="Viewers",
    )
    async def state(self, request: web.Request) -> web.Response:
        """What is on the face, and what is coming."""
        return _json(_stage(self._daemon, request).snapshot())

    @described(
        Answer(200, "a picture", content=(ImageFormat.JPEG.content_type,)),
        Refusal(503, "no frame has been published yet"),
        query=StageQuery,
        tag="Viewers",
    )
    async def snapshot(self, request: web.Request) -> web.Response:
        """The newest frame."""
        newest = await _stage(self._daemon, request).picture(ImageFormat.JPEG)
        if newest is None:
            reason = self._daemon.not_ready_reason() or "no frame has been published yet"
            raise web.HTTPServiceUnavailable(text=reason)
        _, image = newest
        return web.Response(
            body=image, content_type=ImageFormat.JPEG.content_type, headers=_LIVE_HEADERS
        )

    @described(
        Answer(200, "the characters and which is on", (CharactersBody,)),
        query=StageQuery,
        tag="Characters",
    )
    async def characters(self, request: web.Request) -> web.Response:
        """Who can be shown."""
        self._check_stage(request)
        return _json(self._daemon.characters())

    @described(
        Answer(200, "the labels and the range of intensities", (ExpressionsBody,)),
        query=StageQuery,
    )
    async def expressions(self, request: web.Request) -> web.Response:
        """Which emotions can be shown."""
        self._check_stage(request)
        body: ExpressionsBody = {
            "expressions": list(self._daemon.expressions()),
            "intensities": {"min": 0.0, "max": 1.0},
        }
        return _json(body)

    def _check_stage(self, request: web.Request) -> None:
        """These are the same for every stage, and there before the first; a wrong name is wrong."""
        if "stage" in request.query:
            _stage(self._daemon, request)


class _FirstReply:
    """A `Reply` that keeps the first answer; for whoever asks by POST there is no second.

    Args:
        client: its address. All that comes from there is one producer's, as what comes over
            one WebSocket is.
    """

    def __init__(self, client: str) -> None:
        self._client = client
        self._answer: asyncio.Future[StageReply] = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> bool:
        return self._answer.done()

    def __call__(self, reply: StageReply) -> None:
        if not self._answer.done():
            self._answer.set_result(reply)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _FirstReply) and other._client == self._client

    def __hash__(self) -> int:
        return hash(self._client)

    async def within(self, timeout_s: float) -> StageReply | None:
        """The answer; None if there is none in time, and then none is taken any more."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer
        except TimeoutError:
            return None


class _EventsByPost:
    """POST `/v1/events`: one message of section 1, answered with the stage's first reply.

    What asks the stage to do something is answered 202: an emotion with `emotion.accepted`,
    at once; an interrupt or a change of character when it has been done, or, if that takes
    longer than it should, with `interrupt.accepted` or `character.accepted`. Direct controls,
    which have no answer of their own, get `controls.accepted`. Questions
    (`get_state`, `ping`) are answered 200. Later consequences of an emotion have no connection
    to go to; whoever wants them sends over the WebSocket.
    """

    def __init__(self, daemon: DaemonPort, metrics: PrometheusMetrics, limits: HttpLimits) -> None:
        self._daemon = daemon
        self._metrics = metrics
        self._limits = limits
        self._clients: LRUCache[str, RateLimit] = LRUCache(_REMEMBERED_CLIENTS)

    def routes(self) -> list[web.RouteDef]:
        return [web.post(events_ws.PATH, self.post)]

    @described(
        Answer(202, "it is taken, and this is the first answer", event_codec.TAKEN_BY_POST),
        Answer(200, "a question, and its answer", event_codec.ANSWERED_BY_POST),
        *(
            Answer(status, ", ".join(codes), event_codec.REFUSED_BY_POST)
            for status, codes in _codes_by_status()
        ),
        Refusal(408, "the message took too long to arrive"),
        Refusal(503, "the stage has not answered in time"),
        query=StageQuery,
        body=Body(event_codec.MESSAGES, examples=event_codec.EXAMPLES),
        tag="Producers",
    )
    async def post(self, request: web.Request) -> web.Response:
        """Send one message; the same messages as over the WebSocket.

        The answer is the stage's first one. Later consequences of an emotion have no connection
        to go to; whoever wants them sends over the WebSocket at the same path.
        """
        try:
            stage = _stage(self._daemon, request)
            self._judge_rate(request.remote or "")
            return await self._take(await self._body(request), stage, request.remote or "")
        except InvalidEventError as error:
            self._metrics.count(Metric.BAD_MESSAGES, code=error.code.value)
            return _answered(event_codec.failure(error))

    def _judge_rate(self, client: str) -> None:
        now_s = time.monotonic()
        rate = self._clients.get(client)
        if rate is None:
            rate = self._clients[client] = RateLimit(self._limits.messages_per_s, now_s)
        if rate.judge(now_s) is not Verdict.TAKE:
            error = rate_limited(self._limits.messages_per_s, None).error
            raise InvalidEventError(ErrorCode.RATE_LIMITED, error.message)

    async def _take(self, data: bytes, stage: StagePort, client: str) -> web.Response:
        incoming = event_codec.decode(data)
        message = incoming.message
        self._metrics.count(Metric.MESSAGES, type=event_codec.type_name(message))
        if isinstance(message, Ping):
            return _json_text(event_codec.encode_pong(message))
        reply = _FirstReply(client)
        dispatch(incoming, stage, self._daemon, reply)
        answer = await reply.within(_patience_s(message))
        return _unanswered(message) if answer is None else _answered(answer)

    async def _body(self, request: web.Request) -> bytes:
        limit = self._limits.message_bytes
        too_large = InvalidEventError(ErrorCode.TOO_LARGE, f"a message has at most {limit} bytes")
        if (request.content_length or 0) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.request_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="the message took too long to arrive") from None
        except (web.RequestPayloadError, HttpProcessingError) as error:
            raise web.HTTPBadRequest(text="the message did not arrive whole") from error
        return bytes(body)


def _patience_s(message: ClientMessage) -> float:
    match message:
        case Interrupt():
            return message.fade_s + _ANSWER_S
        case CharacterSwitch():
            return _SWITCH_S
        case DirectControls():
            return 0.0  # refused at once, or not answered at all
        case _:
            return _ANSWER_S


def _answered(reply: StageReply) -> web.Response:
    text = event_codec.encode(reply)
    match reply:
        case CueRejected() | Failure():
            status = _STATUS.get(reply.error.code, 500)
            return _json_text(text, status, _RETRY_SOON if status in {429, 503} else None)
        case StateSnapshot():
            return _json_text(text)
        case _:
            return _json_text(text, 202)


def _unanswered(message: ClientMessage) -> web.Response:
    if isinstance(message, Interrupt | CharacterSwitch | DirectControls):
        return _json_text(event_codec.encode_taken(message), 202)
    raise web.HTTPServiceUnavailable(text="the stage has not answered in time")


@dataclass(frozen=True, slots=True)
class _StudioFile:
    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> _StudioFile:
        body = path.read_bytes()
        content_type = _CONTENT_TYPES[path.suffix]
        return cls(body, content_type, hashlib.sha256(body).hexdigest()[:32])

    def response(self, request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        response = web.Response(headers=_PAGE_HEADERS)
        if any(tag.value in {self.etag, "*"} for tag in known):
            response.set_status(HTTPStatus.NOT_MODIFIED)
        else:
            response.body = self.body
            response.content_type = self.content_type
            if self.content_type.startswith("text/"):
                response.charset = "utf-8"
        response.etag = self.etag
        return response


class _Studio:
    """The page at `/` and its files below `/studio/`, kept in memory.

    No request path ever becomes a file path, so none can lead out of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): _StudioFile.read(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in _CONTENT_TYPES
        }

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/", self.page), web.get("/studio/{name:.+}", self.file)]

    @open_to_all
    @described(Answer(200, "the page", content=("text/html",)), tag="Pages")
    async def page(self, request: web.Request) -> web.Response:
        """The studio: watch the face and play with it."""
        return self._response(request, "index.html")

    @open_to_all
    @described(
        Answer(200, "the file", content=tuple(sorted(set(_CONTENT_TYPES.values())))),
        Answer(304, "it is the one that `If-None-Match` names", content=()),
        Refusal(404, "there is no such file"),
        path={"name": "path of the file below the folder"},
        tag="Pages",
    )
    async def file(self, request: web.Request) -> web.Response:
        """A file of the studio."""
        return self._response(request, request.match_info["name"])

    def _response(self, request: web.Request, name: str) -> web.Response:
        file = self._files.get(name)
        if file is None:
            raise web.HTTPNotFound
        return file.response(request)


# --- errors and headers, for every route ------------------------------------------------------


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidEventError as error:
        status = _STATUS.get(error.code, 400)
        return _error(status, event_codec.error_info(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _http_error(request, error)
    except ConnectionError:
        raise  # the client has gone; aiohttp takes it from here
    except Exception as error:
        if request.writer.output_size:  # too late for another answer
            raise
        if isinstance(error, AvatarError) and error.retryable:
            return _error(503, ErrorInfo(ErrorCode.NOT_READY, str(error)))
        log.exception("request_failed", method=request.method, path=request.path)
        return _error(500, ErrorInfo(INTERNAL, "the daemon failed; its log says why"))


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    phrase = HTTPStatus(error.status).phrase
    message = error.text
    if message is None or message == f"{error.status}: {error.reason}":
        message = phrase
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not possible here; {allowed} is"
    elif error.status == HTTPStatus.NOT_FOUND:
        message = f"there is nothing at {request.path[:100]!a}"
    code = _code_of(error.status)
    kept = {
        name: value
        for name, value in error.headers.items()
        if name.title() not in {hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH}
    }
    return _error(error.status, ErrorInfo(code, message), kept)


def _code_of(status: int) -> str:
    """The `code` of an error that is no message's."""
    return _CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))


def _error(status: int, info: ErrorInfo, headers: Mapping[str, str] | None = None) -> web.Response:
    return _json_text(event_codec.encode_error(info), status, headers or {})


def _json(body: Mapping[str, Any], status: int = 200) -> web.Response:
    return _json_text(event_codec.encode_body(body), status)


def _json_text(
    text: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=text,
        status=status,
        content_type="application/json",
        headers={**_LIVE_HEADERS, **(headers or {})},
    )


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_EVERY_RESPONSE)


def _stage(daemon: DaemonPort, request: web.Request) -> StagePort:
    return daemon.stage(request.query.get("stage"))


# --- listening --------------------------------------------------------------------------------


class HttpServer:
    """An application that is being served."""

    def __init__(self, runner: web.AppRunner, sockets: list[socket.socket]) -> None:
        self._runner = runner
        self._addresses = [each.getsockname()[:2] for each in sockets]

    @property
    def port(self) -> int:
        """The TCP port, also where a free one was asked for."""
        return int(self._addresses[0][1])

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Every address and port that it listens on."""
        return list(self._addresses)

    async def close(self) -> None:
        """Stop listening, let requests end for `shutdown_s`, then cut them off; idempotent."""
        await self._runner.cleanup()


async def serve(
    application: web.Application,
    host: str,
    port: int,
    *,
    tcp_user_timeout_s: float = 15.0,
    shutdown_s: float = 2.0,
) -> HttpServer:
    """Listen, and serve until the returned server is closed.

    Args:
        host: name or address; empty is every address, `::` is every IPv6 and IPv4 address.
        port: TCP port; 0 takes a free one.
        tcp_user_timeout_s: the kernel drops a client that acknowledges nothing for so long.
        shutdown_s: what running requests get when the server is closed.

    Raises:
        ConfigError: cannot listen there; names `server.host` or `server.port`.
    """
    sockets = await _listen(host, port, tcp_user_timeout_s)
    runner = web.AppRunner(
        application,
        access_log=None,
        logger=_server_log(),
        keepalive_timeout=_KEEP_ALIVE_S,
        lingering_time=_LINGER_S,
        shutdown_timeout=shutdown_s,
    )
    try:
        await runner.setup()
        for each in sockets:
            await web.SockSite(runner, each, backlog=BACKLOG).start()
    except BaseException:
        await runner.cleanup()
        _close_all(sockets)
        raise
    return HttpServer(runner, sockets)


async def _listen(host: str, port: int, tcp_user_timeout_s: float) -> list[socket.socket]:
    """Bound sockets for every address of `host`, all on the same port."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError("server.host", f"{host!r} is no name or address: {error}") from error
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        # The first one chooses if a free port is asked for.
        at_port = sockets[0].getsockname()[1] if sockets else port
        try:
            bound = _bound(family, (address[0], at_port, *address[2:]), len(addresses) == 1)
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS:
                missing = error  # `localhost` on a machine without IPv6; another may do
                continue
            _close_all(sockets)
            raise _cannot_listen(host, port, error) from error
        _set_user_timeout(bound, tcp_user_timeout_s)
        sockets.append(bound)
    if missing is not None and not sockets:
        raise _cannot_listen(host, port, missing) from missing
    return sockets


def _bound(family: int, address: tuple[Any, ...], alone: bool) -> socket.socket:
    """A listening socket."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` alone takes IPv4 as well; beside an IPv4 socket on the same port it cannot.
            both = alone and address[0] == "::" and socket.has_dualstack_ipv6()
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        made.setblocking(False)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _set_user_timeout(listening: socket.socket, timeout_s: float) -> None:
    """Inherited by connections, where the system has it.

    Pings alone do not notice a client whose receive window is shut, because closing waits
    for what is still to be sent.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        timeout_ms = int(timeout_s * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def _close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    match error.errno:
        case errno.EADDRINUSE:
            return ConfigError(
                "server.port",
                f"port {port} is in use by another program; stop that, or choose another port",
            )
        case errno.EACCES | errno.EPERM:
            return ConfigError(
                "server.port",
                f"listening on port {port} is not permitted; choose one above 1023",
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return ConfigError("server.host", f"{host!r} is no address of this machine")
        case _:
            return ConfigError("server.port", f"cannot listen on {host!r}, port {port}: {error}")


def _server_log() -> logging.Logger:
    """aiohttp's logger, without a traceback for everybody who does not speak HTTP."""
    logger = logging.getLogger("aiohttp.server")
    if _is_about_us not in logger.filters:
        logger.addFilter(_is_about_us)
    return logger


def _is_about_us(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
