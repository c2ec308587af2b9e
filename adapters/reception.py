"""Taking connections for a web server: not too many of them, and none that asks for nothing.

aiohttp gives a new connection as long for its first request as an old one for its next, and has
no bound on how many there are. Whoever opened connections and sent headers a byte at a time
could so take every file descriptor that this process has, and those that it needs for its own
files and for the connections that it makes itself with them.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from adapters.answers import EVERY_RESPONSE, code_of, error_answer
from pipeline.types import ErrorInfo

log = structlog.get_logger()

FIRST_REQUEST_S: Final = 10.0
"""From the connection, or TLS handshake, to the last header of the first request."""
_UNREADABLE: Final = "this cannot be read as a request"
_TOO_LONG: Final = "the request's line or one of its headers is too long"
_FAILED: Final = "the daemon failed; its log says why"
_NO_ANSWER: Final = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}


class Reception:
    """Makes a protocol for each new connection, as `create_server` wants it.

    Args:
        server: what answers.
        most: connections at a time; None is as many as come.
        first_request_s: time for the first request's headers to arrive.
        options: of `web.RequestHandler`.

    Attributes:
        present: connections that there are.
    """

    def __init__(
        self,
        server: web.Server,
        *,
        most: int | None,
        first_request_s: float = FIRST_REQUEST_S,
        **options: Any,
    ) -> None:
        self._server = server
        self._most = most
        self._options = options
        self._full = False
        self._first_request_s = first_request_s
        self.present = 0

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection that has just been accepted."""
        loop = asyncio.get_running_loop()
        return _Connection(self._server, reception=self, loop=loop, **self._options)

    def enter(self) -> float:
        """One more is there; returns how long it may take to ask for something."""
        self.present += 1
        full = self._most is not None and self.present > self._most
        if full and not self._full:
            log.warning("connections_full", most=self._most)
        self._full = full
        return 0.0 if full else self._first_request_s

    def leave(self) -> None:
        """One has gone."""
        self.present -= 1


def vanished(request: web.Request) -> bool:
    """The client's machine or its network has gone without a goodbye, as the kernel found out."""
    connection = request.protocol
    return isinstance(connection, _Connection) and connection.vanished


def _is_long(error: BaseException | None) -> bool:
    return isinstance(error, LineTooLong)


class _Connection(web.RequestHandler):
    """aiohttp's side of a connection, with a deadline for the first request.

    Attributes:
        vanished: it has ended because nothing came from the other end any more.
    """

    __slots__ = ("_deadline", "_reception", "vanished")

    def __init__(
        self, server: web.Server, *, reception: Reception, loop: Any, **options: Any
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._reception = reception
        self._deadline: asyncio.TimerHandle | None = None
        self.vanished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = self._loop.call_later(self._reception.enter(), self.force_close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None and self._messages:
            self._deadline.cancel()
            self._deadline = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What cannot be read as HTTP gets the error of section 4, not its own bytes back."""
        super().handle_error(request, status, exc, message)
        said = _FAILED if status >= 500 else _TOO_LONG if _is_long(exc) else _UNREADABLE
        answer = error_answer(status, ErrorInfo(code_of(status), said), EVERY_RESPONSE)
        answer.force_close()
        return answer

    def connection_lost(self, exc: BaseException | None) -> None:
        self.vanished = isinstance(exc, OSError) and exc.errno in _NO_ANSWER
        super().connection_lost(exc)
        self._reception.leave()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
