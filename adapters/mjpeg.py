"""Viewers over plain HTTP: `/v1/stream.mjpg`, for `<img>`, ffplay, OpenCV and OBS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11

from adapters import tcp
from adapters.described import Answer, Refusal, described
from adapters.reception import vanished
from adapters.viewer import Audience, Memo, Parting, Viewer
from adapters.viewer_query import MaxFps, ViewerQuery
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import DaemonPort, StagePort
from pipeline.types import FrameInfo, ImageFormat

KIND: Final = "mjpeg"

_BOUNDARY: Final = b"frame"
_HEADERS: Final = {
    hdrs.CONTENT_TYPE: f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}",
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.CONNECTION: "close",
}
_FLUSH_S: Final = {
    Parting.LEFT: 0.5, Parting.STALLED: 0.1, Parting.SHUTDOWN: 1.0, Parting.REMOVED: 0.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """What of a `ViewerQuery` is left where every frame is a JPEG file.

    Attributes:
        stage: name of the stage; the default one if it is left out.
        max_fps: at most this many frames per second of media time; all of them if left out.
    """

    stage: str | None = None
    max_fps: MaxFps | None = None


class MjpegEndpoint:
    """Serves `/v1/stream.mjpg`; errors are for the application to answer.

    Args:
        daemon: where the stages are.
        audience: where viewers are counted, watched and closed.
    """

    def __init__(self, daemon: DaemonPort, audience: Audience) -> None:
        self._daemon = daemon
        self._audience = audience
        # One for all viewers of a stage; goes with the last of them.
        # By the stage itself: another of the same name counts its frames anew.
        self._memos: WeakValueDictionary[tuple[StagePort, bool], Memo] = WeakValueDictionary()

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [web.get("/v1/stream.mjpg", self._get)]

    async def close(self) -> None:
        """End every viewer of the audience; takes a second or two at most."""
        await self._audience.close()

    @described(
        Answer(200, "JPEG files without end", content=("multipart/x-mixed-replace",)),
        Refusal(400, "a value of the query is not one of those allowed"),
        Refusal(503, "all places for viewers are taken, or the daemon is stopping"),
        query=StreamQuery,
        tag="Viewers",
    )
    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Watch over plain HTTP: for `<img>`, ffplay, OpenCV and OBS."""
        query = ViewerQuery.parse(request.query)
        if query.format is not ImageFormat.JPEG:
            raise InvalidEventError(
                ErrorCode.INVALID_MESSAGE, "this stream is always jpeg", field="format"
            )
        stage = self._daemon.stage(query.stage)
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=_HEADERS)
        with self._audience.seat(KIND):
            await self._audience.turn()
            return await self._serve(request, query, stage)

    async def _serve(
        self, request: web.Request, query: ViewerQuery, stage: StagePort
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        response.force_close()
        writer = await response.prepare(request)
        transport = request.transport
        if writer is None or transport is None:
            return response
        tcp.shorten_queue(transport)
        chunked = request.version >= HttpVersion11
        transport.write(_chunk(b"--%b\r\n" % _BOUNDARY) if chunked else b"--%b\r\n" % _BOUNDARY)
        viewer = Viewer(
            KIND,
            ImageFormat.JPEG,
            transport,
            writer,
            self._memo(stage, chunked),
            max_fps=query.max_fps,
            vanished=partial(vanished, request),
            clock=self._audience.clock,
        )
        parting = Parting.LEFT
        try:
            parting = await self._audience.attend(
                stage, viewer, remote=request.remote, max_fps=query.max_fps
            )
        finally:
            tcp.make_room(transport)
            await tcp.flush(transport, _FLUSH_S[parting])
            await viewer.settled()
        return response

    def _memo(self, stage: StagePort, chunked: bool) -> Memo:
        key = (stage, chunked)
        memo = self._memos.get(key)
        if memo is None:
            memo = self._memos[key] = Memo(_chunked_part if chunked else _part)
        return memo


def _part(info: FrameInfo, image: bytes, dropped: int) -> bytes:
    """One part with the boundary behind it: browsers show a part when they see that."""
    head = (
        f"Content-Type: image/jpeg\r\nContent-Length: {len(image)}\r\nX-Seq: {info.seq}\r\n"
        f"X-Timestamp: {info.ts_ms / 1000.0:.6f}\r\nX-Dropped: {dropped}\r\n\r\n"
    )
    return b"".join((head.encode("ascii"), image, b"\r\n--", _BOUNDARY, b"\r\n"))


def _chunked_part(info: FrameInfo, image: bytes, dropped: int) -> bytes:
    return _chunk(_part(info, image, dropped))


def _chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
