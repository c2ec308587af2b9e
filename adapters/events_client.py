"""Publishers: character-managers that listen themselves, and that the daemon dials out to.

A publisher says what a producer says on `/v1/events` (protocol section 1), under the same
limits; greeting, receipts and errors go back over the same connection. Two things differ,
because a publisher talks to others, too:

- A message without `type` that has `emotion` or `mix` (`{"emotion":"happy","intensity":0.7}`)
  is an emotion.
- What is none of these messages (another `type`, no object, no JSON) is not for us: it is
  counted and passed over without an answer, so that a publisher that sends our own answers
  round does not start an endless exchange.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog
from msgspec import UNSET, Struct, UnsetType
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode
from websockets.protocol import State

from adapters import event_codec
from adapters.access import HttpLimits
from adapters.dialling import Backoff, Dial, reason, without_secrets
from adapters.event_codec import Incoming
from adapters.producer import Parting, Producer, Turns
from pipeline.errors import InvalidEventError
from pipeline.ports import DaemonPort, Metric, Metrics, StagePort

log = structlog.get_logger()

KIND: Final = "publisher"
OTHER: Final = "other"
"""The `type` under which messages that are not for us are counted."""

_CLOSE_S: Final = 1.0
_FAREWELLS: Final = {
    Parting.FLOODING: (CloseCode.POLICY_VIOLATION, "too many messages"),
    Parting.SHUTDOWN: (CloseCode.GOING_AWAY, "the daemon is stopping"),
}


@dataclass(frozen=True, slots=True)
class Address:
    """A publisher to dial.

    Attributes:
        url: `ws://` or `wss://`; `?stage=` in it names the stage that its messages are for.
        token: bearer token, or None.
        stage: the stage where the URL names none; None is the default one.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    stage: str | None = None

    @property
    def stage_name(self) -> str | None:
        """The stage that its messages are for, unless they name another."""
        named = parse_qs(urlsplit(self.url).query).get("stage")
        return named[-1] if named else self.stage


class _Peek(Struct):
    """What tells a message for us from others."""

    type: Any = UNSET
    emotion: msgspec.Raw | UnsetType = UNSET
    mix: msgspec.Raw | UnsetType = UNSET


_peek = msgspec.json.Decoder(_Peek).decode


