"""The client for browsers, as it is served."""

from adapters.access import AccessPolicy
from adapters.studio_page import STUDIO_DIR
from tests.fakes.http_server import served

STUDIO = "https://studio.example"


async def test_the_client_is_a_module_that_browsers_keep() -> None:
    """Its type is JavaScript's, and whoever has it already is told so."""
    async with served() as running:
        first = await running.http.get("/client.js")
        again = await running.http.get(
            "/client.js", headers={"If-None-Match": first.headers["ETag"]}
        )
    assert first.status_code == 200
    assert first.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert first.headers["Cache-Control"] == "no-cache"
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert "export class Producer" in first.text
    assert (again.status_code, again.content) == (304, b"")


async def test_the_client_is_there_once() -> None:
    """Imported from two addresses it would be two clients."""
    async with served() as running:
        assert (await running.http.get("/studio/client.js")).status_code == 404


async def test_who_may_have_the_client() -> None:
    """Pages of ours and of allowed origins, without a token; no others."""
    access = AccessPolicy(token="s3cret", origins=(STUDIO,))
    async with served(access=access) as running:
        ours = await running.http.get("/client.js")
        allowed = await running.http.get("/client.js", headers={"Origin": STUDIO})
        other = await running.http.get("/client.js", headers={"Origin": "https://other.example"})
    assert ours.status_code == allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == STUDIO
    assert "Origin" in allowed.headers["Vary"]
    assert other.status_code == 403


def test_the_client_is_one_file() -> None:
    """It imports nothing."""
    source = (STUDIO_DIR / "client.js").read_text("utf-8")
    assert "\nimport " not in source
    assert len(source) < 64_000
