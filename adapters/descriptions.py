"""`/openapi.json` and `/asyncapi.json`: the protocol, described for programs.

Both are made when they are first asked for, in a thread of their own: they cost the start
nothing, and frames no time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from adapters.described import JSON, Answer, described

_HEADERS: Final = {hdrs.CACHE_CONTROL: "no-cache"}  # kept, but asked about each time
_SERVED: Final = (
    Answer(200, "the document", (dict[str, Any],), headers={"ETag": "of this version"}),
    Answer(304, "it is the one that `If-None-Match` names", content=()),
)


@dataclass(frozen=True, slots=True)
class _Document:
    body: bytes
    etag: str

    @classmethod
    def of(cls, made: dict[str, Any]) -> _Document:
        body = msgspec.json.encode(made)
        return cls(body, hashlib.sha256(body).hexdigest()[:32])

    def response(self, request: web.Request) -> web.Response:
        response = web.Response(headers=_HEADERS)
        known = request.if_none_match or ()
        if any(tag.value in {self.etag, "*"} for tag in known):
            response.set_status(HTTPStatus.NOT_MODIFIED)
        else:
            response.body = self.body
            response.content_type = JSON
        response.etag = self.etag
        return response


class Descriptions:
    """Serves the descriptions of the application that it is a part of.

    Args:
        code_of: HTTP status to the `code` that errors have which the HTTP side finds itself.
    """

    def __init__(self, code_of: Callable[[int], str]) -> None:
        self._code_of = code_of
        self._documents: dict[str, _Document] = {}

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.get("/openapi.json", self.openapi),
            web.get("/asyncapi.json", self.asyncapi),
        ]

    @described(*_SERVED)
    async def openapi(self, request: web.Request) -> web.Response:
        """This document: every route, as OpenAPI 3.1."""

        def make() -> dict[str, Any]:
            from adapters import openapi

            return openapi.document(routes, self._code_of)

        routes = list(request.app.router.routes())
        return (await self._document("openapi", make)).response(request)

    @described(*_SERVED)
    async def asyncapi(self, request: web.Request) -> web.Response:
        """Every message of the WebSockets, as AsyncAPI 3.0."""

        def make() -> dict[str, Any]:
            from adapters import asyncapi

            return asyncapi.document()

        return (await self._document("asyncapi", make)).response(request)

    async def _document(self, name: str, make: Callable[[], dict[str, Any]]) -> _Document:
        document = self._documents.get(name)
        if document is None:  # two that ask at once get two that are alike
            made = await asyncio.to_thread(make)
            document = self._documents[name] = _Document.of(made)
        return document
