"""What a character can do, on one picture: GET `/v1/characters/{name}/sheet.jpg`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from aiohttp import hdrs, web

from adapters.described import Answer, Refusal, described
from adapters.forms import Gate
from pipeline.errors import ErrorCode, InvalidEventError, PortraitError
from pipeline.orders import SheetMaker


class SheetEndpoint:
    """Serves it; errors are for the application to answer.

    Args:
        maker: gives who draws, or raises InvalidEventError while there is nobody.
    """

    def __init__(self, maker: Callable[[], SheetMaker]) -> None:
        self._maker = maker
        self._gate = Gate(at_once=1, waiting=3)

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [web.get("/v1/characters/{name}/sheet.jpg", self.sheet)]

    @described(
        Answer(200, "a JPEG with a label under every face", content=("image/jpeg",)),
        Answer(304, "it is the one that `If-None-Match` names", content=()),
        Refusal(404, "there is no character of that name"),
        Refusal(503, "its picture cannot be used, or too much is waiting"),
        path={"name": "of a character"},
        tag="Characters",
    )
    async def sheet(self, request: web.Request) -> web.Response:
        """A contact sheet of a character.

        Every emotion at four intensities, blinks, glances, the jaw and turns of the head. It is
        drawn when it is asked for, in the background of the frames on stage, and then kept for
        a while.
        """
        name = request.match_info["name"]
        maker = self._maker()
        async with self._gate.passed():
            try:
                data = await maker.sheet(name)
            except PortraitError as error:
                problem = f"the picture of {name[:64]} cannot be used: {error.problem}"
                raise InvalidEventError(ErrorCode.NOT_READY, problem) from error
        # Kept, but asked about each time: it is one ETag.
        response = web.Response(headers={hdrs.CACHE_CONTROL: "no-cache"})
        etag = hashlib.sha256(data).hexdigest()[:32]
        if any(tag.value in {etag, "*"} for tag in request.if_none_match or ()):
            response.set_status(304)
        else:
            response.body = data
            response.content_type = "image/jpeg"
        response.etag = etag
        return response
