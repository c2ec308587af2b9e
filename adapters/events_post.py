"""Single messages of producers by HTTP: POST `/v1/events`, section 4."""

from __future__ import annotations

import asyncio
import time
from asyncio import sleep
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from cachetools import LRUCache

from adapters import event_codec, events_ws
from adapters.access import HttpLimits
from adapters.answers import (
    RETRY_SOON,
    codes_by_status,
    json_text,
    stage_of,
    status_of,
)
from adapters.described import Answer, Body, Refusal, StageQuery, described
from adapters.event_codec import ClientMessage
from adapters.metrics import PrometheusMetrics
from adapters.producer import RateLimit, Verdict, dispatch, rate_limited
from adapters.producer_answers import ANSWERED_BY_POST, REFUSED_BY_POST, TAKEN_BY_POST
from adapters.producer_messages import EXAMPLES, MESSAGES, Ping
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import DaemonPort, Metric, StagePort
from pipeline.types import (
    CharacterSwitch,
    CueRejected,
    DirectControls,
    Failure,
    Interrupt,
    StageReply,
    StateSnapshot,
)

_ANSWER_S: Final = 1.0  # beyond what a message takes by itself
_SWITCH_S: Final = 10.0  # loading a portrait and drawing its face ahead
_REMEMBERED_CLIENTS: Final = 1024
# Beyond as many refusals as the limit has messages, each is held back for so long: requests cost
# the event loop more than messages do, and a connection sends its next one after the answer.
_HELD_S: Final = 0.25


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


class EventsByPost:
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
        Answer(202, "it is taken, and this is the first answer", TAKEN_BY_POST),
        Answer(200, "a question, and its answer", ANSWERED_BY_POST),
        *(Answer(status, ", ".join(codes), REFUSED_BY_POST) for status, codes in codes_by_status()),
        Refusal(408, "the message took too long to arrive"),
        Refusal(503, "the stage has not answered in time"),
        query=StageQuery,
        body=Body(MESSAGES, examples=EXAMPLES),
        tag="Producers",
    )
    async def post(self, request: web.Request) -> web.Response:
        """Send one message; the same messages as over the WebSocket.

        The answer is the stage's first one. Later consequences of an emotion have no connection
        to go to; whoever wants them sends over the WebSocket at the same path.
        """
        try:
            stage = stage_of(self._daemon, request)
            await self._judge_rate(request.remote or "")
            return await self._take(await self._body(request), stage, request.remote or "")
        except InvalidEventError as error:
            self._metrics.count(Metric.BAD_MESSAGES, code=error.code.value)
            return _answered(event_codec.failure(error))

    async def _judge_rate(self, client: str) -> None:
        now_s = time.monotonic()
        rate = self._clients.get(client)
        if rate is None:
            rate = self._clients[client] = RateLimit(self._limits.messages_per_s, now_s)
        verdict = rate.judge(now_s)
        if verdict is not Verdict.TAKE:
            if verdict is not Verdict.REFUSE:
                await sleep(_HELD_S)
            error = rate_limited(self._limits.messages_per_s, None).error
            raise InvalidEventError(ErrorCode.RATE_LIMITED, error.message)

    async def _take(self, data: bytes, stage: StagePort, client: str) -> web.Response:
        incoming = event_codec.decode(data)
        message = incoming.message
        self._metrics.count(Metric.MESSAGES, type=event_codec.type_name(message))
        if isinstance(message, Ping):
            return json_text(event_codec.encode_pong(message))
        reply = _FirstReply(client)
        dispatch(incoming, lambda: stage, self._daemon, reply)
        answer = await reply.within(patience_s(message))
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


def patience_s(message: ClientMessage) -> float:
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
            status = status_of(reply.error.code, 500)
            return json_text(text, status, RETRY_SOON if status in {429, 503} else None)
        case StateSnapshot():
            return json_text(text)
        case _:
            return json_text(text, 202)


def _unanswered(message: ClientMessage) -> web.Response:
    if isinstance(message, Interrupt | CharacterSwitch | DirectControls):
        return json_text(event_codec.encode_taken(message), 202)
    raise web.HTTPServiceUnavailable(text="the stage has not answered in time")
