"""A producer: emotions and everything else that moves the face, with receipts as awaitables."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Literal, Self

from msgspec import UNSET, UnsetType
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from orchestrator.client.address import endpoint
from orchestrator.client.answers import (
    Accepted,
    Hello,
    Interrupted,
    Message,
    Shown,
    Switched,
    TextPiece,
    decode_message,
    encode_message,
    read,
    read_ended,
    read_refusal,
)
from orchestrator.client.errors import ClientError, ClosedError, EmotionRejected, RequestError
from orchestrator.client.ledger import Ledger, Request
from orchestrator.client.link import Link, LinkState, Reconnect
from orchestrator.client.receipts import Cue
from orchestrator.client.texts import CleanText, Texts

log = logging.getLogger("orchestrator.client")

_MAX_MESSAGE_BYTES: Final = 8 * 2**20
_LOOK_S: Final = 5.0
_CONTROLS_LAPSE_S: Final = 1.0
_BURST: Final = 100  # messages; the daemon takes 200 at once and 200 a second
_BURST_PAUSE_S: Final = 0.6
_REMEMBERED_IDS: Final = 4096
_ID: Final = re.compile(r"[ -~]{1,64}")
_ENDINGS: Final = frozenset({"emotion.finished", "emotion.superseded", "emotion.expired"})


class Producer:
    """Tells one stage what to show, and reconnects by itself.

        async with Producer("http://127.0.0.1:8081") as producer:
            cue = await producer.emotion("happy", 0.7)
            await cue.peaked

    Every method returns when the daemon has answered. While there is no connection it waits
    for one; a method that is cancelled before its message went out withdraws it. After a lost
    connection all that is not settled is sent again with the same ids, which the daemon takes
    once (a delta of a text that was on its way may be read twice).

    Args:
        url: address of the daemon, `http(s)://` or `ws(s)://`.
        token: the daemon's `auth.token`, if it wants one.
        stage: name of the stage; None is the default one.
        ssl: for `https` and `wss`, instead of the system's certificates.
        open_timeout_s: how long `async with` waits for the daemon; None is for ever.
        close_timeout_s: what leaving `async with` leaves to unanswered messages.
        max_pending: unanswered messages and unended cues, at most.
        reconnect: delays after a lost connection.

    Raises:
        AddressError: at once, if `url` is none.
        ConnectError: by `async with`, if the daemon refuses or does not answer in time; by
            every method, if it refuses later.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        stage: str | None = None,
        ssl: SSLContext | None = None,
        open_timeout_s: float | None = 10.0,
        close_timeout_s: float = 2.0,
        max_pending: int = 128,
        reconnect: Reconnect | None = None,
    ) -> None:
        self._link = Link(
            endpoint(url, "v1/events", {"stage": stage}),
            token=token,
            ssl=ssl,
            max_bytes=_MAX_MESSAGE_BYTES,
            serve=self._serve,
            failed=self._fail,
            reconnect=reconnect or Reconnect(),
        )
        self._open_timeout_s = open_timeout_s
        self._close_timeout_s = close_timeout_s
        self._ledger = Ledger(max_pending)
        self._texts = Texts()
        self._text_id: str | None = None
        self._prefix = secrets.token_hex(6)
        self._used_ids: OrderedDict[Hashable, None] = OrderedDict()
        self._numbers = count(1)
        self._hello: Hello | None = None
        self._error: ClientError | None = ClosedError("the producer is not open: use `async with`")
        self._unsent: list[Request] = []
        self._woken = asyncio.Event()
        self._burst_s, self._burst = 0.0, 0
        self._controls: tuple[Message, float] | None = None
        self._controls_id = f"{self._prefix}-c"
        self._controls_error: RequestError | None = None

    # --- opening and closing ----------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._error = None
        try:
            await self._link.open(self._open_timeout_s)
        except BaseException:
            self._fail(ClosedError("the producer was not opened"))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close(0.0 if error is not None else None)

    async def close(self, timeout_s: float | None = None) -> None:
        """Hang up; whatever is awaited then raises ClosedError. Idempotent.

        Args:
            timeout_s: for unanswered messages to be answered first, whole cues excepted;
                None is the producer's `close_timeout_s`.
        """
        if timeout_s is None:
            timeout_s = self._close_timeout_s
        if self._error is None:
            self._error = ClosedError("the producer is closed")
        unanswered = [request.answer for request in self._ledger.unanswered()]
        try:
            if unanswered and timeout_s > 0.0:
                await asyncio.wait(unanswered, timeout=timeout_s)
        finally:
            self._fail(self._error)
            await self._link.close()

    @property
    def hello(self) -> Hello:
        """What the daemon said when it was last connected to: emotions, policies and more.

        Raises:
            ClosedError: it was not connected to yet.
        """
        if self._hello is None:
            raise ClosedError("the producer is not open: use `async with`")
        return self._hello

    @property
    def connected(self) -> bool:
        """False while it reconnects; messages wait then."""
        return self._link.state is LinkState.OPEN

    # --- what it can ask for ----------------------------------------------------------------

    async def emotion(
        self,
        emotion: str | None = None,
        intensity: float = 1.0,
        *,
        mix: Mapping[str, float] | None = None,
        attack_ms: float | None = None,
        hold_ms: float | UnsetType | None = UNSET,
        decay_ms: float | None = None,
        at_ms: float = 0.0,
        policy: Literal["replace", "queue", "blend", "override"] = "replace",
        priority: int = 5,
        ttl_ms: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's word
    ) -> Cue:
        """Show an emotion; returns when it is accepted, with its receipts to come.

        Args:
            emotion: label or alias, any case; not needed if `mix` is given.
            intensity: wanted strength, 0 to 1.
            mix: further emotions to their strengths.
            attack_ms, decay_ms: time in and out; None is the emotion's own.
            hold_ms: time at full strength; None holds until something replaces it, and left
                out it is the emotion's own.
            at_ms: start so long after receipt.
            policy: what becomes of what is on.
            priority: 0 to 9.
            ttl_ms: expire if not started within that; counts from receipt by the daemon.
            id: 1 to 64 printable ASCII characters; None makes one.

        Raises:
            EmotionRejected: the daemon does not take it.
            FullError: too much waits already.
            ClosedError, ConnectError: there is no daemon to wait for any more.
        """
        optional = {
            "emotion": emotion,
            "mix": None if mix is None else dict(mix),
            "attack_ms": attack_ms,
            "decay_ms": decay_ms,
            "ttl_ms": ttl_ms,
        }
        message: Message = {
            "type": "emotion",
            "id": self._new_id() if id is None else id,
            "intensity": intensity,
            "at_ms": at_ms,
            "policy": policy,
            "priority": priority,
        } | {name: value for name, value in optional.items() if value is not None}
        if hold_ms is not UNSET:
            message["hold_ms"] = hold_ms
        cue: Cue = await self._ask(Request(message["id"], message))
        return cue

    async def text(self, delta: str, *, id: str | None = None, final: bool = False) -> CleanText:  # noqa: A002
        """Send the next piece of a text with emotion tags in it.

        Args:
            delta: the piece; tags may be cut anywhere.
            id: of the text; None is the text that was begun without one, or a new one.
            final: nothing comes after it.

        Returns:
            What is clear by now, without tags, and the cues that these became.

        Raises:
            RequestError: the daemon does not take it.
            FullError, ClosedError, ConnectError: as for `emotion`.
        """
        piece: CleanText = await self._ask(self._text_request(delta, id, final))
        return piece

    async def text_final(self, delta: str = "", *, id: str | None = None) -> CleanText:  # noqa: A002
        """Send the last piece of a text, if there is more, and get what was held back."""
        return await self.text(delta, id=id, final=True)

    async def pipe(self, deltas: AsyncIterable[str] | Iterable[str]) -> AsyncIterator[CleanText]:
        """Send a text as it streams from an LLM, and pass on what is left of it without tags.

            async for piece in producer.pipe(llm.stream(prompt)):
                speak(piece.text)

        Raises:
            RequestError, FullError, ClosedError, ConnectError: as for `text`.
        """
        text_id = self._new_id()
        ended = False
        try:
            async for delta in _each(deltas):
                piece = await self.text(delta, id=text_id)
                if piece.text or piece.cues:
                    yield piece
            ended = True
            rest = await self.text_final(id=text_id)
            if rest.text or rest.cues:
                yield rest
        finally:
            if not ended:  # left early: nobody wants the rest, and the daemon need not keep it
                with suppress(ClientError):
                    self._submit(self._text_request("", text_id, True))

    async def state(self, state: Literal["idle", "listening", "thinking", "speaking"]) -> None:
        """Say what the character is doing.

        Raises:
            RequestError: there is no such state.
            FullError, ClosedError, ConnectError: as for `emotion`.
        """
        await self._ask(self._request("state", state=state))

    async def mood(
        self, valence: float, arousal: float = 0.0, *, decay_ms: float | None = None
    ) -> None:
        """Set the slow layer under the emotions, both from -1 to 1; it fades over `decay_ms`.

        Raises:
            RequestError: a number is out of its range.
            FullError, ClosedError, ConnectError: as for `emotion`.
        """
        decay = {} if decay_ms is None else {"decay_ms": decay_ms}
        await self._ask(self._request("mood", valence=valence, arousal=arousal, **decay))

    async def controls(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        head: Mapping[str, float] | None = None,
        mode: Literal["set", "add"] = "set",
        weight: float = 1.0,
    ) -> None:
        """Drive ARKit blendshapes (0 to 1) and the head (`pitch`, `yaw`, `roll`, degrees).

        The daemon does not answer: this returns at once, the newest counts, and what found
        no connection within a second is forgotten, as the daemon forgets it a second after
        the last one. What the daemon has said against one call, the next one raises.

        Raises:
            RequestError: a name is no blendshape, or the daemon refused an earlier call.
            ClosedError, ConnectError: as for `emotion`.
        """
        self._check_open()
        if self._controls_error is not None:
            error, self._controls_error = self._controls_error, None
            raise error
        self._check_names(weights or {})
        body = {"mode": mode, "weights": dict(weights or {}), "head": dict(head or {})}
        message = {"type": "controls", "id": self._controls_id, **body, "weight": weight}
        _check_message(message)
        self._controls = message, time.monotonic()
        self._woken.set()
        await asyncio.sleep(0)  # whoever calls this in a loop must not keep it from being sent

    async def interrupt(self, *, fade_ms: float = 120.0) -> Interrupted:
        """Fade out every cue and empty the queue; returns when the last has left the face.

        Raises:
            ReceiptLostError: it was carried out, and the answer lost with the connection.
            RequestError, FullError, ClosedError, ConnectError: as for `text`.
        """
        done: Interrupted = await self._ask(self._request("interrupt", fade_ms=fade_ms))
        return done

    async def character(self, character: str) -> Switched:
        """Show another character; returns when it is on the face.

        Raises:
            RequestError: there is none of that name, or it cannot be shown.
            FullError, ClosedError, ConnectError: as for `emotion`.
        """
        done: Switched = await self._ask(self._request("character", character=character))
        return done

    async def get_state(self) -> dict[str, Any]:
        """The stage's snapshot, as GET `/v1/state` has it.

        Raises:
            FullError, ClosedError, ConnectError: as for `emotion`.
        """
        snapshot: dict[str, Any] = await self._ask(self._request("get_state"))
        return snapshot

    async def ping(self) -> float:
        """Milliseconds to the daemon and back.

        Raises:
            ReceiptLostError: the connection was lost meanwhile.
            FullError, ClosedError, ConnectError: as for `emotion`.
        """
        number = next(self._numbers)
        message = {"type": "ping", "t": number}
        request = Request(("ping", number), message, repeatable=False)
        round_trip_ms: float = await self._ask(request)
        return round_trip_ms

    # --- asking -----------------------------------------------------------------------------

    def _new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def _note_id(self, request: Request) -> None:
        self._used_ids[request.key] = None
        if len(self._used_ids) > _REMEMBERED_IDS:
            self._used_ids.popitem(last=False)

    def _request(self, kind: str, **fields: Any) -> Request:
        message = {"type": kind, "id": self._new_id(), **fields}
        return Request(message["id"], message)

    def _text_request(self, delta: str, text_id: str | None, final: bool) -> Request:
        if text_id is None:
            text_id = self._text_id or self._new_id()
            self._text_id = None if final else text_id
        message = {"type": "text", "id": text_id, "delta": delta, "final": final}
        return Request(("text", text_id), message)

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error

    def _check_names(self, weights: Mapping[str, float]) -> None:
        known = {name.lower() for name in self.hello.controls}
        for name in weights:
            if name.lower() not in known:
                problem = f"{name!r} is no ARKit blendshape; hello.controls has them all"
                raise RequestError("invalid_message", problem, f"weights.{name}")

    def _submit(self, request: Request) -> None:
        self._check_open()
        _check_message(request.message)
        if request.key in self._used_ids:
            # The daemon would say that it knows the cue, and no more.
            raise RequestError("id_reused", f"{request.key!r} was used; take another id", "id")
        self._ledger.add(request)
        if request.kind == "emotion":
            self._note_id(request)
        self._unsent.append(request)
        self._woken.set()

    async def _ask(self, request: Request) -> Any:
        self._submit(request)
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._withdraw(request)
            raise

    def _withdraw(self, request: Request) -> None:
        if request.kind == "text" and request.sent_s is not None:
            return  # answers of one text are told apart by their order, so this one's is awaited
        self._ledger.drop(request)
        if request in self._unsent:
            self._unsent.remove(request)
            self._used_ids.pop(request.key, None)

    # --- one connection ---------------------------------------------------------------------

    async def _serve(self, connection: ClientConnection) -> None:
        again = self._link.connections > 1
        await self._expect_hello(connection)
        if again:
            self._texts.lost_connection()
            self._ledger.lost_connection(time.monotonic(), await self._on_stage(connection))
        self._unsent = list(self._ledger)
        self._woken.set()
        self._link.proved()
        writing = asyncio.create_task(self._write(connection), name="avatar-producer-writing")
        try:
            async for message in connection:
                self._heard(decode_message(message))
        finally:
            writing.cancel()
            self._note_size(connection)
            await asyncio.wait([writing])
        if not writing.cancelled():
            writing.result()

    async def _expect_hello(self, connection: ClientConnection) -> None:
        async with asyncio.timeout(_LOOK_S):
            message = decode_message(await connection.recv())
        self._hello = read(message, Hello)

    async def _on_stage(self, connection: ClientConnection) -> set[str]:
        """Ids of the cues that the daemon has, asked where an interrupt may have arrived."""
        if not any(each.kind == "interrupt" and each.sent_s is not None for each in self._ledger):
            return set()
        await connection.send(encode_message({"type": "get_state"}).decode())
        async with asyncio.timeout(_LOOK_S):
            while (message := decode_message(await connection.recv()))["type"] != "state_snapshot":
                self._heard(message)
        return {cue["id"] for cue in (*message.get("cues", ()), *message.get("queue", ()))}

    async def _write(self, connection: ClientConnection) -> None:
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                await self._write_all(connection)
        except ConnectionClosed:
            pass  # whoever reads says why
        except Exception:
            connection.transport.abort()  # else nobody would notice that nothing goes out
            raise

    async def _write_all(self, connection: ClientConnection) -> None:
        while self._unsent:
            await self._keep_below_rate()
            if not self._unsent:  # withdrawn meanwhile
                break
            request = self._unsent.pop(0)
            message = request.message
            if request.kind == "text":
                message = self._texts.outgoing(message)
            request.sent_s = time.monotonic()
            await connection.send(encode_message(message).decode())
        if self._controls is not None:
            (message, asked_s), self._controls = self._controls, None
            if time.monotonic() - asked_s < _CONTROLS_LAPSE_S:
                await connection.send(encode_message(message).decode())

    async def _keep_below_rate(self) -> None:
        now_s = time.monotonic()
        if now_s - self._burst_s >= _BURST_PAUSE_S:
            self._burst_s, self._burst = now_s, 0
        elif self._burst >= _BURST:
            await asyncio.sleep(self._burst_s + _BURST_PAUSE_S - now_s)
            self._burst_s, self._burst = time.monotonic(), 0
        self._burst += 1

    def _note_size(self, connection: ClientConnection) -> None:
        if connection.protocol.close_code == CloseCode.MESSAGE_TOO_BIG:
            self._ledger.too_large(connection.protocol.close_reason or "")

    def _fail(self, error: ClientError) -> None:
        if self._error is None:
            self._error = error
        self._unsent = []
        self._ledger.fail_all(error)
        self._texts.fail_all(error)

    # --- what it hears ----------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        """One answer; those that nobody waits for, and types not known here, are ignored."""
        kind = message.get("type")
        key: Hashable = message.get("id")
        request = self._ledger.find(key)
        match kind:
            case "pong":
                request = self._ledger.find(("ping", message.get("t")))
                if request is not None:
                    elapsed_s = time.monotonic() - (request.sent_s or 0.0)
                    self._ledger.settled(request, elapsed_s * 1000.0)
            case "text.clean":
                request = self._ledger.find(("text", key))
                if request is not None:
                    piece = read(message, TextPiece)
                    self._ledger.settled(request, self._texts.answered(request.message, piece))
            case "emotion.rejected" | "error":
                self._refused(message, request)
            case "emotion.accepted":
                if request is not None:
                    self._accepted(request, read(message, Accepted))
            case "emotion.started" | "emotion.peaked":
                if (cue := self._cue(request, key)) is not None:
                    shown = read(message, Shown)
                    (cue.has_started if kind == "emotion.started" else cue.has_peaked)(shown)
            case str() if kind in _ENDINGS:
                self._ended(message, request)
            case "interrupt.done" if request is not None:
                self._ledger.settled(request, read(message, Interrupted))
            case "character.switched" if request is not None:
                self._ledger.settled(request, read(message, Switched))
            case "state_snapshot" if request is not None:
                body = {name: each for name, each in message.items() if name not in ("type", "id")}
                self._ledger.settled(request, body)
            case "state.ok" | "mood.ok" if request is not None:
                self._ledger.settled(request, None)

    def _accepted(self, request: Request, accepted: Accepted) -> None:
        request.accepted_s = time.monotonic()
        if request.cue is None:
            cue_id = str(request.key)
            request.cue = Cue(cue_id, accepted.used, accepted.intensity, accepted)
        self._ledger.answered(request, request.cue)

    def _ended(self, message: Message, request: Request | None) -> None:
        cue = self._cue(request, message["id"])
        if cue is None:
            return
        cue.has_ended(read_ended(message))
        self._texts.drop_cue(cue.id)
        if request is not None:
            self._ledger.drop(request)

    def _refused(self, message: Message, request: Request | None) -> None:
        error = read_refusal(message)
        key: Hashable = message.get("id")
        cue = self._texts.cue(str(key))
        # The daemon says so after it has answered the delta, whose tags were too many.
        of_answered_text = error.code == "rate_limited" and error.field == "delta"
        if request is None and not of_answered_text:
            request = self._ledger.find(("text", key))
        if request is None and key is None:
            request = self._ledger.next_answered()
        if request is not None and request.kind == "emotion":
            error = EmotionRejected(error.code, error.message, error.field, error.suggestions)
        if request is not None:
            self._ledger.drop(request)
            self._used_ids.pop(request.key, None)
            request.fail(error)
        elif cue is not None:
            self._texts.drop_cue(cue.id)
            cue.fail(error)
        elif key == self._controls_id:
            self._controls_error = error
        else:
            log.warning("the daemon refused something: %s", error)

    def _cue(self, request: Request | None, cue_id: Hashable) -> Cue | None:
        return request.cue if request is not None else self._texts.cue(str(cue_id))


def _check_message(message: Message) -> None:
    """The daemon cannot say whose fault it is without a usable id."""
    if "id" in message and not (isinstance(message["id"], str) and _ID.fullmatch(message["id"])):
        problem = "an id is a string of 1 to 64 printable ASCII characters"
        raise RequestError("invalid_message", problem, "id")
    try:
        encode_message(message)
    except (TypeError, UnicodeError) as error:
        raise RequestError("invalid_message", f"it has no JSON form: {error}") from error


async def _each(deltas: AsyncIterable[str] | Iterable[str]) -> AsyncIterator[str]:
    if isinstance(deltas, AsyncIterable):
        async for delta in deltas:
            yield delta
    else:
        for delta in deltas:
            yield delta
