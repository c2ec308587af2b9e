"""POST and DELETE /v1/characters, thumbnails, and /v1/stages, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from adapters.access import HttpLimits
from adapters.characters_api import CharactersEndpoint
from adapters.portrait_fetch import PortraitFetcher, Reach
from adapters.stages_api import StagesEndpoint
from pipeline.errors import PortraitError, StorageError
from pipeline.orders import StageOrder
from tests.fakes.http_server import Served, served
from tests.fakes.keepers import FakeCast, FakeStages
from tests.fakes.stage import JPEG

LIMITS = HttpLimits(upload_bytes=100_000)
PICTURE = ("face.jpg", b"a picture", "image/jpeg")


async def nowhere(host: str, port: int) -> Sequence[str]:
    raise OSError("no such name")


@asynccontextmanager
async def keeping(
    cast: FakeCast | None = None, stages: FakeStages | None = None
) -> AsyncIterator[Served]:
    cast, stages = cast or FakeCast(), stages or FakeStages()
    fetcher = PortraitFetcher(Reach.ANY, max_bytes=100_000, total_s=5.0, resolve=nowhere)
    endpoints = (
        CharactersEndpoint(lambda: cast, fetcher, LIMITS),
        StagesEndpoint(lambda: stages, LIMITS),
    )
    routes = [route for each in endpoints for route in each.routes()]
    async with served(limits=LIMITS, extra_routes=routes) as running:
        yield running
    await fetcher.close()


def error(response: httpx.Response) -> dict[str, Any]:
    body = response.json()["error"]
    assert isinstance(body, dict)
    return body


# --- characters ---------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["portrait", "source_image", "image", "file"])
async def test_a_form_with_a_portrait_becomes_an_order(field: str) -> None:
    """Every field is read; gains come as JSON."""
    cast = FakeCast()
    async with keeping(cast) as running:
        answer = await running.http.post(
            "/v1/characters",
            data={"name": "ada", "title": "Ada", "gains": '{"happy":0.5}', "idle_seed": "7"},
            files={field: PICTURE},
        )
        assert (answer.status_code, answer.json()["name"]) == (201, "ada")
        (order,) = cast.orders
        assert (order.name, order.title, order.portrait) == ("ada", "Ada", b"a picture")
        assert (order.gains, order.idle_seed, order.licence) == ({"happy": 0.5}, 7, "")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "name"),
        ({"name": "ada", "gains": "lots"}, "gains"),
        ({"name": "ada", "gains": '{"happy":9}'}, "gains"),
        ({"name": "ada", "gains": "[1]"}, "gains"),
        ({"name": "ada", "idle_seed": "-3"}, "idle_seed"),
        ({"name": "ada", "idle_seed": "x"}, "idle_seed"),
        ({"name": "ada", "title": "x" * 201}, "title"),
        ({"name": ["ada", "eve"]}, "name"),
        ({"name": "ada", "url": "http://face.example/x"}, "portrait"),
    ],
)
async def test_a_wrong_field_of_a_character_is_named(data: dict[str, Any], field: str) -> None:
    """400 with the field; nothing is added."""
    cast = FakeCast()
    async with keeping(cast) as running:
        answer = await running.http.post("/v1/characters", data=data, files={"portrait": PICTURE})
        assert (answer.status_code, error(answer)["field"]) == (400, field), answer.text
        assert cast.orders == []


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("characters", {"url": "http://face.example/x"}, "name is required"),
        ("characters", {"name": "ada", "url": 7}, "url: expected text, not a whole number"),
        ("characters", {"name": "ada", "idle_seed": -1}, "idle_seed: expected a whole number >= 0"),
        ("characters", {"name": "ada", "gains": {"happy": 9}}, "gains: expected a number <= 2.0"),
        ("stages", {"name": "Lobby 1"}, "name: expected 1 to 64 of a-z, 0-9, - and _"),
        ("stages", {"name": "lobby", "fps": "x"}, "fps: expected a number, not text"),
        ("stages", {"name": "lobby", "width": 8192}, "width: expected a whole number <= 2048"),
        ("stages", [], "expected an object, not an array"),
    ],
)
async def test_a_wrong_field_is_told_in_words_of_json(path: str, body: Any, sentence: str) -> None:
    """What would be right, without names of Python's types or patterns."""
    async with keeping() as running:
        answer = await running.http.post(f"/v1/{path}", json=body)
        assert (answer.status_code, error(answer)["message"]) == (400, sentence)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"name":"ada"}', 400, "invalid_message"),
        (b'{"name":"ada","url":7}', 400, "invalid_message"),
        (b'{"name":"ada","url":"file:///etc/passwd"}', 400, "invalid_message"),
        (b'{"name":"ada","url":"http://face.example/x"}', 502, "fetch_failed"),
        (b'{"name":', 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b"[]", 400, "invalid_message"),
        (b'"' + b"x" * 70_000 + b'"', 413, "too_large"),
    ],
)
async def test_json_names_an_address(body: bytes, status: int, code: str) -> None:
    """In place of the file; what is wrong about it has its status."""
    async with keeping() as running:
        answer = await running.http.post(
            "/v1/characters", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, error(answer)["code"]) == (status, code)


