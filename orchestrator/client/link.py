"""One WebSocket that comes back by itself, with jittered exponential back-off."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ssl import SSLContext
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    WebSocketException,
)

from orchestrator.client.errors import ClientError, ClosedError, ConnectError

log = logging.getLogger("orchestrator.client")

_OPEN_S: Final = 10.0
_PING_S: Final = 10.0
_CLOSE_S: Final = 1.0
_MAX_REASON_CHARS: Final = 300
# Trying the same again cannot help; a 404 may be a proxy whose daemon is being replaced, so
# only the first attempt ends with that.
_FINAL: Final = frozenset({401, 403})
_EXPECTED: Final = (OSError, EOFError, WebSocketException, ClientError, msgspec.MsgspecError)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How to come back: delays double up to a limit, each shortened at random by up to half.

    Attributes:
        first_s: longest first delay.
        limit_s: longest delay.
    """

    first_s: float = 0.25
    limit_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0.0 < self.first_s <= self.limit_s:
            raise ValueError(f"expected 0 < first_s <= limit_s, got {self.first_s}, {self.limit_s}")

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures in a row (from 0); `chance` is in [0, 1)."""
        full_s = min(self.limit_s, self.first_s * 2.0 ** min(failures, 32))
        return full_s * (0.5 + chance / 2.0)


class LinkState(StrEnum):
    """How it stands with a connection."""

    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


class Link:
    """Dials, has the connection served, and dials again; until it is closed.

    Args:
        url: WebSocket address.
        token: sent as `Authorization: Bearer`.
        ssl: for `wss`, instead of the system's certificates.
        max_bytes: of one message from the daemon.
        serve: talks over one connection until that ends; it calls `proved` when the daemon
            has said something sensible.
        failed: told once if the daemon turns this client away for good.
        reconnect: the delays.
        sleep, chance: time and luck, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        ssl: SSLContext | None,
        max_bytes: int,
        serve: Callable[[ClientConnection], Awaitable[None]],
        failed: Callable[[ClientError], None],
        reconnect: Reconnect,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._url = url
        self._options: dict[str, Any] = {
            "additional_headers": {"Authorization": f"Bearer {token}"} if token else {},
            "max_size": max_bytes,
        }
        if ssl is not None:
            self._options["ssl"] = ssl
        self._serve = serve
        self._failed = failed
        self._reconnect = reconnect
        self._sleep = sleep
        self._chance = chance
        self._failures = 0
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._trouble = ConnectError(url, "there was no answer yet")
        self.state = LinkState.CLOSED
        self.connections = 0

    async def open(self, timeout_s: float | None) -> None:
        """Start, and return when the daemon has greeted for the first time.

        Raises:
            ConnectError: that did not happen in time, or the daemon refused.
        """
        if self._task is not None:
            raise ClosedError("a client is opened once; make another one")
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="avatar-link")
        try:
            async with asyncio.timeout(timeout_s):
                await self._first
        except TimeoutError:
            await self.close()
            raise self._trouble from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End for good; takes about a second at most. Idempotent."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.state = LinkState.CLOSED

    def proved(self) -> None:
        """The daemon is well: the next delay is a short one again."""
        self._failures = 0
        self.state = LinkState.OPEN
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    async def _run(self) -> None:
        while True:
            self.state = LinkState.CONNECTING
            try:
                await self._once()
            # Names that do not resolve, servers that speak something else, proxies that fail:
            # none of that is a reason to stop trying.
            except Exception as error:
                self._trouble = _why(self._url, error)
                if not isinstance(error, _EXPECTED):
                    log.warning("the connection to %s failed", self._url, exc_info=error)
                if self._is_final(self._trouble):
                    self._give_up(self._trouble)
                    return
            if self._closing:  # what fails while a connection is being closed hides the cancelling
                return
            self.state = LinkState.WAITING
            delay_s = self._reconnect.delay_s(self._failures, self._chance())
            self._failures += 1
            await self._sleep(delay_s)

    async def _once(self) -> None:
        connection = await connect(
            self._url,
            compression=None,
            open_timeout=_OPEN_S,
            ping_interval=_PING_S,
            ping_timeout=_PING_S,
            close_timeout=_CLOSE_S,
            **self._options,
        )
        self.connections += 1
        try:
            await self._serve(connection)
        finally:
            with suppress(WebSocketException, OSError):
                await connection.close()
            connection.transport.abort()

    def _is_final(self, trouble: ConnectError) -> bool:
        first = self._first is not None and not self._first.done()
        return trouble.status in _FINAL or (first and trouble.refused)

    def _give_up(self, trouble: ConnectError) -> None:
        self.state = LinkState.CLOSED
        if self._first is not None and not self._first.done():
            self._first.set_exception(trouble)
        self._failed(trouble)


def _why(url: str, error: Exception) -> ConnectError:
    """The trouble in a sentence; what the daemon itself says comes first."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        problem = _message_in(error.response.body) or f"it answered with status {status}"
        trouble = ConnectError(url, problem, status)
    elif isinstance(error, ConnectionClosed):
        reason = error.rcvd.reason if error.rcvd is not None else ""
        trouble = ConnectError(url, f"the connection ended: {reason or error}")
    elif isinstance(error, TimeoutError):
        trouble = ConnectError(url, "nobody answers")
    else:
        text = str(error) or type(error).__name__
        trouble = ConnectError(url, text[:_MAX_REASON_CHARS])
    trouble.__cause__ = error
    return trouble


def _message_in(body: bytes | bytearray | memoryview | None) -> str | None:
    """What the JSON body of a refusal says, if it is one of the daemon's."""
    try:
        message = msgspec.json.decode(body or b"")["error"]["message"]
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError):
        return None
    return str(message)[:_MAX_REASON_CHARS]
