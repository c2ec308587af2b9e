"""Who may connect."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest
import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from adapters.access import AccessPolicy, TokenBucket, is_loopback
from pipeline.errors import ConfigError
from tests.fakes.http_server import ask, receive, served

TOKEN = "s3cret-Token_1"
GUARDED = AccessPolicy(token=TOKEN)
PROTECTED_PATHS = ["/metrics", "/v1/state", "/v1/snapshot.jpg", "/v1/characters", "/expressions"]


# --- the policy by itself -------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.5", "spark", "8.8.8.8"])
def test_beyond_loopback_a_token_is_demanded(host: str) -> None:
    """The daemon refuses to start without one, and says what to set."""
    with pytest.raises(ConfigError) as caught:
        AccessPolicy(host=host)
    assert caught.value.where == "auth.token"
    assert "auth.mode" in str(caught.value)


def test_no_token_beyond_loopback_must_be_written_out() -> None:
    """`auth.mode = "none"` is the one way to do without."""
    assert not AccessPolicy(host="0.0.0.0", mode="none").needs_token
    assert AccessPolicy(host="0.0.0.0", token=TOKEN).needs_token


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1", "LocalHost"]
)
def test_on_loopback_no_token_is_needed(host: str) -> None:
    """Unless one is set."""
    assert is_loopback(host)
    assert not AccessPolicy(host=host).needs_token
    assert AccessPolicy(host=host, token=TOKEN).needs_token


def test_the_token_is_not_in_the_policys_repr() -> None:
    """A policy can be logged."""
    assert TOKEN not in repr(GUARDED)


@pytest.mark.parametrize(
    ("candidates", "known"),
    [
        ([TOKEN], True),
        (["wrong", TOKEN], True),
        ([], False),
        ([""], False),
        ([TOKEN[:-1]], False),
        ([f"{TOKEN} "], False),
        (["ü\udce4"], False),
    ],
)
def test_a_token_is_known_whole_or_not_at_all(candidates: list[str], known: bool) -> None:
    """Any of the candidates may be it."""
    assert GUARDED.knows_token(candidates) is known


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8081", True),
        ("localhost", True),
        ("LOCALHOST:8081", True),
        ("localhost.:8081", True),
        ("avatar.localhost", True),
        ("[::1]:8081", True),
        ("192.168.1.5:8081", True),  # an address cannot be rebound
        ("studio.example:9000", True),  # allowed by the settings
        (None, True),  # HTTP/1.0: no browser
        ("evil.example", False),
        ("evil.example:8081", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil@127.0.0.1", False),
        ("evil.example/@127.0.0.1", False),
        ("127.0.0.1:port", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine_are_taken_for_it(host: str | None, allowed: bool) -> None:
    """A foreign name in `Host` is what DNS rebinding looks like."""
    policy = AccessPolicy(hosts=("studio.example",))
    assert policy.allows_host(host) is allowed


def test_beyond_loopback_the_machines_own_names_are_known() -> None:
    """A daemon without a token on the network can be reached by its name, not by any name."""
    policy = AccessPolicy(
        host="0.0.0.0", mode="none", own_names=frozenset({"spark", "spark.local"})
    )
    assert policy.allows_host("spark.local:8081")
    assert not policy.allows_host("evil.example")


def test_where_a_token_is_needed_any_name_will_do() -> None:
    """A rebound page has no token; a proxy may have any name."""
    assert GUARDED.allows_host("avatar.example")


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "127.0.0.1:8081", True),  # no browser
        ("http://127.0.0.1:8081", "127.0.0.1:8081", True),
        ("http://LOCALHOST:8081", "localhost:8081", True),
        ("http://localhost", "localhost:80", True),
        ("https://avatar.example", "avatar.example", True),  # behind a proxy with TLS
        ("https://studio.example", "127.0.0.1:8081", True),  # allowed by the settings
        ("https://STUDIO.example/", "127.0.0.1:8081", True),
        ("http://studio.example", "127.0.0.1:8081", False),
        ("http://127.0.0.1:9999", "127.0.0.1:8081", False),
        ("http://localhost:8081", "127.0.0.1:8081", False),
        ("https://evil.example", "127.0.0.1:8081", False),
        ("https://studio.example.evil.example", "127.0.0.1:8081", False),
        ("null", "127.0.0.1:8081", False),
        ("", "127.0.0.1:8081", False),
        ("file://", "127.0.0.1:8081", False),
        ("chrome-extension://abc", "127.0.0.1:8081", False),
        ("http://[::1", "127.0.0.1:8081", False),
        ("http://127.0.0.1:8081", None, False),
    ],
)
def test_browsers_come_from_our_own_page_or_an_allowed_one(
    origin: str | None, host: str | None, allowed: bool
) -> None:
    """Scheme, name and port of an origin all count."""
    policy = AccessPolicy(origins=("https://studio.example",))
    assert policy.allows_origin(origin, host) is allowed


def test_all_origins_may_be_allowed() -> None:
    """A star in the settings, for those who mean it."""
    assert AccessPolicy(origins=("*",)).allows_origin("https://any.example", "localhost")


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """Tokens come back with time, never more than the burst."""
    bucket = TokenBucket(10.0, 5.0, now_s=100.0)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert [bucket.take(100.15), bucket.take(100.15)] == [True, False]
    assert [bucket.take(200.0) for _ in range(6)] == [True] * 5 + [False]


# --- tokens over the wire -------------------------------------------------------------------


@pytest.mark.parametrize("path", PROTECTED_PATHS)
async def test_a_request_without_the_token_is_answered_401(path: str) -> None:
    """With the challenge of RFC 6750, and the error as JSON."""
    async with served(access=GUARDED) as running:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            response = await running.http.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert response.json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (f"?token={TOKEN}", {}),
        ("", {"Authorization": f"Bearer {TOKEN}"}),
        ("", {"Authorization": f"bearer {TOKEN}"}),
        ("?token=wrong", {"Authorization": f"Bearer {TOKEN}"}),
        (f"?token=wrong&token={TOKEN}", {}),
    ],
)
async def test_the_token_may_come_in_a_header_or_in_the_address(
    query: str, headers: dict[str, str]
) -> None:
    """Any place will do."""
    async with served(access=GUARDED) as running:
        response = await running.http.get(f"/expressions{query}", headers=headers)
        assert response.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/studio/studio.js"])
async def test_what_tells_nothing_needs_no_token(path: str) -> None:
    """Load balancers ask without one, and a page must load to be given one."""
    async with served(access=GUARDED) as running:
        assert (await running.http.get(path)).status_code == 200


async def test_without_the_token_nothing_is_said_about_what_exists() -> None:
    """An unknown path looks like a protected one."""
    async with served(access=GUARDED) as running:
        assert (await running.http.get("/v1/nowhere")).status_code == 401
        assert (await running.http.post("/v1/events", content="{}")).status_code == 401
        assert not running.daemon.main.submitted


@pytest.mark.parametrize(
    ("query", "options"),
    [
        (f"?token={TOKEN}", {}),
        ("", {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}),
        ("", {"subprotocols": [f"bearer.{TOKEN}"]}),
        ("", {"subprotocols": ["other", f"bearer.{TOKEN}"]}),
    ],
)
async def test_a_producer_may_show_the_token_in_three_ways(
    query: str, options: dict[str, Any]
) -> None:
    """Header, address, or the subprotocol that browsers can set; that one is answered."""
    async with served(access=GUARDED) as running, running.connect(query, **options) as producer:
        assert (await receive(producer))["type"] == "hello"
        expected = f"bearer.{TOKEN}" if "subprotocols" in options else None
        assert producer.subprotocol == expected


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {}),
        ("?token=wrong", {}),
        ("", {"subprotocols": ["bearer.wrong"]}),
        ("", {"subprotocols": [TOKEN]}),
    ],
)
async def test_a_producer_without_the_token_is_refused_before_the_upgrade(
    query: str, options: dict[str, Any]
) -> None:
    """401 and the error as JSON."""
    async with served(access=GUARDED) as running:
        with pytest.raises(InvalidStatus) as caught:
            await running.connect(query, **options)
        response = caught.value.response
        assert response.status_code == 401
        assert response.body is not None
        assert msgspec.json.decode(response.body)["error"]["code"] == "unauthorized"


async def test_tokens_that_nobody_asked_for_do_no_harm() -> None:
    """A client with a token works with a daemon that has none; its subprotocol is answered."""
    async with served() as running:
        assert (await running.http.get("/expressions?token=x")).status_code == 200
        async with running.connect(subprotocols=["bearer.x"]) as producer:
            await receive(producer)
            assert producer.subprotocol == "bearer.x"


async def test_tokens_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither ours nor the web server's, whatever happens to the request."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines:
        for access in (GUARDED, AccessPolicy()):
            async with served(access=access) as running:
                for path in ("/expressions", "/nowhere", "/v1/events"):
                    await running.http.get(f"{path}?token={TOKEN}")
                async with running.connect(subprotocols=[f"bearer.{TOKEN}"]) as producer:
                    await receive(producer)
                    await ask(producer, "nonsense")
                with pytest.raises(InvalidStatus):
                    await running.connect(f"?stage=nowhere&token={TOKEN}")
    assert TOKEN not in repr(lines)
    ours = [
        record for record in caplog.records if not record.name.startswith(("websockets", "http"))
    ]
    assert TOKEN not in repr([record.getMessage() for record in ours])


# --- origins and hosts over the wire --------------------------------------------------------


async def test_a_page_from_elsewhere_is_refused() -> None:
    """403 for requests and handshakes alike; nothing reaches the stage."""
    headers = {"Origin": "https://evil.example"}
    async with served() as running:
        for path in ("/expressions", "/health", "/"):
            response = await running.http.get(path, headers=headers)
            assert response.status_code == 403
            assert response.json()["error"]["code"] == "unauthorized"
            assert "access-control-allow-origin" not in response.headers
        event = '{"type":"emotion","emotion":"happy"}'
        response = await running.http.post("/v1/events", content=event, headers=headers)
        assert response.status_code == 403
        with pytest.raises(InvalidStatus) as caught:
            await running.connect(origin="https://evil.example")
        assert caught.value.response.status_code == 403
        assert not running.daemon.main.submitted


async def test_our_own_page_may_connect() -> None:
    """The origin that the browser names for a page of ours is that of the request's host."""
    async with served() as running:
        own = f"http://{running.address}"
        response = await running.http.get("/expressions", headers={"Origin": own})
        assert response.status_code == 200
        async with running.connect(origin=own) as producer:
            await receive(producer)


