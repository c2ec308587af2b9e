"""The HTTP side as an OpenAPI 3.1 document, made of the routes that are served."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import hdrs, web

from adapters.described import JSON, Answer, Body, Description, Refusal, description_of
from adapters.producer_answers import HttpError
from adapters.schemas import Schemas
from pipeline.bodies import PROTOCOL_VERSION

log = structlog.get_logger()

TITLE: Final = "Avatar Orchestrator"
SECURITY: Final[Mapping[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The setting `auth.token`. On loopback none is needed unless it is set.",
    },
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The same token, for what cannot send headers: `<img>`, players.",
    },
    "subprotocol": {
        "type": "apiKey",
        "in": "header",
        "name": "Sec-WebSocket-Protocol",
        "description": "The same token as `bearer.<token>`, for WebSockets in browsers.",
    },
}

_ABOUT: Final = """\
A daemon that gives an LLM character a living face: emotion events in, portrait frames out.

Times end in `_ms` and are milliseconds; `ts_ms` is wall clock, `pts_ms` the stage's media clock.
Emotions are weights from 0 to 1; facial controls go by ARKit's 52 blendshape names, head angles
in degrees. Input fields that are not described are ignored; answers may gain fields. The
messages of the WebSockets are in `/asyncapi.json`.
"""
_TAGS: Final[Mapping[str, str]] = {
    "Producers": "Make the face move.",
    "Viewers": "See the face.",
    "Daemon": "How it is, and what it knows.",
    "Rendering": "Single pictures, apart from what is live.",
    "Characters": "Who can be shown.",
    "Stages": "Live avatars.",
    "Pages": "The studio and what it is made of.",
}
_EVERYWHERE: Final = (
    Refusal(403, "`Host` or `Origin` is not one that may connect"),
    Refusal(500, "the daemon failed; its log says why"),
)
_TOKEN_NEEDED: Final = Refusal(401, "the token is missing or wrong")
_UNKNOWN_STAGE: Final = Refusal(404, "there is no such stage")
_NO_STAGE_YET: Final = Refusal(503, "the stage is being set up")


def document(
    routes: Collection[web.AbstractRoute], code_of: Callable[[int], str]
) -> dict[str, Any]:
    """The description of these routes.

    Those whose handlers are not `described` are left out, and the log says so.

    Args:
        code_of: HTTP status to the `code` of errors that are no message's.
    """
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, None] = {}
    for method, path, handler in served(routes):
        description = description_of(handler)
        if description is not None:
            operation = _Operation(method, path, handler, description, schemas)
            paths.setdefault(path, {})[method.lower()] = operation.schema()
            tags[description.tag] = None
    for sentence in undescribed(routes):
        log.warning("route_not_described", what=sentence)
    _add_codes(schemas, paths, code_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": PROTOCOL_VERSION,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "the daemon that served this"}],
        "security": [{}, *({name: []} for name in SECURITY)],
        "tags": [{"name": tag, "description": _TAGS.get(tag, tag)} for tag in tags],
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": dict(SECURITY)},
    }


def undescribed(routes: Collection[web.AbstractRoute]) -> list[str]:
    """A sentence for each route without a description, which says where to put it."""
    return [
        f"{method} {path}: put @described(...) of adapters/described.py above "
        f"{handler.__module__}.{handler.__qualname__}"
        for method, path, handler in served(routes)
        if description_of(handler) is None
    ]


def _add_codes(
    schemas: Schemas, paths: Mapping[str, Mapping[str, Any]], code_of: Callable[[int], str]
) -> None:
    """To the codes of messages, which their type lists, those of the statuses in use."""
    statuses = {
        int(status)
        for methods in paths.values()
        for operation in methods.values()
        for status in operation["responses"]
    }
    found = {code_of(status) for status in statuses if status >= HTTPStatus.BAD_REQUEST}
    schemas.of(HttpError)
    code = schemas.components["ErrorBody"]["properties"]["code"]
    code["enum"] = sorted({*code["enum"], *found})


def served(routes: Iterable[web.AbstractRoute]) -> Iterator[tuple[str, str, Any]]:
    """Method, path and handler of each route, without the HEAD that comes with a GET."""
    listed = [
        (route.method, route.resource.canonical, route.handler)
        for route in routes
        if route.resource is not None
    ]
    gets = {path for method, path, _ in listed if method == hdrs.METH_GET}
    for method, path, handler in listed:
        if method != hdrs.METH_HEAD or path not in gets:
            yield method, path, handler


class _Operation:
    """One method of one path."""

    def __init__(
        self, method: str, path: str, handler: Any, description: Description, schemas: Schemas
    ) -> None:
        self._method = method
        self._path = path
        self._handler = handler
        self._said = description
        self._schemas = schemas

    def schema(self) -> dict[str, Any]:
        """The Operation Object."""
        summary, _, more = (inspect.getdoc(self._handler) or self._path).partition("\n")
        made: dict[str, Any] = {
            "operationId": self._name(),
            "summary": summary.removesuffix("."),
            "tags": [self._said.tag],
        }
        if more.strip():
            made["description"] = more.strip()
        if parameters := [*self._path_parameters(), *self._query_parameters()]:
            made["parameters"] = parameters
        if self._said.body is not None:
            made["requestBody"] = self._body(self._said.body)
        made["responses"] = self._responses()
        if self._is_open:
            made["security"] = []
        return made

    @property
    def _is_open(self) -> bool:
        return getattr(self._handler, "open_to_all", False)

    def _name(self) -> str:
        words = "".join(c if c.isalnum() else " " for c in self._path).split()
        return "_".join([self._method.lower(), *words])

    def _path_parameters(self) -> Iterator[dict[str, Any]]:
        for part in self._path.split("{")[1:]:
            name = part.partition("}")[0]
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": self._said.path.get(name, f"the {name} that it is about"),
                "schema": {"type": "string"},
            }

    def _query_parameters(self) -> Iterator[dict[str, Any]]:
        if self._said.query is None:
            return
        # Of the query's own names no component is needed, only of the types in it.
        found = self._schemas.resolved(self._schemas.of(self._said.query))
        self._schemas.components.pop(found["title"])
        for name, schema in found["properties"].items():
            value = _without_null(schema)
            text = value.pop("description", name)
            required = name in found.get("required", ())
            yield {
                "name": name,
                "in": "query",
                "required": required,
                "description": text,
                "schema": value,
            }

    def _body(self, body: Body) -> dict[str, Any]:
        media: dict[str, Any] = {"schema": self._schemas.of(*body.types)}
        if body.content != JSON:
            fields = self._schemas.resolved(media["schema"])["properties"]
            fields.update({name: _without_null(each) for name, each in fields.items()})
        if body.examples:
            media["examples"] = {name: {"value": each} for name, each in body.examples.items()}
        contents = dict.fromkeys((body.content, *body.also), media)
        if body.json:
            contents[JSON] = {"schema": self._schemas.of(*body.json)}
        return {"required": True, "content": contents}

    def _responses(self) -> dict[str, Any]:
        """By status; where several have the same one, any of their bodies."""
        by_status: dict[int, list[Answer | Refusal]] = {}
        for answer in self._said.answers:
            by_status.setdefault(answer.status, []).append(answer)
        for refusal in self._everywhere():
            by_status.setdefault(refusal.status, [refusal])
        return {str(status): self._response(by_status[status]) for status in sorted(by_status)}

    def _everywhere(self) -> Iterator[Refusal]:
        yield from _EVERYWHERE
        if not self._is_open:
            yield _TOKEN_NEEDED
        if "stage" in getattr(self._said.query, "__dataclass_fields__", ()):
            yield _UNKNOWN_STAGE
            yield _NO_STAGE_YET

    def _response(self, answers: list[Answer | Refusal]) -> dict[str, Any]:
        text = "; or ".join(answer.text for answer in answers)
        made: dict[str, Any] = {"description": text or HTTPStatus(answers[0].status).phrase}
        types: dict[str, list[Any]] = {}
        for answer in answers:
            if isinstance(answer, Refusal):
                types.setdefault(JSON, []).append(HttpError)
                continue
            for content in answer.content:
                types.setdefault(content, []).extend(answer.types)
            for name, meaning in answer.headers.items():
                header = {"description": meaning, "schema": {"type": "string"}}
                made.setdefault("headers", {})[name] = header
        if types:
            made["content"] = {name: self._media(name, each) for name, each in types.items()}
        return made

    def _media(self, content: str, types: list[Any]) -> dict[str, Any]:
        if types:
            return {"schema": self._schemas.of(*dict.fromkeys(types))}
        if content == JSON:
            return {}
        text = {"type": "string"}
        return {"schema": text if content.startswith("text/") else text | {"format": "binary"}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter, or a field of a form, that is left out is not there; it is never null."""
    made = {key: value for key, value in schema.items() if value is not None}
    some = [each for each in made.pop("anyOf", ()) if each != {"type": "null"}]
    if len(some) == 1:
        return {**some[0], **made}
    return {**made, "anyOf": some} if some else made
