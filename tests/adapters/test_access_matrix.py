"""Protocol section 5, for every route that the running daemon has: token, origin, host."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.access import AccessPolicy
from tests.fakes.daemon import DaemonProcess

TOKEN = "matrix-T0ken_that-must-not-be-seen"
WRONG = "matrix-T0ken_that-must-not-be-seem"
SMALL = {
    "AVATAR_STAGE__WIDTH": "128",
    "AVATAR_STAGE__HEIGHT": "128",
    "AVATAR_STAGE__FPS": "5",
    "AVATAR_IDLE__ENABLED": "false",
}
# What tells nothing that a port scan does not, and what a browser loads before it has a token.
OPEN = {
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/"),
    ("GET", "/client.js"),
    ("GET", "/studio/{name}"),
}
IN_THE_PATH = {"/studio/{name}": "studio.js"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
WEBSOCKETS = {"/v1/events", "/v1/frames"}
EVIL = "https://evil.example"

Route = tuple[str, str]
Answered = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that wants a token."""
    state = tmp_path_factory.mktemp("guarded")
    with DaemonProcess(state, AVATAR_AUTH__TOKEN=TOKEN, **SMALL) as process:
        yield process


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon on loopback that wants none."""
    with DaemonProcess(tmp_path_factory.mktemp("trusting"), **SMALL) as process:
        yield process


@pytest.fixture(scope="module")
def routes(guarded: DaemonProcess) -> list[Route]:
    """Every route, as the daemon describes itself; that none is left out is tested elsewhere."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    document = httpx.get(f"{guarded.http}/openapi.json", headers=headers).json()
    found = [
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    ]
    assert {path for _, path in found} >= WEBSOCKETS | {"/metrics", "/api/render", "/v1/stages"}
    return found


def ask(
    daemon: DaemonProcess, route: Route, headers: Mapping[str, str] | None = None, query: str = ""
) -> Answered:
    """Status, headers and the beginning of the body; handshakes are made where one is wanted."""
    method, path = route
    headers = dict(headers or {})
    if method == "GET" and path in WEBSOCKETS:
        headers = UPGRADE | headers
    path = path.replace("{name}", IN_THE_PATH.get(path, "nobody"))
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
    try:
        connection.request(method, path + query, headers=headers)
        response = connection.getresponse()
        endless = response.status == 101 or path == "/v1/stream.mjpg"
        body = b"" if endless and response.status < 400 else response.read()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, body
    finally:
        connection.close()


def request_text(line: str, headers: Mapping[str, str]) -> bytes:
    """A request's head, as it goes over the wire."""
    lines = [f"{line} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def raw(daemon: DaemonProcess, sent: bytes) -> bytes:
    """What these bytes are answered with, until the daemon hangs up."""
    heard = b""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=10.0) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65_536):
                heard += data
    return heard


