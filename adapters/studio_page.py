"""The studio page and its files, as they are served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from adapters.access import open_to_all
from adapters.described import Answer, Refusal, described

STUDIO_DIR: Final = Path(__file__).parent / "studio"
CLIENT_PATH: Final = "/client.js"

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    ),
    hdrs.CACHE_CONTROL: "no-cache",  # kept, but asked about each time: it is one ETag
}
_CONTENT_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".txt": "text/plain",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class _StudioFile:
    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> _StudioFile:
        body = path.read_bytes()
        content_type = _CONTENT_TYPES[path.suffix]
        return cls(body, content_type, hashlib.sha256(body).hexdigest()[:32])

    def response(self, request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        response = web.Response(headers=_PAGE_HEADERS)
        if any(tag.value in {self.etag, "*"} for tag in known):
            response.set_status(HTTPStatus.NOT_MODIFIED)
        else:
            response.body = self.body
            response.content_type = self.content_type
            if self.content_type.startswith("text/"):
                response.charset = "utf-8"
        response.etag = self.etag
        return response


class Studio:
    """The page at `/`, its files below `/studio/` and the client, kept in memory.

    No request path ever becomes a file path, so none can lead out of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): _StudioFile.read(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in _CONTENT_TYPES
        }
        # At one address only: it finds the daemon by its own, and imported from two of them a
        # module is there twice.
        if "client.js" in self._files:
            self._files[CLIENT_PATH] = self._files.pop("client.js")

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.page),
            web.get(CLIENT_PATH, self.client),
            web.get("/studio/{name:.+}", self.file),
        ]

    @open_to_all
    @described(Answer(200, "the page", content=("text/html",)), tag="Pages")
    async def page(self, request: web.Request) -> web.Response:
        """The studio: watch the face and play with it."""
        return self._response(request, "index.html")

    @open_to_all
    @described(
        Answer(200, "an ES module", content=("text/javascript",)),
        Answer(304, "it is the one that `If-None-Match` names", content=()),
        tag="Pages",
    )
    async def client(self, request: web.Request) -> web.Response:
        """The client for browsers."""
        return self._response(request, CLIENT_PATH)

    @open_to_all
    @described(
        Answer(200, "the file", content=tuple(sorted(set(_CONTENT_TYPES.values())))),
        Answer(304, "it is the one that `If-None-Match` names", content=()),
        Refusal(404, "there is no such file"),
        path={"name": "path of the file below the folder"},
        tag="Pages",
    )
    async def file(self, request: web.Request) -> web.Response:
        """A file of the studio."""
        return self._response(request, request.match_info["name"])

    def _response(self, request: web.Request, name: str) -> web.Response:
        file = self._files.get(name)
        if file is None:
            raise web.HTTPNotFound
        return file.response(request)