async def test_a_name_that_is_taken_is_told_before_anything_is_fetched() -> None:
    """409, not the error of an address."""
    async with keeping() as running:
        body = {"name": "taken", "url": "http://face.example/x"}
        answer = await running.http.post("/v1/characters", json=body)
        assert (answer.status_code, error(answer)["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (PortraitError("p", "no face", no_face=True), 422, "no_face"),
        (PortraitError("p", "large", too_large=True), 413, "too_large"),
        (PortraitError("p", "broken"), 400, "invalid_image"),
        (StorageError("the disk is full"), 503, "not_ready"),
    ],
)
async def test_a_character_that_cannot_be_kept(trouble: Exception, status: int, code: str) -> None:
    """Its picture is to blame, or our disk."""
    cast = FakeCast()

    def fail() -> None:
        raise trouble

    cast.trouble = fail
    async with keeping(cast) as running:
        answer = await running.http.post(
            "/v1/characters", data={"name": "ada"}, files={"portrait": PICTURE}
        )
        assert (answer.status_code, error(answer)["code"]) == (status, code)


async def test_a_character_is_deleted_by_its_name() -> None:
    """204; a name is never a path."""
    cast = FakeCast()
    async with keeping(cast) as running:
        assert (await running.http.delete("/v1/characters/ada")).status_code == 204
        assert (await running.http.delete("/v1/characters/..%2F..%2Fetc")).status_code == 204
        assert cast.removed == ["ada", "../../etc"]
        assert (await running.http.delete("/v1/characters/a/b")).status_code == 404


async def test_a_thumbnail_is_asked_for_once() -> None:
    """It has an ETag."""
    async with keeping() as running:
        first = await running.http.get("/v1/characters/ada/thumbnail.jpg")
        assert (first.content, first.headers["content-type"]) == (JPEG, "image/jpeg")
        known = {"If-None-Match": first.headers["etag"]}
        again = await running.http.get("/v1/characters/ada/thumbnail.jpg", headers=known)
        assert (again.status_code, again.content) == (304, b"")


# --- stages -------------------------------------------------------------------------------


async def test_a_stage_is_asked_for_in_json() -> None:
    """Whatever content type curl gives it."""
    stages = FakeStages()
    async with keeping(stages=stages) as running:
        answer = await running.http.post(
            "/v1/stages",
            content=b'{"name":"lobby","fps":15,"width":256,"idle_seed":3}',
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert (answer.status_code, answer.json()["fps"]) == (201, 15.0)
        assert answer.headers["location"] == "/v1/state?stage=lobby"
        assert stages.orders == [StageOrder("lobby", fps=15.0, width=256, idle_seed=3)]
        assert (await running.http.get("/v1/stages")).json()["limit"] == 8
        assert (await running.http.delete("/v1/stages/lobby")).status_code == 204
        assert stages.removed == ["lobby"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "name"),
        (b'{"name":"Lobby"}', "name"),
        (b'{"name":"lobby\\n"}', "name"),
        (b'{"name":""}', "name"),
        (b'{"name":"lobby","fps":0}', "fps"),
        (b'{"name":"lobby","fps":"fast"}', "fps"),
        (b'{"name":"lobby","width":101}', "width"),
        (b'{"name":"lobby","height":4096}', "height"),
        (b'{"name":"lobby","jpeg_quality":101}', "jpeg_quality"),
        (b'{"name":"lobby","idle_seed":-2}', "idle_seed"),
        (b'{"name":"lobby","character":""}', "character"),
    ],
)
async def test_a_wrong_field_of_a_stage_is_named(body: bytes, field: str) -> None:
    """400 with the field; nothing is opened."""
    stages = FakeStages()
    async with keeping(stages=stages) as running:
        answer = await running.http.post("/v1/stages", content=body)
        assert (answer.status_code, error(answer)["field"]) == (400, field), answer.text
        assert stages.orders == []
