"""Taking connections for a web server: not too many of them, none that asks for nothing or floods.

aiohttp gives a new connection as long for its first request as an old one for its next, and has
no bound on how many there are. Whoever opened connections and sent headers a byte at a time
could so take every file descriptor that this process has, and those that it needs for its own
files and for the connections that it makes itself with them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_websocket import WebSocketReader

from adapters.answers import EVERY_RESPONSE, code_of, error_answer
from adapters.reading_share import ReadingShare
from adapters.ws_throttle import FRAMES_PER_S, FrameThrottle
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
        frames_per_s: how fast each WebSocket is read.
        options: of `web.RequestHandler`.

    Attributes:
        frames_per_s: as above.
        present: connections that there are.
    """

    def __init__(
        self,
        server: web.Server,
        *,
        most: int | None,
        first_request_s: float = FIRST_REQUEST_S,
        frames_per_s: float = FRAMES_PER_S,
        **options: Any,
    ) -> None:
        self._server = server
        self._most = most
        self._options = options
        self._full = False
        self._first_request_s = first_request_s
        self.frames_per_s = frames_per_s
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

    It has a share of the loop's time; once it is a WebSocket, so many frames a second.

    Attributes:
        vanished: it has ended because nothing came from the other end any more.
    """

    __slots__ = ("_deadline", "_reception", "_resume_wanted", "_share", "_throttle", "vanished")

    def __init__(
        self, server: web.Server, *, reception: Reception, loop: Any, **options: Any
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._reception = reception
        self._deadline: asyncio.TimerHandle | None = None
        self._share = ReadingShare(self._read, resume=self._read_on)
        self._resume_wanted = False
        self._throttle: FrameThrottle | None = None
        self.vanished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = self._loop.call_later(self._reception.enter(), self.force_close)

    def data_received(self, data: bytes) -> None:
        # aiohttp calls this itself, without data, to go on with what it has. What of a request
        # still waits when it has become a WebSocket goes first.
        if data and (self._throttle is None or self._share.holding):
            self._share.take(data)
        else:
            self._read(data)
        self._hold_if_throttled()

    def _read(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None and self._messages:
            self._deadline.cancel()
            self._deadline = None

    def set_parser(
        self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None
    ) -> None:
        """From now on it is a WebSocket."""
        self._throttle = FrameThrottle(
            parser,
            self._reception.frames_per_s,
            ended=self.close,
            resume=self._read_on,
        )
        super().set_parser(cast(WebSocketReader, self._throttle), data_received_cb)
        self._hold_if_throttled()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._share.holding:
            self._resume_wanted = True
            return
        # Of what it has been given, aiohttp's parser has put off what nobody had room for.
        self._share.spend(partial(super().resume_reading, resume_parser))
        self._hold_if_throttled()

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

    def _read_on(self) -> None:
        if self._resume_wanted or not self._reading_paused:
            self._resume_wanted = False
            self.resume_reading()

    def _hold_if_throttled(self) -> None:
        holding = self._share.holding or (self._throttle is not None and self._throttle.holding)
        if holding and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.vanished = isinstance(exc, OSError) and exc.errno in _NO_ANSWER
        super().connection_lost(exc)
        self._share.stop()
        if self._throttle is not None:
            self._throttle.stop()
        self._reception.leave()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
