"""A viewer of the face: frames as they are published, the newest first."""

from __future__ import annotations

import asyncio
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
from websockets.asyncio.client import ClientConnection

from orchestrator.client.address import endpoint
from orchestrator.client.errors import ClientError, ClosedError
from orchestrator.client.frames import Frame, FrameError, decode_frame
from orchestrator.client.link import Link, LinkState, Reconnect

_MAX_FRAME_BYTES: Final = 64 * 2**20
_MAX_BAD_FRAMES: Final = 30


class Viewer:
    """Watches one stage, and reconnects by itself.

        async with Viewer("http://127.0.0.1:8081") as viewer:
            async for frame in viewer:
                ...

    Whoever takes longer over a frame than the next one needs gets the newest after that; what
    went by is counted in `frame.dropped`. Leaving the `async with` ends the iteration.

    Args:
        url: address of the daemon, `http(s)://` or `ws(s)://`.
        token: the daemon's `auth.token`, if it wants one.
        stage: name of the stage; None is the default one.
        format: encoding of the frames.
        max_fps: at most so many frames a second; None is all of them.
        ssl: for `https` and `wss`, instead of the system's certificates.
        open_timeout_s: how long `async with` waits for the first frame; None is for ever.
        reconnect: delays after a lost connection.

    Raises:
        AddressError: at once, if `url` is none.
        ConnectError: by `async with`, if the daemon refuses or no frame comes in time; by the
            iteration, if the daemon refuses later.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        stage: str | None = None,
        format: Literal["jpeg", "webp", "png"] = "jpeg",  # noqa: A002 - the protocol's word
        max_fps: float | None = None,
        ssl: SSLContext | None = None,
        open_timeout_s: float | None = 10.0,
        reconnect: Reconnect | None = None,
    ) -> None:
        fps = None if max_fps is None else f"{max_fps:g}"
        query = {"stage": stage, "format": format, "framing": "avf1", "max_fps": fps}
        self._link = Link(
            endpoint(url, "v1/frames", query),
            token=token,
            ssl=ssl,
            max_bytes=_MAX_FRAME_BYTES,
            serve=self._serve,
            failed=self._fail,
            reconnect=reconnect or Reconnect(),
        )
        self._open_timeout_s = open_timeout_s
        self._woken = asyncio.Event()
        self._newest: Frame | None = None
        self._error: ClientError | None = None
        self._open = False
        self._missed_here = 0
        self._missed_before = 0
        self._missed_there = 0

    @property
    def connected(self) -> bool:
        """Frames are coming; False while it reconnects."""
        return self._link.state is LinkState.OPEN

    async def __aenter__(self) -> Self:
        self._open = True
        await self._link.open(self._open_timeout_s)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up; iterations end. Idempotent."""
        self._open = False
        self._woken.set()
        await self._link.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        while True:
            if self._error is not None:
                raise self._error
            if not self._open:
                raise StopAsyncIteration
            if self._newest is not None:
                frame, self._newest = self._newest, None
                return frame
            self._woken.clear()
            await self._woken.wait()

    async def frame(self) -> Frame:
        """The next frame, or the newest that was not taken yet.

        Raises:
            ClosedError: the viewer is closed.
            ConnectError: the daemon turned it away.
        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise ClosedError("the viewer is closed") from None

    async def _serve(self, connection: ClientConnection) -> None:
        self._missed_before += self._missed_there
        self._missed_there = 0
        bad = 0
        async for message in connection:
            if isinstance(message, str):
                continue  # the protocol has none; a later one may
            try:
                header, image = decode_frame(message)
            except FrameError:
                bad += 1
                if bad > _MAX_BAD_FRAMES:
                    raise
                continue
            self._link.proved()
            self._missed_there = header.dropped
            self._missed_here += self._newest is not None
            missed = self._missed_before + self._missed_there + self._missed_here
            fields: dict[str, Any] = msgspec.structs.asdict(header)
            self._newest = Frame(**fields | {"dropped": missed, "image": image})
            self._woken.set()

    def _fail(self, error: ClientError) -> None:
        self._error = error
        self._woken.set()
