"""Producers: WebSocket `/v1/events` (protocol section 1).

Answers are written to the transport as they come, with no queue and no task in between; a
producer that does not read them is dropped once too many wait. A bad message is answered
and forgotten. Only a message over the size limit and steady flooding end a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Final, Literal

import structlog
from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from adapters import event_codec
from adapters.access import HttpLimits, bearer_subprotocols
from adapters.answers import check_handshake
from adapters.described import Answer, Refusal, StageQuery, described
from adapters.producer import Parting, Producer, Turns
from adapters.reception import vanished
from pipeline.ports import DaemonPort, Metric, Metrics, StagePort

log = structlog.get_logger()

PATH: Final = "/v1/events"

_LINGER_S: Final = 0.5  # a slow link's round trip and some
_LINGER_LOOKS: Final = 25
# Whoever goes on flooding does so while we wait for an answer to our close frame.
_FLOODING_GRACE_S: Final = 1.0

_CLOSE_CODES: Final = {
    Parting.STALLED: WSCloseCode.POLICY_VIOLATION,
    Parting.FLOODING: WSCloseCode.POLICY_VIOLATION,
    Parting.SHUTDOWN: WSCloseCode.GOING_AWAY,
}
_FAREWELLS: Final = {
    Parting.STALLED: b"answers are not read",
    Parting.FLOODING: b"too many messages",
    Parting.SHUTDOWN: b"the daemon is stopping",
}


class ProducerSocket(web.WebSocketResponse[Literal[False]]):
    """aiohttp's WebSocket, with a farewell that also arrives while the other end is sending.

    aiohttp closes the TCP connection right behind its close frame when it cannot read a
    message, the one that is too large above all. The kernel then answers what is still coming
    with a reset, which can overtake the other end's reading of our close frame. So it gets a
    moment to read that, while what it still sends is discarded (RFC 6455, section 7.1.1).
    """

    _failure: int | None = None

    @property
    def sent_code(self) -> int | None:
        """The close code that was sent because a message could not be read."""
        return self._failure

    @property
    def writable(self) -> bool:
        """Frames may be sent: no close frame has been."""
        return self.prepared and not (self.closed or self._failure)

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close; see the base class."""
        unreadable = code in (
            WSCloseCode.PROTOCOL_ERROR,
            WSCloseCode.INVALID_TEXT,
            WSCloseCode.MESSAGE_TOO_BIG,
        )
        if unreadable and self.writable:
            self._failure = code
            await self._linger(code, message)
        return await super().close(code=code, message=message, drain=drain)

    async def _linger(self, code: int, message: bytes) -> None:
        transport = self._req.transport if self._req is not None else None
        if transport is None or transport.is_closing():
            return
        transport.write(_frame(WSMsgType.CLOSE, struct.pack("!H", code) + message))
        # Having failed, the protocol discards what it reads until the other end closes, too.
        for _ in range(_LINGER_LOOKS):
            if transport.is_closing():
                return
            await asyncio.sleep(_LINGER_S / _LINGER_LOOKS)
        transport.close()