def for_us(data: bytes) -> bytes | None:
    """The message as `/v1/events` takes it; None for one that is not for us."""
    try:
        seen = _peek(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if seen.type is not UNSET:
        return data if seen.type in event_codec.SERVED_TYPES else None
    if seen.emotion is UNSET and seen.mix is UNSET:
        return None
    return b'{"type":"emotion",' + data.lstrip()[1:]


class PublisherConnection(Producer):
    """One connection to a publisher.

    Args:
        connection: open.
        answers: say something to the publisher; otherwise it is only listened to.

    See the base class for the others.
    """

    def __init__(
        self,
        connection: ClientConnection,
        stage: Callable[[], StagePort],
        *,
        daemon: DaemonPort,
        metrics: Metrics,
        limits: HttpLimits,
        turns: Turns,
        answers: bool,
    ) -> None:
        super().__init__(stage, daemon=daemon, metrics=metrics, limits=limits, turns=turns)
        self._connection = connection
        self._answers = answers
        self._waiting: deque[bytes] = deque()
        self._unsent = 0
        self._offered = asyncio.Event()
        self._parting: Parting | None = None
        self._parted = asyncio.Event()
        self.others = 0

    @property
    def ours(self) -> int:
        """Messages that were for us, good or bad."""
        return self.messages - self.others

    @property
    def closed(self) -> bool:
        """The connection is gone: what comes now is dropped."""
        return self._parting is not None or self._connection.state is not State.OPEN

    def part(self, parting: Parting) -> None:
        """Have `serve` end. Never blocks; only the first call counts."""
        if self._parting is None:
            self._parting = parting
            self._parted.set()

    def send(self, text: bytes) -> None:
        """Send JSON text, where the publisher is to be answered at all. Never blocks."""
        if self.closed or not self._answers:
            return
        self._unsent += len(text)
        if self._unsent > self._limits.unsent_bytes:
            self.part(Parting.STALLED)
            return
        self._waiting.append(text)
        self._offered.set()

    async def serve(self) -> Parting:
        """Greet, and take messages until the connection ends; says why it did.

        Raises:
            WebSocketException: it was lost.
        """
        self.send(event_codec.encode_hello(self._stage().hello()))
        tasks = [
            asyncio.create_task(work, name=f"publisher-{name}")
            for name, work in (
                ("reading", self._read()),
                ("writing", self._write()),
                ("parting", self._parted.wait()),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._parting is None:
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()
        return self._parting or Parting.LEFT

    async def _read(self) -> None:
        while self._parting is None:
            # As bytes: text that is not UTF-8 is a bad message, not the end of the connection.
            await self.received(await self._connection.recv(decode=False), True)

    async def _write(self) -> None:
        while True:
            await self._offered.wait()
            self._offered.clear()
            while self._waiting:
                text = self._waiting.popleft()
                await self._connection.send(text.decode())
                self._unsent -= len(text)

    async def _close(self) -> None:
        """The closing handshake, where the publisher is likely to take part in it."""
        farewell = _FAREWELLS.get(self._parting or Parting.SHUTDOWN)
        try:
            if farewell is not None:
                with suppress(TimeoutError, WebSocketException):
                    async with asyncio.timeout(_CLOSE_S):
                        await asyncio.gather(self._connection.close(*farewell), self._discard())
        finally:
            self._connection.transport.abort()

    async def _discard(self) -> None:
        """Read on, so that the answer to a close is not stuck behind what is still coming."""
        with suppress(ConnectionClosed):
            while True:
                await self._connection.recv(decode=False)
                await asyncio.sleep(0)

    def _decode(self, data: bytes, is_text: bool) -> Incoming | None:
        message = for_us(data)
        if message is None:
            self._pass_over()
            return None
        return super()._decode(message, is_text)

    def _refuse(self, data: bytes) -> None:
        if for_us(data) is None:
            self._pass_over()
        else:
            super()._refuse(data)

    def _pass_over(self) -> None:
        self.others += 1
        self._metrics.count(Metric.MESSAGES, type=OTHER)


class EventPublishers:
    """Listens to publishers, each over a connection that is made again for ever.

    Args:
        addresses: whom to dial.
        daemon: where the stages are.
        metrics: connections and messages are counted there.
        limits: of one publisher; those of a producer.
        answers: say something to publishers; otherwise they are only listened to.
        max_delay_s: longest delay between two attempts.
        stable_s: a connection that lasts so long lets the next delay be short again.
        open_s: limit for connecting, TLS and handshake together.
        ping_s: interval of pings; one that is not answered for two of them ends the connection.
        rng: source of jitter.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        daemon: DaemonPort,
        metrics: Metrics,
        limits: HttpLimits,
        answers: bool = True,
        max_delay_s: float = 30.0,
        stable_s: float = 10.0,
        open_s: float = 10.0,
        ping_s: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._daemon = daemon
        self._metrics = metrics
        self._limits = limits
        self._turns = Turns()
        self._answers = answers
        self._max_delay_s = max_delay_s
        self._stable_s = stable_s
        self._open_s = open_s
        self._ping_s = ping_s
        self._rng = rng or random.Random()
        self._connected = 0

    async def run(self) -> None:
        """Dial all of them and take what they say; until cancelled."""
        self._metrics.set(Metric.PUBLISHERS_WANTED, len(self._addresses))
        self._note_connections(0)
        async with asyncio.TaskGroup() as keeping:
            for address in self._addresses:
                name = f"publisher {without_secrets(address.url)}"
                keeping.create_task(self._keep(address), name=name)

    async def _keep(self, address: Address) -> None:
        """Connect, listen, connect again."""
        about = log.bind(publisher=without_secrets(address.url), stage=address.stage_name)
        backoff = Backoff(self._max_delay_s, self._rng)
        trouble: str | None = None
        while True:
            try:
                self._daemon.stage(
                    address.stage_name
                )  # without a stage there is no use in dialling
                connection = await self._connect(address)
            # Whatever goes wrong out there, from names that do not resolve to servers that
            # speak something else, is no reason to stop trying, still less to end the daemon.
            except Exception as error:
                why = reason(error, address.url)
                if why != trouble:
                    trouble = why
                    about.warning("publisher_unreachable", reason=why)
            else:
                trouble = None
                if await self._listen(address, connection, about):
                    backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _connect(self, address: Address) -> ClientConnection:
        headers = {} if not address.token else {"Authorization": f"Bearer {address.token}"}
        options: dict[str, Any] = {}
        if urlsplit(address.url).scheme == "wss":
            # Reading the certificates takes longer than a frame.
            options["ssl"] = await asyncio.to_thread(ssl.create_default_context)
        return await Dial(
            address.url,
            additional_headers=headers,
            compression=None,  # a few bytes must not become megabytes
            open_timeout=self._open_s,
            ping_interval=self._ping_s,
            ping_timeout=2 * self._ping_s,
            close_timeout=_CLOSE_S,
            max_size=self._limits.message_bytes,
            **options,
        )

    async def _listen(
        self,
        address: Address,
        connection: ClientConnection,
        about: structlog.typing.FilteringBoundLogger,
    ) -> bool:
        """Take what one connection brings.

        Returns:
            It has worked: it brought messages or lasted, and had not to be hung up on.
        """
        session = PublisherConnection(
            connection,
            lambda: self._daemon.stage(address.stage_name),
            daemon=self._daemon,
            metrics=self._metrics,
            limits=self._limits,
            turns=self._turns,
            answers=self._answers,
        )
        about.info("publisher_connected")
        began_s = time.monotonic()
        ended: str = Parting.SHUTDOWN
        self._note_connections(+1)
        try:
            ended = await session.serve()
            return ended == Parting.LEFT and (session.ours > 0 or self._lasted(began_s))
        except ConnectionClosed as error:
            ended = reason(error, address.url)
            return session.ours > 0 or self._lasted(began_s)
        except InvalidEventError as error:
            ended = reason(error, address.url)
            return False
        except Exception:
            about.exception("publisher_failed")
            ended = Parting.BROKEN
            return False
        finally:
            self._note_connections(-1)
            about.info(
                "publisher_disconnected",
                reason=str(ended),
                messages=session.messages,
                others=session.others,
                bad=session.bad,
                refused=session.refused,
                seconds=round(time.monotonic() - began_s, 1),
            )

    def _lasted(self, began_s: float) -> bool:
        return time.monotonic() - began_s >= self._stable_s

    def _note_connections(self, change: int) -> None:
        self._connected += change
        self._metrics.set(Metric.CONNECTIONS, self._connected, kind=KIND)
