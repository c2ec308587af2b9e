"""Errors as HTTP answers of protocol section 4, for requests that open a stream."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from adapters.viewer import TooManyViewersError
from pipeline.errors import ErrorCode, InvalidEventError

_RETRY_AFTER_S: Final = 5


def refusal(error: InvalidEventError | TooManyViewersError) -> web.Response:
    """The answer to a request that cannot be granted: 400, 404 or 503 with a JSON body."""
    if isinstance(error, TooManyViewersError):
        body = {"code": ErrorCode.RATE_LIMITED.value, "message": str(error)}
        return web.json_response(
            {"error": body}, status=503, headers={"Retry-After": str(_RETRY_AFTER_S)}
        )
    body = {"code": error.code.value, "message": error.message}
    if error.field is not None:
        body["field"] = error.field
    status = 404 if error.code is ErrorCode.UNKNOWN_STAGE else 400
    return web.json_response({"error": body}, status=status)