class ProducerConnection(Producer):
    """One producer that has connected to us.

    Args:
        socket: the prepared WebSocket.
        transport: what it runs on.
        stage: the stage that its messages are for, unless they name another.

    See the base class for the others.
    """

    def __init__(
        self,
        socket: ProducerSocket,
        transport: asyncio.Transport,
        stage: StagePort,
        *,
        daemon: DaemonPort,
        metrics: Metrics,
        limits: HttpLimits,
        turns: Turns,
    ) -> None:
        # By name, each time: the stage may be removed, and another opened in its place.
        super().__init__(
            lambda: daemon.stage(stage.name),
            daemon=daemon,
            metrics=metrics,
            limits=limits,
            turns=turns,
        )
        self._socket = socket
        self._transport = transport
        self._hello = stage.hello
        self._reading: asyncio.Task[None] | None = None
        self._parting: Parting | None = None

    # --- what stages call -------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """The connection is gone: what comes now is dropped."""
        ending = self._parting is not None or not self._socket.writable
        return ending or self._transport.is_closing()

    def send(self, text: bytes) -> None:
        """Send JSON text. Never blocks."""
        if self.closed:
            return
        self._transport.write(_frame(WSMsgType.TEXT, text))
        if self._transport.get_write_buffer_size() > self._limits.unsent_bytes:
            self.part(Parting.STALLED)

    # --- what the endpoint calls ------------------------------------------------------------

    @property
    def close_code(self) -> int | None:
        """The close code that was sent or received, once the connection is closed."""
        code = self._socket.sent_code or self._socket.close_code
        return None if code is None else int(code)

    async def serve(self) -> Parting:
        """Greet, and take messages until the connection ends; says why it did."""
        self.send(event_codec.encode_hello(self._hello()))
        self._reading = asyncio.create_task(self._read(), name="producer-reading")
        try:
            await asyncio.wait({self._reading})
            if self._parting is None:
                self._parting = self._why_it_ended(self._reading)
            elif self._parting in _CLOSE_CODES:
                await self._say_goodbye(self._parting)
        finally:
            self._reading.cancel()
            self.cut()
        return self._parting

    def part(self, parting: Parting) -> None:
        """Have `serve` close the connection. Never blocks; only the first call counts."""
        if self._parting is None:
            self._parting = parting
            if self._reading is not None:
                self._reading.cancel()

    def cut(self) -> None:
        """Close the TCP connection; what the other end has not taken by now, it never will."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    def _why_it_ended(self, reading: asyncio.Task[None]) -> Parting:
        if not reading.cancelled() and (error := reading.exception()) is not None:
            log.error("producer_failed", exc_info=error)
            return Parting.BROKEN
        broken = self._socket.exception() is not None or not self._socket.closed
        return Parting.BROKEN if broken else Parting.LEFT

    async def _say_goodbye(self, parting: Parting) -> None:
        """The closing handshake, reading on so that the other end can take part in it."""
        code, message = _CLOSE_CODES[parting], _FAREWELLS[parting]
        grace_s = 2.0 * self._limits.goodbye_s
        if parting is Parting.FLOODING:
            grace_s = min(grace_s, _FLOODING_GRACE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                # Without draining: whoever does not read must not hold this up.
                await self._socket.close(code=code, message=message, drain=False)

    async def _read(self) -> None:
        while self._parting is None:
            message = await self._socket.receive()
            if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                await self.received(message.data, message.type is WSMsgType.TEXT)
            else:
                break


class EventsEndpoint:
    """The WebSocket intake of a daemon.

    Args:
        daemon: where the stages are.
        metrics: connections and messages are counted there.
        limits: sizes, rates and numbers.
    """

    def __init__(
        self, daemon: DaemonPort, metrics: Metrics, limits: HttpLimits | None = None
    ) -> None:
        self._daemon = daemon
        self._metrics = metrics
        self._limits = limits or HttpLimits()
        self._connections: dict[ProducerConnection, asyncio.Task[object] | None] = {}
        self._places_taken = 0
        self._turns = Turns()
        self._stopping = False
        self._ids = count(1)

    def routes(self) -> list[web.RouteDef]:
        """The endpoint's routes, for the application."""
        return [web.get(PATH, self._connect, allow_head=False)]

    async def close(self) -> None:
        """Refuse new producers and say goodbye to all with 1001; idempotent.

        Takes at most `goodbye_s`; if it is cancelled, the rest are cut off.
        """
        self._stopping = True
        serving = {task for task in self._connections.values() if task is not None}
        try:
            for connection in self._connections:
                connection.part(Parting.SHUTDOWN)
            if serving:
                await asyncio.wait(serving, timeout=self._limits.goodbye_s)
        finally:
            for connection in self._connections:
                connection.cut()

    @described(
        Answer(101, "messages both ways, as `/asyncapi.json` describes them", content=()),
        Refusal(426, "the request is not for a WebSocket"),
        Refusal(503, "all places for producers are taken, or the daemon is stopping"),
        query=StageQuery,
        tag="Producers",
    )
    async def _connect(self, request: web.Request) -> web.StreamResponse:
        """Send emotion events over a WebSocket, and hear what becomes of them."""
        stage = self._daemon.stage(request.query.get("stage"))
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            raise web.HTTPUpgradeRequired(
                text="this is a WebSocket; send single messages by POST",
                headers={hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "Upgrade"},
            )
        check_handshake(request)
        socket = ProducerSocket(
            protocols=bearer_subprotocols(request),
            timeout=self._limits.goodbye_s,
            heartbeat=self._limits.heartbeat_s,
            compress=False,
            max_msg_size=self._limits.message_bytes + 1,  # aiohttp's is the first that is too large
            decode_text=False,  # invalid UTF-8 is a bad message, not the end of the connection
        )
        async with self._place():
            await socket.prepare(request)
            if request.transport is None:
                return socket
            await self._serve(request, socket, request.transport, stage)
        return socket

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._stopping:
            raise web.HTTPServiceUnavailable(text="the daemon is stopping")
        if self._places_taken >= self._limits.producers:
            raise web.HTTPServiceUnavailable(
                text=f"all {self._limits.producers} places for producers are taken",
                headers={hdrs.RETRY_AFTER: "1"},
            )
        self._places_taken += 1
        self._note_connections()
        try:
            yield
        finally:
            self._places_taken -= 1
            self._note_connections()

    async def _serve(
        self,
        request: web.Request,
        socket: ProducerSocket,
        transport: asyncio.Transport,
        stage: StagePort,
    ) -> None:
        connection = ProducerConnection(
            socket,
            transport,
            stage,
            daemon=self._daemon,
            metrics=self._metrics,
            limits=self._limits,
            turns=self._turns,
        )
        about = log.bind(connection=next(self._ids), stage=stage.name, remote=request.remote)
        about.info("producer_connected")
        began_s = time.monotonic()
        parting: Parting | None = None
        self._connections[connection] = asyncio.current_task()
        if self._stopping:
            connection.part(Parting.SHUTDOWN)
        try:
            parting = await connection.serve()
            if parting in (Parting.LEFT, Parting.BROKEN) and vanished(request):
                parting = Parting.VANISHED
        finally:
            del self._connections[connection]
            about.info(
                "producer_disconnected",
                reason=(parting or Parting.SHUTDOWN).value,
                code=connection.close_code,
                messages=connection.messages,
                bad=connection.bad,
                refused=connection.refused,
                seconds=round(time.monotonic() - began_s, 1),
            )

    def _note_connections(self) -> None:
        self._metrics.set(Metric.CONNECTIONS, self._places_taken, kind="producer")


def _frame(opcode: WSMsgType, payload: bytes) -> bytes:
    """A whole frame as a server sends it: final and unmasked (RFC 6455, section 5.2)."""
    first, length = 0x80 | opcode, len(payload)
    if length < 126:
        return struct.pack("!BB", first, length) + payload
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload
