"""Viewers over WebSocket: `/v1/frames`, protocol section 2."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from aiohttp import WSCloseCode, hdrs, web

from adapters import frame_codec, tcp
from adapters.access import bearer_subprotocols
from adapters.answers import check_handshake
from adapters.described import Answer, Refusal, described
from adapters.reception import vanished
from adapters.viewer import Audience, Memo, Parting, Viewer
from adapters.viewer_query import Framing, ViewerQuery
from pipeline.ports import DaemonPort, StagePort
from pipeline.types import FrameInfo, ImageFormat

KIND: Final = "websocket"
MAX_INPUT_BYTES: Final = 4096  # viewers have nothing to say; longer messages end them with 1009

_GOODBYES: Final = {
    Parting.LEFT: (WSCloseCode.OK, b""),
    Parting.STALLED: (WSCloseCode.POLICY_VIOLATION, b"took no frame for too long"),
    Parting.SHUTDOWN: (WSCloseCode.GOING_AWAY, b"the server is stopping"),
    Parting.REMOVED: (WSCloseCode.GOING_AWAY, b"the stage has been removed"),
}
# How long the other side may take to answer our close and to take what it still has coming.
# One that has stalled will not answer at all.
_ANSWER_S: Final = {
    Parting.LEFT: 1.0, Parting.STALLED: 0.1, Parting.SHUTDOWN: 1.0, Parting.REMOVED: 1.0,
}  # fmt: skip
_FLUSH_S: Final = {
    Parting.LEFT: 1.0, Parting.STALLED: 2.0, Parting.SHUTDOWN: 0.5, Parting.REMOVED: 0.5,
}  # fmt: skip


class ViewerSocket(web.WebSocketResponse):
    """Ends its viewer before a close frame goes out, whoever sends it and why.

    Frames go around this class straight to the transport, and none may follow that one.
    """

    viewer: Viewer | None = None

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close without waiting for what is buffered, which a stalled viewer never takes."""
        if self.viewer is not None:
            self.viewer.end(Parting.LEFT)
        return await super().close(code=code, message=message, drain=False)


class FramesEndpoint:
    """Serves `/v1/frames`; errors are for the application to answer.

    Args:
        daemon: where the stages are.
        audience: where viewers are counted, watched and closed.
    """

    def __init__(self, daemon: DaemonPort, audience: Audience) -> None:
        self._daemon = daemon
        self._audience = audience
        # One for all viewers of a stage that want the same; goes with the last of them.
        # By the stage itself: another of the same name counts its frames anew.
        self._memos: WeakValueDictionary[tuple[StagePort, ImageFormat, Framing], Memo] = (
            WeakValueDictionary()
        )

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [web.get("/v1/frames", self._get, allow_head=False)]

    async def close(self) -> None:
        """Close every viewer of the audience with 1001; takes a second or two at most."""
        await self._audience.close()

    @described(
        Answer(101, "frames follow, as `/asyncapi.json` describes them", content=()),
        Refusal(400, "a value of the query is not one of those allowed"),
        Refusal(426, "the request is not for a WebSocket"),
        Refusal(503, "all places for viewers are taken, or the daemon is stopping"),
        query=ViewerQuery,
        tag="Viewers",
    )
    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Watch over a WebSocket: every frame is a binary message."""
        query = ViewerQuery.parse(request.query)
        stage = self._daemon.stage(query.stage)
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            raise web.HTTPUpgradeRequired(
                text="this is a WebSocket; /v1/stream.mjpg serves frames by plain HTTP",
                headers={hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "Upgrade"},
            )
        check_handshake(request)
        with self._audience.seat(KIND):
            await self._audience.turn()
            return await self._serve(request, query, stage)

    async def _serve(
        self, request: web.Request, query: ViewerQuery, stage: StagePort
    ) -> web.StreamResponse:
        response = ViewerSocket(
            compress=False,  # images are compressed, and the shared bytes say so
            max_msg_size=MAX_INPUT_BYTES,
            protocols=bearer_subprotocols(request),
        )
        writer = await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        tcp.shorten_queue(transport)
        response.viewer = viewer = Viewer(
            KIND,
            query.format,
            transport,
            writer,
            self._memo(stage, query),
            max_fps=query.max_fps,
            vanished=partial(vanished, request),
            clock=self._audience.clock,
        )
        listener = asyncio.create_task(_listen(response, viewer))
        parting = Parting.LEFT
        try:
            parting = await self._audience.attend(
                stage,
                viewer,
                remote=request.remote,
                framing=query.framing.value,
                max_fps=query.max_fps,
            )
        finally:
            if response.closed:  # the listener has had a close frame, or a reason to send one
                await asyncio.wait([listener], timeout=_ANSWER_S[parting])
            listener.cancel()
            await asyncio.wait([listener])
            await _part(response, transport, parting)
            await viewer.settled()
        return response

    def _memo(self, stage: StagePort, query: ViewerQuery) -> Memo:
        key = (stage, query.format, query.framing)
        memo = self._memos.get(key)
        if memo is None:
            bare = query.framing is Framing.BARE
            memo = Memo(_bare_message if bare else partial(_avf1_message, query.format))
            self._memos[key] = memo
        return memo


async def _listen(response: ViewerSocket, viewer: Viewer) -> None:
    """Read until the client closes the connection or it breaks; what it says is ignored."""
    try:
        with suppress(ConnectionError):
            async for _ in response:
                pass
    finally:
        viewer.end(Parting.LEFT)


async def _part(response: ViewerSocket, transport: asyncio.Transport, parting: Parting) -> None:
    """Say goodbye, and have the connection closed soon whatever the other side does."""
    tcp.make_room(transport)
    code, reason = _GOODBYES[parting]
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_ANSWER_S[parting]):
            await response.close(code=code, message=reason)
    transport.close()  # by itself it would wait for ever on one that takes nothing
    await tcp.flush(transport, _FLUSH_S[parting])


def _avf1_message(fmt: ImageFormat, info: FrameInfo, image: bytes, dropped: int) -> bytes:
    return frame_codec.encode_websocket(info, image, fmt, dropped)


def _bare_message(_info: FrameInfo, image: bytes, _dropped: int) -> bytes:
    return frame_codec.websocket_message(image)
