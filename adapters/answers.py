"""Answers of the HTTP side: JSON bodies, errors in the one form of section 4, headers of all."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from adapters import event_codec
from adapters.producer_answers import INTERNAL
from pipeline.errors import AvatarError, ErrorCode, InvalidEventError, PortraitError
from pipeline.ports import DaemonPort, StagePort
from pipeline.types import ErrorInfo

log = structlog.get_logger()

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
# Codes that no message is answered with.
_STATUS_OF_REQUESTS: Final[Mapping[str, int]] = {
    ErrorCode.INVALID_IMAGE: 400,
    ErrorCode.UNKNOWN_EXPRESSION: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.NO_FACE: 422,
    ErrorCode.FETCH_FAILED: 502,
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
EVERY_RESPONSE: Final = {
    hdrs.SERVER: "avatar-orchestrator",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # an address may hold ?token=
}
RETRY_SOON: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: "1"}
LIVE_HEADERS: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: "no-store"}


def status_of(code: str, otherwise: int = 400) -> int:
    """The HTTP status of an error code."""
    return _STATUS.get(code) or _STATUS_OF_REQUESTS.get(code, otherwise)


def image_refused(error: PortraitError, field: str) -> InvalidEventError:
    """A client's picture that cannot be used, as an error about the field that it came in."""
    if error.no_face:
        code = ErrorCode.NO_FACE
    else:
        code = ErrorCode.TOO_LARGE if error.too_large else ErrorCode.INVALID_IMAGE
    return InvalidEventError(code, f"{field}: {error.problem}", field=field)


def codes_by_status() -> list[tuple[int, list[str]]]:
    """What messages are refused with: each status, and the codes that it stands for."""
    return [
        (status, sorted(code for code, its_status in _STATUS.items() if its_status == status))
        for status in sorted(set(_STATUS.values()))
    ]


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware that answers every error in the form of section 4."""
    try:
        return await handler(request)
    except InvalidEventError as error:
        status = status_of(error.code)
        headers = RETRY_SOON if status in {429, 503} else None
        return error_answer(status, event_codec.error_info(error), headers)
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
            return error_answer(503, ErrorInfo(ErrorCode.NOT_READY, str(error)), RETRY_SOON)
        log.exception("request_failed", method=request.method, path=request.path)
        return error_answer(500, ErrorInfo(INTERNAL, "the daemon failed; its log says why"))


@web.middleware
async def plain_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware that refuses compressed bodies: they may unpack to anything (RFC 9110)."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.strip().lower() not in {"", "identity"}:
        raise web.HTTPUnsupportedMediaType(
            text="send the body as it is, without a Content-Encoding",
            headers={hdrs.ACCEPT_ENCODING: "identity"},
        )
    return await handler(request)


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
    code = code_of(error.status)
    kept = {
        name: value
        for name, value in error.headers.items()
        if name.title() not in {hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH}
    }
    return error_answer(error.status, ErrorInfo(code, message), kept)


def code_of(status: int) -> str:
    """The `code` of an error that is no message's."""
    return _CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))


def error_answer(
    status: int, info: ErrorInfo, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error in the form of section 4."""
    return json_text(event_codec.encode_error(info), status, headers or {})


def json_answer(body: Mapping[str, Any], status: int = 200) -> web.Response:
    """An object as JSON."""
    return json_text(event_codec.encode_body(body), status)


def json_text(
    text: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """JSON text that is not to be kept by anybody."""
    return web.Response(
        body=text,
        status=status,
        content_type="application/json",
        headers={**LIVE_HEADERS, **(headers or {})},
    )


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal handler for what every response carries."""
    response.headers.update(EVERY_RESPONSE)


def check_handshake(request: web.Request) -> None:
    """Refuse a key that aiohttp would fail on, instead of refusing it (RFC 6455, section 4.2.1)."""
    if not request.headers.get(hdrs.SEC_WEBSOCKET_KEY, "").isascii():
        raise web.HTTPBadRequest(text="Sec-WebSocket-Key: expected 16 bytes in base64")


def stage_of(daemon: DaemonPort, request: web.Request) -> StagePort:
    """The stage that the query names, else the default one.

    Raises:
        InvalidEventError: code `unknown_stage`.
    """
    return daemon.stage(request.query.get("stage"))
