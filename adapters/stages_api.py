"""Stages that come and go at run time: GET, POST and DELETE `/v1/stages`."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from adapters import json_bodies
from adapters.access import HttpLimits
from adapters.answers import json_answer
from adapters.described import Answer, Body, Refusal, described
from adapters.forms import read_body
from pipeline.bodies import StageBody, StagesBody
from pipeline.errors import ErrorCode, InvalidEventError, PortraitError
from pipeline.orders import StageKeeper, StageOrder

PATH: Final = "/v1/stages"

_NAMES: Final = "1 to 64 of a-z, 0-9, - and _"
_Side = Annotated[int, Meta(ge=64, le=2048, multiple_of=2)]


class StageRequest(Struct, frozen=True, kw_only=True):
    """A stage to be opened. What is left out is as the setting of `main`.

    Attributes:
        name: what messages and viewers will call it: a-z, 0-9, `-` and `_`.
        character: who is on first.
        fps: frames per second of its clock.
        width: of a frame, in pixels; even.
        height: of a frame, in pixels; even.
        jpeg_quality: of JPEG and WebP.
        idle_seed: chooses blinks and glances; -1 takes the character's own.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}(?![\s\S])")]
    character: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    fps: Annotated[float, Meta(ge=1.0, le=120.0)] | None = None
    width: _Side | None = None
    height: _Side | None = None
    jpeg_quality: Annotated[int, Meta(ge=1, le=100)] | None = None
    idle_seed: Annotated[int, Meta(ge=-1, le=2**32 - 1)] | None = None


class StagesEndpoint:
    """Serves those routes; errors are for the application to answer.

    Args:
        keeper: gives who keeps the stages, or raises InvalidEventError while there is nobody.
        limits: of bodies.
    """

    def __init__(self, keeper: Callable[[], StageKeeper], limits: HttpLimits) -> None:
        self._keeper = keeper
        self._limits = limits

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.get(PATH, self.list),
            web.post(PATH, self.create),
            web.delete(f"{PATH}/{{name}}", self.remove),
        ]

    @described(Answer(200, "all of them", (StagesBody,)), tag="Stages")
    async def list(self, request: web.Request) -> web.Response:
        """The stages, the default one first."""
        return json_answer(self._keeper().stages())

    @described(
        Answer(201, "it publishes", (StageBody,), headers={"Location": "its state"}),
        Refusal(400, "a field that is missing or wrong"),
        Refusal(404, "there is no such character"),
        Refusal(409, "the name is taken, or there are as many as allowed"),
        Refusal(503, "its character cannot be shown now"),
        body=Body((StageRequest,), examples={"lobby": {"name": "lobby", "fps": 15}}),
        tag="Stages",
    )
    async def create(self, request: web.Request) -> web.Response:
        """Open a stage: it lives until it is deleted, also over restarts."""
        keeper = self._keeper()
        body = await read_body(request, self._limits, self._limits.message_bytes)
        asked = json_bodies.decoded(body, StageRequest, _NAMES)
        try:
            created = await keeper.create_stage(StageOrder(**msgspec.structs.asdict(asked)))
        except PortraitError as error:
            raise InvalidEventError(
                ErrorCode.NOT_READY, f"its character cannot be shown: {error.problem}"
            ) from error
        answer = json_answer(created, 201)
        answer.headers[hdrs.LOCATION] = f"/v1/state?stage={asked.name}"
        return answer

    @described(
        Answer(204, "it is gone, and its viewers with it", content=()),
        Refusal(404, "there is no stage of that name"),
        Refusal(409, "it is `main`, or of the configuration"),
        path={"name": "of a stage that was made by POST"},
        tag="Stages",
    )
    async def remove(self, request: web.Request) -> web.Response:
        """Close a stage that was made by POST.

        What its cues are owed is paid: they are superseded. Its viewers are closed with 1001,
        and messages that name it are answered `unknown_stage`.
        """
        await self._keeper().remove_stage(request.match_info["name"])
        return web.Response(status=HTTPStatus.NO_CONTENT)