async def test_the_right_token_does_not_make_up_for_the_wrong_origin() -> None:
    """Both are asked."""
    async with served(access=GUARDED) as running:
        headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {TOKEN}"}
        assert (await running.http.get("/expressions", headers=headers)).status_code == 403


async def test_a_page_from_an_allowed_origin_may_read_the_answers() -> None:
    """It gets the header that browsers want, errors included, and its preflights are answered."""
    studio = "https://studio.example"
    access = AccessPolicy(token=TOKEN, origins=(studio,))
    async with served(access=access) as running:
        headers = {"Origin": studio, "Authorization": f"Bearer {TOKEN}"}
        response = await running.http.get("/expressions", headers=headers)
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == studio
        assert "Origin" in response.headers["Vary"]
        unauthorised = await running.http.get("/expressions", headers={"Origin": studio})
        assert unauthorised.status_code == 401
        assert unauthorised.headers["Access-Control-Allow-Origin"] == studio
        preflight = await running.http.options(
            "/v1/events",
            headers={
                "Origin": studio,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        async with running.connect(f"?token={TOKEN}", origin=studio) as producer:
            await receive(producer)


async def test_a_preflight_from_elsewhere_is_refused() -> None:
    """And so the request behind it is never sent."""
    async with served() as running:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        response = await running.http.options("/v1/events", headers=headers)
        assert response.status_code == 403


async def test_a_foreign_host_is_refused() -> None:
    """A rebound name does not get to the daemon, even where origin and host agree."""
    async with served() as running:
        headers = {"Host": "evil.example", "Origin": "http://evil.example"}
        response = await running.http.get("/v1/state", headers=headers)
        assert response.status_code == 403
        assert "auth.allowed_hosts" in response.json()["error"]["message"]
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://evil.example:{running.port}/v1/events", host="127.0.0.1")
        assert caught.value.response.status_code == 403


async def test_a_request_without_a_host_is_served() -> None:
    """HTTP/1.0 clients are no browsers."""
    async with served() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.0 200 OK")