def changes(daemon: DaemonProcess) -> Any:
    """What requests could have changed."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=daemon.http, headers=headers) as client:
        state = client.get("/v1/state").json()
        kept = {key: state[key] for key in ("character", "state", "cues", "queue", "weights")}
        return kept, client.get("/v1/characters").json(), client.get("/v1/stages").json()["limit"]


def ways_to_show(token: str, route: Route) -> list[tuple[str, dict[str, str]]]:
    """Header, address, and for WebSockets the subprotocol: as (query, headers)."""
    ways = [("", {"Authorization": f"Bearer {token}"}), (f"?token={token}", {})]
    if route[0] == "GET" and route[1] in WEBSOCKETS:
        ways.append(("", {"Sec-WebSocket-Protocol": f"bearer.{token}"}))
    return ways


def test_every_route_but_the_open_ones_wants_the_token(
    guarded: DaemonProcess, routes: list[Route]
) -> None:
    """401 without it and with a wrong one in every place; never more than the error is said."""
    before = changes(guarded)
    for route in routes:
        for query, headers in [("", {}), *ways_to_show(WRONG, route)]:
            status, answered, body = ask(guarded, route, headers, query)
            if route in OPEN:
                assert status == 200, route
                continue
            assert status == 401, (route, query, headers, body)
            assert answered["www-authenticate"].startswith("Bearer"), route
            assert json.loads(body)["error"]["code"] == "unauthorized", route
            assert WRONG.encode() not in body
    assert changes(guarded) == before


def test_every_route_takes_the_token_in_every_way(
    guarded: DaemonProcess, routes: list[Route]
) -> None:
    """And then says what it has to say: 101 for WebSockets, an error where a body is missing."""
    for route in routes:
        for query, headers in ways_to_show(TOKEN, route):
            status, answered, body = ask(guarded, route, headers, query)
            assert status not in {401, 403, 500}, (route, query, headers, body)
            if route[0] == "GET" and route[1] in WEBSOCKETS:
                assert status == 101, (route, body)
            assert TOKEN.encode() not in body
            told = {name for name, value in answered.items() if TOKEN in value}
            assert told <= {"sec-websocket-protocol"}  # as RFC 6455 wants it


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_no_other_method_is_a_way_around(
    guarded: DaemonProcess, routes: list[Route], method: str
) -> None:
    """Without the token, none gets further than 401 where the route wants one."""
    opened = {path for _, path in OPEN}
    for path in {path for _, path in routes} - opened | {"/v1/nowhere", "/.git/config"}:
        assert ask(guarded, (method, path))[0] == 401, (method, path)


def test_no_route_answers_a_page_from_elsewhere(
    guarded: DaemonProcess, trusting: DaemonProcess, routes: list[Route]
) -> None:
    """Cross-site requests and WebSocket hijacking: 403, open routes and right token included."""
    before = changes(trusting)
    shown = {"Authorization": f"Bearer {TOKEN}"}
    for route in routes:
        for origin in (EVIL, "null", f"http://127.0.0.1.evil.example:{trusting.port}"):
            for daemon, further in ((trusting, {}), (guarded, shown)):
                status, headers, body = ask(daemon, route, {"Origin": origin} | further)
                assert status == 403, (route, origin)
                assert json.loads(body)["error"]["code"] == "unauthorized"
                assert "access-control-allow-origin" not in headers
    assert changes(trusting) == before


def embedded(site: str, kind: str, page: str | None = None) -> dict[str, str]:
    """What browsers say of a picture, script or frame in a page elsewhere: no Origin."""
    mode = "navigate" if kind in {"document", "iframe"} else "no-cors"
    referer = {} if page is None else {"Referer": f"{page}/"}
    fetch = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": kind}
    return fetch | referer


def test_no_page_from_elsewhere_shows_the_face(
    guarded: DaemonProcess, trusting: DaemonProcess, routes: list[Route]
) -> None:
    """Pictures, scripts and frames are fetched without `Origin`: 403, unless the token is shown."""
    for route in routes:
        for headers in (
            embedded("cross-site", "image", EVIL),
            embedded("same-site", "script", "http://127.0.0.1:1"),
            embedded("cross-site", "iframe"),
        ):
            assert ask(trusting, route, headers)[0] == 403, (route, headers)
            shown = headers | {"Authorization": f"Bearer {TOKEN}"}
            assert ask(guarded, route, shown)[0] != 403, (route, headers)


def test_a_page_of_ours_a_link_and_an_allowed_page_do(
    trusting: DaemonProcess, tmp_path: Path
) -> None:
    """The studio's own pictures, whoever follows a link or types an address, a named origin."""
    picture = ("GET", "/v1/snapshot.jpg")
    for site, kind in (("same-origin", "image"), ("none", "document"), ("cross-site", "document")):
        assert ask(trusting, picture, embedded(site, kind))[0] == 200, (site, kind)
    named = {"AVATAR_AUTH__ALLOWED_ORIGINS": f'["{EVIL}"]'}
    with DaemonProcess(tmp_path, **SMALL, **named) as daemon:
        assert ask(daemon, picture, embedded("cross-site", "image", EVIL))[0] == 200
        assert ask(daemon, picture, embedded("cross-site", "image", f"{EVIL}.org"))[0] == 403
        assert ask(daemon, picture, embedded("cross-site", "image"))[0] == 403
        assert ask(daemon, picture, embedded("cross-site", "image", "http://["))[0] == 403


def test_no_route_answers_a_name_that_is_not_ours(
    trusting: DaemonProcess, routes: list[Route]
) -> None:
    """DNS rebinding: the page's name leads to us, and `Origin` and `Host` agree."""
    before = changes(trusting)
    for route in routes:
        for host in ("evil.example", f"evil.example:{trusting.port}", "127.0.0.1.evil.example"):
            own = {"Host": host, "Origin": f"http://{host}"}
            for headers in ({"Host": host}, own):
                status, _, body = ask(trusting, route, headers)
                assert status == 403, (route, headers)
                assert json.loads(body)["error"]["code"] == "unauthorized"
    assert changes(trusting) == before


