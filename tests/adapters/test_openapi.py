"""`/openapi.json`: valid, complete, and true to the types and the routes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openapi_spec_validator
import pytest
from aiohttp import web

from adapters import event_codec, openapi
from adapters.access import AccessPolicy
from adapters.answers import code_of
from adapters.described import Answer, Body, Refusal, StageQuery, UploadedFile, described
from adapters.events_ws import EventsEndpoint
from adapters.frames_ws import FramesEndpoint
from adapters.http_api import build_application
from adapters.metrics import PrometheusMetrics
from adapters.mjpeg import MjpegEndpoint
from adapters.viewer import Audience
from pipeline.errors import ErrorCode, InvalidEventError
from tests.fakes.descriptions import Contract
from tests.fakes.http_server import Served, served
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.stage import FakeDaemon

PROTOCOL = Path(__file__).parents[1] / "golden" / "protocol"


def examples(name: str) -> list[Any]:
    """The examples of the protocol in that file, one a line."""
    return [json.loads(line) for line in (PROTOCOL / name).read_text("utf-8").splitlines()]


def viewers(daemon: FakeDaemon) -> list[web.RouteDef]:
    audience = Audience(RecordingMetrics(), limit=4, stall_s=10.0)
    return [
        *FramesEndpoint(daemon, audience).routes(),
        *MjpegEndpoint(daemon, audience).routes(),
    ]


async def asked(running: Served, path: str, **options: Any) -> httpx.Response:
    return await running.http.get(path, **options)


def whole_application(daemon: FakeDaemon) -> web.Application:
    """With viewers and producers, as the daemon has it."""
    metrics = PrometheusMetrics()
    return build_application(
        daemon,
        metrics=metrics,
        access=AccessPolicy(),
        extra_routes=[*EventsEndpoint(daemon, metrics).routes(), *viewers(daemon)],
    )


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """As JSON that is read back."""
    routes = whole_application(FakeDaemon()).router.routes()
    found: dict[str, Any] = json.loads(json.dumps(openapi.document(routes, code_of)))
    return found


async def test_it_is_served(document: dict[str, Any]) -> None:
    """`/openapi.json` is the description of the application that serves it."""
    daemon = FakeDaemon()
    async with served(daemon, extra_routes=viewers(daemon)) as running:
        response = await asked(running, "/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.json()["paths"].keys() == document["paths"].keys()
    assert response.json()["components"] == document["components"]


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    """The document passes the validator of OpenAPI 3.1."""
    assert document["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(document)


def test_every_route_is_described() -> None:
    """No handler of the application is without a description."""
    missing = openapi.undescribed(whole_application(FakeDaemon()).router.routes())
    assert not missing, "\n".join(missing)


def test_a_route_without_description_is_named() -> None:
    """Whoever adds a route learns where to describe it; one that is described is not named."""

    async def bare(request: web.Request) -> web.Response:
        return web.Response()

    @described(Answer(200, "it is done"), query=StageQuery)
    async def good(request: web.Request) -> web.Response:
        """Do it.

        At length.
        """
        return web.Response()

    application = web.Application()
    application.add_routes([web.delete("/v1/{thing}", bare), web.get("/v1/{thing}", good)])
    routes = list(application.router.routes())
    (sentence,) = openapi.undescribed(routes)
    assert sentence.startswith("DELETE /v1/{thing}: put @described(...)")
    assert f"{bare.__module__}.{bare.__qualname__}" in sentence
    operations = openapi.document(routes, str)["paths"]["/v1/{thing}"]
    assert list(operations) == ["get"]
    operation = operations["get"]
    assert (operation["summary"], operation["description"]) == ("Do it", "At length.")
    assert [(each["name"], each["in"]) for each in operation["parameters"]] == [
        ("thing", "path"),
        ("stage", "query"),
    ]
    assert list(operation["responses"]) == ["200", "401", "403", "404", "500", "503"]


def test_bodies_of_post_are_every_message(document: dict[str, Any]) -> None:
    """One of all message types, told apart by `type`, with an example of each."""
    media = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]
    schema = media["schema"]
    assert schema["discriminator"]["propertyName"] == "type"
    assert sorted(schema["discriminator"]["mapping"]) == sorted(event_codec.SERVED_TYPES)
    assert len(schema["oneOf"]) == len(event_codec.SERVED_TYPES)
    assert set(media["examples"]) == set(event_codec.SERVED_TYPES)
    contract = Contract(document, strict=True)
    for example in media["examples"].values():
        assert contract.problems(example["value"], schema) == []
        event_codec.decode(json.dumps(example["value"]))


@pytest.mark.parametrize("message", examples("client.jsonl"), ids=json.dumps)
def test_messages_of_the_protocol_fit(document: dict[str, Any], message: dict[str, Any]) -> None:
    """What the protocol page sends is what the schema takes, and the decoder."""
    event_codec.decode(json.dumps(message))
    assert Contract(document).problems(message, post_body(document)) == []


@pytest.mark.parametrize("example", examples("client_refused.jsonl"), ids=json.dumps)
def test_messages_against_the_protocol_do_not_fit(
    document: dict[str, Any], example: dict[str, Any]
) -> None:
    """What the decoder refuses, for the right field, the schema refuses as well.

    Names of controls it leaves open: they count in any case.
    """
    with pytest.raises(InvalidEventError) as refused:
        event_codec.decode(json.dumps(example["message"]))
    assert (refused.value.code, refused.value.field) == (example["code"], example["field"])
    problems = Contract(document).problems(example["message"], post_body(document))
    assert bool(problems) is (example["field"] != "weights.jawOpn")


@pytest.mark.parametrize("example", examples("http.jsonl"), ids=json.dumps)
def test_answers_of_the_protocol_fit(document: dict[str, Any], example: dict[str, Any]) -> None:
    """What the protocol page answers, the description knows, status and field."""
    contract = Contract(document, strict=True)
    problems = contract.answer_problems(example["request"], example["status"], example["body"])
    assert problems == []


def test_a_field_that_is_not_described_is_seen(document: dict[str, Any]) -> None:
    """The strict check, on which the others rest, does fail."""
    body = {"expressions": [], "intensities": {"min": 0.0, "max": 1.0, "step": 0.1}}
    assert Contract(document).answer_problems("GET /expressions", 200, body) == []
    (problem,) = Contract(document, strict=True).answer_problems("GET /expressions", 200, body)
    assert "step" in problem


def test_error_codes_are_listed(document: dict[str, Any]) -> None:
    """The codes of the protocol, and those of HTTP errors on the routes that there are."""
    codes = document["components"]["schemas"]["ErrorBody"]["properties"]["code"]["enum"]
    assert set(codes) >= {*ErrorCode, "internal", "not_found", "upgrade_required"}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/state", {}, 401),
        ("/v1/state", {"Authorization": "Bearer wrong"}, 401),
        ("/health", {"Origin": "https://elsewhere.example"}, 403),
        ("/v1/state?stage=nowhere", {"Authorization": "Bearer secret"}, 404),
        ("/v1/events", {"Authorization": "Bearer secret"}, 426),
        ("/v1/frames", {"Authorization": "Bearer secret"}, 426),
        ("/v1/frames?max_fps=0", {"Authorization": "Bearer secret"}, 400),
        ("/v1/stream.mjpg?max_fps=0", {"Authorization": "Bearer secret"}, 400),
        ("/v1/snapshot.jpg", {"Authorization": "Bearer secret"}, 503),
        ("/ready", {}, 503),
    ],
)
async def test_refusals_are_as_described(path: str, headers: dict[str, str], status: int) -> None:
    """Statuses that only some daemons give are described, and their bodies fit."""
    daemon = FakeDaemon()
    daemon.reason = "starting"
    access = AccessPolicy(token="secret")
    async with served(daemon, access=access, extra_routes=viewers(daemon)) as running:
        document = (await asked(running, "/openapi.json?token=secret")).json()
        response = await asked(running, path, headers=headers)
    assert response.status_code == status
    request = f"GET {path.partition('?')[0]}"
    contract = Contract(document, strict=True)
    assert contract.answer_problems(request, status, response.json()) == []


def test_security_is_where_a_token_is_needed(document: dict[str, Any]) -> None:
    """Bearer, query and subprotocol; nothing on what is open to all, nor a 401 there."""
    assert set(document["components"]["securitySchemes"]) == {"bearer", "query", "subprotocol"}
    assert document["paths"]["/health"]["get"]["security"] == []
    assert "401" not in document["paths"]["/health"]["get"]["responses"]
    assert "security" not in document["paths"]["/v1/state"]["get"]
    assert "401" in document["paths"]["/v1/state"]["get"]["responses"]


def test_query_parameters_come_from_the_type_that_checks_them(
    document: dict[str, Any],
) -> None:
    """Formats, framings and the range of max_fps are in the description of viewers."""
    frames = document["paths"]["/v1/frames"]["get"]["parameters"]
    schemas = {each["name"]: each["schema"] for each in frames}
    assert schemas["max_fps"] == {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1000.0}
    assert schemas["format"]["default"] == "jpeg"
    assert schemas["format"]["$ref"].endswith("/ImageFormat")
    assert document["components"]["schemas"]["Framing"]["enum"] == ["avf1", "bare"]


def test_everything_has_a_meaning(document: dict[str, Any]) -> None:
    """Every schema and field, parameter, route and status says what it is."""
    silent = []
    for name, schema in document["components"]["schemas"].items():
        if not schema.get("description"):
            silent.append(name)
        for field, each in schema.get("properties", {}).items():
            if not each.get("description") and field not in {"type", "status", "min", "max"}:
                silent.append(f"{name}.{field}")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts = [*operation.get("parameters", ()), *operation["responses"].values()]
            if not operation["summary"] or not all(part["description"] for part in parts):
                silent.append(f"{method} {path}")
    assert silent == []


async def test_who_has_it_is_told_so() -> None:
    """An ETag; nothing is sent again to whoever names it."""
    async with served() as running:
        for path in ("/openapi.json", "/asyncapi.json"):
            first = await asked(running, path)
            tag = first.headers["etag"]
            again = await asked(running, path, headers={"If-None-Match": tag})
            assert (again.status_code, again.content) == (HTTPStatus.NOT_MODIFIED, b"")
            other = await asked(running, path, headers={"If-None-Match": '"other"'})
            assert (other.status_code, other.content) == (HTTPStatus.OK, first.content)


def test_a_start_does_not_pay_for_it() -> None:
    """Nothing that makes the documents is imported until somebody asks for one."""
    heavy = "{'adapters.openapi', 'adapters.asyncapi', 'adapters.schemas'}"
    code = f"import sys, orchestrator.app; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


def test_a_form_with_a_file() -> None:
    """Fields of a form are never null, a file is binary, and the same may come as JSON."""

    @dataclass
    class PortraitForm:
        """A form.

        Attributes:
            portrait: the file.
            title: what people call it.
        """

        portrait: UploadedFile
        title: str | None = None

    @described(
        Answer(201, "it is there", content=()),
        body=Body((PortraitForm,), "multipart/form-data", also=("application/json",)),
    )
    async def add(request: web.Request) -> web.Response:
        """Add it."""
        return web.Response()

    application = web.Application()
    application.add_routes([web.post("/portraits", add)])
    made = openapi.document(application.router.routes(), str)
    content = made["paths"]["/portraits"]["post"]["requestBody"]["content"]
    assert list(content) == ["multipart/form-data", "application/json"]
    form = made["components"]["schemas"]["PortraitForm"]
    assert form["properties"]["title"] == {"type": "string", "description": "what people call it"}
    assert form["properties"]["portrait"]["format"] == "binary"
    assert form["required"] == ["portrait"]


def test_two_types_of_one_name_are_noticed() -> None:
    """A name in the components is one type."""
    first = msgspec.defstruct("Same", [("a", int)])
    second = msgspec.defstruct("Same", [("b", str)])
    application = web.Application()

    @described(Answer(200, "either", (first,)), Refusal(400, "no"), Answer(201, "or", (second,)))
    async def handler(request: web.Request) -> web.Response:
        """Answer."""
        return web.Response()

    application.add_routes([web.get("/", handler)])
    with pytest.raises(ValueError, match="Same"):
        openapi.document(application.router.routes(), str)


def post_body(document: dict[str, Any]) -> dict[str, Any]:
    """The schema of the body of POST /v1/events."""
    operation = document["paths"]["/v1/events"]["post"]
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema
