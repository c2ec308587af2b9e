"""What a route takes and answers, said beside its handler.

`/openapi.json` is made of the application's own routes and of what stands here above their
handlers, so a new route is described where it is written:

    @described(
        Answer(200, "the stage as it is now", (StateBody,)),
        Refusal(503, "there is no frame yet"),
        query=StageQuery,
    )
    async def state(self, request: web.Request) -> web.Response:
        \"\"\"What is on the face, and why.

        Everything after this first line is the long description.
        \"\"\"

The types are those that the handler decodes and encodes with. What every route may answer
(401, 403, 500, and 404 for an unknown stage) is added by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta

JSON: Final = "application/json"

_HandlerT = TypeVar("_HandlerT", bound=Callable[..., Awaitable[Any]])

UploadedFile = Annotated[
    str,
    Meta(extra_json_schema={"format": "binary", "contentMediaType": "application/octet-stream"}),
]
"""A file in a multipart form."""


@dataclass(frozen=True, slots=True)
class StageQuery:
    """The query of a request that is about a stage.

    Attributes:
        stage: name of the stage; the default one if it is left out.
    """

    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One status of a route.

    Attributes:
        status: HTTP status.
        text: when it comes.
        types: of the body, any one of them; none for what is not JSON.
        content: content types of the body; none if there is no body.
        headers: name to what it says.
    """

    status: int
    text: str
    types: tuple[Any, ...] = ()
    content: tuple[str, ...] = (JSON,)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status with the body of every HTTP error.

    Attributes:
        status: HTTP status.
        text: when it comes.
    """

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries.

    Attributes:
        types: any one of them; the fields of a form where `content` is one.
        content: its content type.
        also: further content types in which the same may come.
        json: any one of them may come instead, as a JSON object.
        examples: name to example.
    """

    types: tuple[Any, ...]
    content: str = JSON
    also: tuple[str, ...] = ()
    json: tuple[Any, ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Description:
    """Everything about one handler; see `described`."""

    answers: tuple[Answer | Refusal, ...]
    query: type | None
    body: Body | None
    path: Mapping[str, str]
    tag: str


def described(
    *answers: Answer | Refusal,
    query: type | None = None,
    body: Body | None = None,
    path: Mapping[str, str] | None = None,
    tag: str = "Daemon",
) -> Callable[[_HandlerT], _HandlerT]:
    """Describe a request handler; its docstring is the summary and the long description.

    Args:
        answers: every status that is its own.
        query: dataclass with a field for every name in the query; its docstring's
            `Attributes:` say what they mean.
        body: what it takes.
        path: name of each variable part of the path to what it is.
        tag: the group that it is listed in.
    """

    def mark(handler: _HandlerT) -> _HandlerT:
        vars(handler)["described"] = Description(answers, query, body, path or {}, tag)
        return handler

    return mark


def description_of(handler: object) -> Description | None:
    """What `described` said of it; None if it has not been described."""
    found = getattr(handler, "described", None)
    return found if isinstance(found, Description) else None