def test_the_token_is_nowhere_to_be_seen(guarded: DaemonProcess, routes: list[Route]) -> None:
    """Not in a log line, a metric, a description, an error or on standard output."""
    oddities = [("GET", "/v1/nowhere"), ("POST", "/v1/events"), ("GET", "/v1/frames")]
    said: list[bytes] = []
    for route in [*routes, *oddities]:
        for query in (f"?token={TOKEN}&stage=nowhere", f"?token={TOKEN}&format=x&max_fps=x"):
            _, _, body = ask(guarded, route, {"Authorization": f"Bearer {TOKEN}"}, query)
            said.append(body)
    shown = {"Authorization": f"Bearer {TOKEN}"}
    for path in sorted(WEBSOCKETS):  # misspelt, while the right one is elsewhere
        for offered in (f"Bearer.{TOKEN}", f"chat, bearer {TOKEN}", TOKEN):
            odd = {"Sec-WebSocket-Protocol": offered, "Authorization": f"Bearer {TOKEN}"}
            assert ask(guarded, ("GET", path), odd)[0] == 101
    form = {"Content-Type": f"multipart/form-data; boundary={TOKEN}", "Content-Length": "3"}
    form["Connection"] = "close"
    said.append(raw(guarded, request_text(f"POST /api/render?token={TOKEN}", form) + b"abc"))
    told = ("/metrics", "/openapi.json", "/asyncapi.json", "/v1/state", "/health")
    said.extend(ask(guarded, ("GET", path), shown)[2] for path in told)
    assert TOKEN.encode() not in b"".join(said)
    assert TOKEN not in json.dumps(guarded.log)


@pytest.mark.parametrize(
    "sent",
    [
        f"GET /v1/state?token={TOKEN}\x00 HTTP/1.1\r\n\r\n",
        f"GET /v1/state?token={TOKEN} HTTP/9.9\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer {TOKEN}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}{'a' * 9000}\r\n\r\n",
    ],
)
def test_what_cannot_be_read_is_not_said_again(guarded: DaemonProcess, sent: str) -> None:
    """The error has the form of all others; the client's bytes, and ours, stay out of it."""
    head, _, body = raw(guarded, sent.encode()).partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert b"Server: avatar-orchestrator\r\n" in head + b"\r\n"
    assert json.loads(body)["error"]["code"] == "invalid_message"
    assert TOKEN[:10].encode() not in head + body
    assert TOKEN not in json.dumps(guarded.log)


@pytest.mark.parametrize("command", ["check", "run"])
def test_no_command_shows_the_tokens(command: str, tmp_path: Path) -> None:
    """Neither the report nor a boot that fails; all the secrets there are."""
    secrets = {
        "AVATAR_AUTH__TOKEN": TOKEN,
        "AVATAR_MEDIA_BRIDGE__TOKEN": TOKEN + "-bridge",
        "AVATAR_EVENTS__TOKENS": f'["{TOKEN}-events"]',
        "AVATAR_EVENTS__CONNECT": f'["ws://a:{TOKEN}@127.0.0.1:9/?token={TOKEN}"]',
        "AVATAR_MEDIA_BRIDGE__URL": f"ws://{TOKEN}@127.0.0.1:9/in?token={TOKEN}",
        "AVATAR_STATE__DIR": str(tmp_path),
        "AVATAR_STAGE__CHARACTER": "nobody",  # so that `run` ends
        "AVATAR_SERVER__PORT": "0",
        "AVATAR_LOG__LEVEL": "debug",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator", command],
        env=os.environ | secrets, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 78
    assert "nobody" in ended.stdout + ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the function that is made for it, the right one being no reason to stop."""
    compared: list[bytes] = []

    def compare(right: bytes, shown: bytes) -> bool:
        compared.append(shown)
        return right == shown

    monkeypatch.setattr("adapters.access.hmac.compare_digest", compare)
    assert AccessPolicy(token=TOKEN).knows_token([WRONG, TOKEN, "x", ""])
    assert compared == [WRONG.encode(), TOKEN.encode(), b"x", b""]


def test_beyond_loopback_nothing_starts_without_a_token(tmp_path: Path) -> None:
    """Exit status 78, and the setting by name."""
    settings = {"AVATAR_SERVER__HOST": "0.0.0.0", "AVATAR_STATE__DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run"],
        env=os.environ | settings | {"AVATAR_SERVER__PORT": "0"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 78
    assert "auth.token" in ended.stderr
