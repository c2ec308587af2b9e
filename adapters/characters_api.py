"""Characters that come and go at run time: POST and DELETE `/v1/characters`, and thumbnails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from adapters import json_bodies
from adapters.access import HttpLimits
from adapters.answers import image_refused, json_answer
from adapters.described import JSON, Answer, Body, Refusal, UploadedFile, described
from adapters.forms import MULTIPART, Form, Gate, bad_field, read_body, read_form
from adapters.portrait_fetch import PortraitFetcher
from pipeline.bodies import AddedCharacterBody
from pipeline.errors import ErrorCode, InvalidEventError, PortraitError
from pipeline.orders import CharacterKeeper, CharacterOrder

PATH: Final = "/v1/characters"

_Gain = Annotated[float, Meta(ge=0.0, le=2.0)]
_Title = Annotated[str, Meta(max_length=200)]
_Licence = Annotated[str, Meta(max_length=500)]
_Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_KEPT: Final = {hdrs.CACHE_CONTROL: "no-cache"}  # kept, but asked about each time: it is one ETag
_FILES: Final = ("portrait", "source_image", "image", "file")


class CharacterRequest(Struct, frozen=True, kw_only=True):
    """A character whose portrait is fetched.

    Attributes:
        name: what messages will call it.
        url: http or https address of a JPEG, PNG or WebP file.
        title: what people call it; the name unless it is given.
        licence: of the portrait.
        gains: emotion label to factor on its controls, 1 where absent.
        idle_seed: chooses blinks and glances; made of the name unless it is given.
    """

    name: str
    url: str | None = None
    title: _Title = ""
    licence: _Licence = ""
    gains: dict[str, _Gain] = {}
    idle_seed: _Seed | None = None


class CharacterForm(Struct, frozen=True, kw_only=True):
    """A character and its portrait.

    Attributes:
        portrait: JPEG, PNG or WebP file with one clear face.
        url: http or https address of such a file, in place of `portrait`.
        name: what messages will call it.
        title: what people call it; the name unless it is given.
        licence: of the portrait.
        gains: emotion label to factor on its controls, as a JSON object.
        idle_seed: chooses blinks and glances; made of the name unless it is given.
    """

    portrait: UploadedFile | None = None
    url: str | None = None
    name: str
    title: _Title = ""
    licence: _Licence = ""
    gains: str = "{}"
    idle_seed: _Seed | None = None


class CharactersEndpoint:
    """Serves those routes; errors are for the application to answer.

    Args:
        keeper: gives who keeps the characters, or raises InvalidEventError while there is nobody.
        fetcher: fetches portraits.
        limits: of bodies.
    """

    def __init__(
        self, keeper: Callable[[], CharacterKeeper], fetcher: PortraitFetcher, limits: HttpLimits
    ) -> None:
        self._keeper = keeper
        self._fetcher = fetcher
        self._limits = limits
        self._gate = Gate(at_once=2, waiting=8)

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.post(PATH, self.add),
            web.delete(f"{PATH}/{{name}}", self.remove),
            web.get(f"{PATH}/{{name}}/thumbnail.jpg", self.thumbnail),
        ]

    @described(
        Answer(
            201, "it can be put on any stage", (AddedCharacterBody,), headers={"Location": "it"}
        ),
        Refusal(400, "a field that is missing or wrong, or a picture that cannot be read"),
        Refusal(408, "the body took too long to arrive"),
        Refusal(409, "the name is taken, or there are as many as allowed"),
        Refusal(413, "the picture has too many bytes or pixels"),
        Refusal(415, "the body is neither a form nor JSON"),
        Refusal(422, "there is no clear face in the picture, or `gains` names an unknown emotion"),
        Refusal(502, "the picture could not be fetched"),
        Refusal(503, "it could not be kept, or too much is waiting"),
        body=Body((CharacterForm,), MULTIPART, json=(CharacterRequest,)),
        tag="Characters",
    )
    async def add(self, request: web.Request) -> web.Response:
        """Add a character, with its portrait in a form or by address.

        It is accepted once its portrait has been decoded, its face found, and both are on disk;
        it stays until it is deleted. With `url` in place of the portrait, the same fields may come
        as a JSON object.
        """
        keeper = self._keeper()
        async with self._gate.passed():
            asked, portrait = await self._read(request)
            keeper.expect(asked.name)
            if portrait is None:
                portrait = await self._fetcher.fetch(asked.url or "")
            order = CharacterOrder(
                name=asked.name,
                portrait=portrait,
                title=asked.title,
                licence=asked.licence,
                gains=asked.gains,
                idle_seed=asked.idle_seed,
            )
            try:
                added = await keeper.add(order)
            except PortraitError as error:
                raise image_refused(error, "url" if asked.url else "portrait") from error
        return json_answer(added, 201)

    @described(
        Answer(204, "it is gone", content=()),
        Refusal(404, "there is none of that name"),
        Refusal(409, "it is of the configuration, or on a stage"),
        Refusal(503, "it could not be removed"),
        path={"name": "of a character that was added"},
        tag="Characters",
    )
    async def remove(self, request: web.Request) -> web.Response:
        """Delete a character that was added, for good."""
        await self._keeper().remove(request.match_info["name"])
        return web.Response(status=HTTPStatus.NO_CONTENT)

    @described(
        Answer(200, "a JPEG of 192 pixels a side", content=("image/jpeg",)),
        Answer(304, "it is the one that `If-None-Match` names", content=()),
        Refusal(404, "there is no character of that name"),
        Refusal(503, "its picture cannot be used"),
        path={"name": "of a character"},
        tag="Characters",
    )
    async def thumbnail(self, request: web.Request) -> web.Response:
        """A small picture of a character."""
        name = request.match_info["name"]
        try:
            data = await self._keeper().thumbnail(name)
        except PortraitError as error:
            problem = f"the picture of {name[:64]} cannot be used: {error.problem}"
            raise InvalidEventError(ErrorCode.NOT_READY, problem) from error
        response = web.Response(headers=_KEPT)
        etag = hashlib.sha256(data).hexdigest()[:32]
        if any(tag.value in {etag, "*"} for tag in request.if_none_match or ()):
            response.set_status(HTTPStatus.NOT_MODIFIED)
        else:
            response.body = data
            response.content_type = "image/jpeg"
        response.etag = etag
        return response

    async def _read(self, request: web.Request) -> tuple[CharacterRequest, bytes | None]:
        """What is asked for, and the portrait if it came with it."""
        if request.content_type == JSON:
            body = await read_body(request, self._limits, self._limits.message_bytes)
            asked, portrait = json_bodies.decoded(body, CharacterRequest), None
        else:
            form = await read_form(request, self._limits)
            asked, portrait = _from_form(form), form.file(*_FILES)
        if (portrait is None) == (asked.url is None):
            raise bad_field("portrait", "expected a file in `portrait`, or else a `url`")
        return asked, portrait


def _from_form(form: Form) -> CharacterRequest:
    names = ("name", "url", "title", "licence", "idle_seed")
    fields: dict[str, Any] = {name: form.text(name) for name in names}
    fields = {name: value for name, value in fields.items() if value is not None}
    gains = form.text("gains")
    try:
        if gains is not None:
            fields["gains"] = msgspec.json.decode(gains)
            json_bodies.refuse_double_keys(gains.encode(), "gains")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise bad_field("gains", f"gains: expected a JSON object: {error}"[:200]) from error
    try:
        return msgspec.convert(fields, CharacterRequest, strict=False)
    except msgspec.ValidationError as error:
        raise json_bodies.invalid(error) from error
