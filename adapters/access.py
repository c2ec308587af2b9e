"""Who may connect, and how much of everything they may use: protocol section 5.

Three questions are asked of every request, in this order:

- `Host`: on a daemon that asks for no token, a name that is not known to be this machine's is
  refused. A page that has its own name resolve to our address (DNS rebinding) would otherwise
  pass for our own page. Addresses cannot be rebound, so they pass; and where a token is
  needed, no such page has it.
- `Origin`: browsers say which page sent a request. It must be ours or one of the allowed. Of
  what a page merely shows, such as a picture, they say `Sec-Fetch-Site` instead, and `Referer`.
- Token: on everything except `/health`, `/ready` and the studio page with its files, which
  tell nothing that a port scan does not, and which load balancers and browsers fetch without
  one. `/metrics` wants the token; Prometheus sends it with `authorization`.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pipeline.errors import ConfigError

SUBPROTOCOL_PREFIX: Final = "bearer."

_CHALLENGE: Final = {hdrs.WWW_AUTHENTICATE: 'Bearer realm="avatar-orchestrator"'}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PREFLIGHT_LASTS_S: Final = 600
# Fetch metadata (W3C): who asks, where the page is on another origin, and for what.
_FETCH_SITE: Final = "Sec-Fetch-Site"
_FETCH_DEST: Final = "Sec-Fetch-Dest"
_FROM_ELSEWHERE: Final = {"cross-site", "same-site"}
_LINK: Final = "document"
_NO_ORIGIN: Final = "null"

_HandlerT = TypeVar("_HandlerT", bound=Callable[..., Awaitable[web.StreamResponse]])


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How much one client, and all of them together, may use.

    Attributes:
        message_bytes: of one message of a producer, over WebSocket or by POST.
        messages_per_s: of one producer; as many may come at once.
        producers: connections to `/v1/events` at the same time.
        upload_bytes: of the body of any other request.
        unsent_bytes: answers that wait here for one producer to read them; beyond, it is
            dropped. The kernel holds some megabytes more.
        heartbeat_s: silence after which a producer's connection is probed; half as long
            without an answer, and it is gone.
        goodbye_s: time for a client to answer a close before its connection is cut.
        request_s: time for the body of a request to arrive.
        upload_s: the same for one with a picture.
        upload_first_s: from when on that must have come at a least rate.
    """

    message_bytes: int = 65_536
    messages_per_s: float = 200.0
    producers: int = 64
    upload_bytes: int = 16 * 2**20
    unsent_bytes: int = 262_144
    heartbeat_s: float = 20.0
    goodbye_s: float = 5.0
    request_s: float = 15.0
    upload_s: float = 30.0
    upload_first_s: float = 5.0


class TokenBucket:
    """A rate with a burst: `burst` at once, and `rate_per_s` more each second.

    Args:
        now_s: monotonic seconds.
    """

    __slots__ = ("_burst", "_rate_per_s", "_seen_s", "_tokens")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = self._tokens = max(burst, 1.0)
        self._seen_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one token if there is one."""
        refill = (now_s - self._seen_s) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + refill)
        self._seen_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def _names_of_this_machine() -> frozenset[str]:
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0], f"{name.partition('.')[0]}.local"})


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Who may connect.

    Attributes:
        host: the address that the daemon listens on; empty is all of them.
        token: what clients must show; None or empty asks for none.
        mode: `token`, or `none` to ask for no token on any address.
        origins: further browser origins (`https://studio.example`); the page's own always may.
        hosts: further names for the `Host` header.
        own_names: this machine's names, allowed in `Host` where it listens beyond loopback.

    Raises:
        ConfigError: `auth.token` is missing where it is needed.
    """

    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    mode: Literal["token", "none"] = "token"
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    own_names: frozenset[str] = field(default_factory=_names_of_this_machine)

    def __post_init__(self) -> None:
        if self.mode == "token" and not self.token and not is_loopback(self.host):
            raise ConfigError(
                "auth.token",
                f"listening on {self.host or 'every address'} needs a token; set auth.token, "
                'or write auth.mode = "none" to let anybody in',
            )

    @property
    def needs_token(self) -> bool:
        """Clients must show a token, on loopback too if one is set."""
        return self.mode == "token" and bool(self.token)

    def knows_token(self, candidates: list[str]) -> bool:
        """One of them is the token. Takes as long for a wrong one as for the right one."""
        right = (self.token or "").encode()
        found = [
            hmac.compare_digest(right, candidate.encode("utf-8", "surrogateescape"))
            for candidate in candidates
        ]
        return any(found)

    def allows_host(self, header: str | None) -> bool:
        """A `Host` header with this value may come from a page of ours, or from no page."""
        if header is None or self.needs_token:
            return True
        name = _hostname(header)
        if name is None:
            return False
        known = {self.host.lower(), *(_hostname(host) for host in self.hosts)}
        if not is_loopback(self.host):
            known |= self.own_names
        return name in known or is_loopback(name) or _is_address(name)

    def allows_origin(self, origin: str | None, host: str | None) -> bool:
        """A browser's page from `origin` may send requests to `host`; None is no browser."""
        if origin is None or "*" in self.origins or _as_origin(origin) in self._further_origins():
            return True
        page = _endpoint(origin)
        return page is not None and host is not None and page == _endpoint(f"{page[0]}://{host}")

    def _further_origins(self) -> set[str]:
        return {_as_origin(origin) for origin in self.origins}


def is_loopback(host: str) -> bool:
    """A host name or address that only this machine itself can reach."""
    name = host.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _hostname(header: str) -> str | None:
    """The name or address in a `Host` header, without port and brackets; None if it is none."""
    endpoint = None if set(header) & set("@/?#\\") else _endpoint(f"http://{header}")
    return None if endpoint is None else endpoint[1].rstrip(".")


def _endpoint(url: str) -> tuple[str, str, int] | None:
    """Scheme, host name and port of an http or https URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def _as_origin(text: str) -> str:
    return text.lower().rstrip("/")


# --- on aiohttp ---------------------------------------------------------------------------


def open_to_all(handler: _HandlerT) -> _HandlerT:
    """Mark a request handler that needs no token."""
    vars(handler)["open_to_all"] = True
    return handler


def access_check(policy: AccessPolicy) -> Middleware:
    """A middleware that lets a request through to its handler, or answers 403 or 401."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin, host = request.headers.get(hdrs.ORIGIN), request.headers.get(hdrs.HOST)
        if origin is None and not policy.needs_token:  # who has the token may show us anywhere
            origin = _embedding_page(request)
        if not policy.allows_host(host):
            raise web.HTTPForbidden(text=_refused("Host", host, "auth.allowed_hosts"))
        if not policy.allows_origin(origin, host):
            raise web.HTTPForbidden(text=_refused("Origin", origin, "auth.allowed_origins"))
        if _is_preflight(request):
            return _preflight_answer(request)
        if policy.needs_token and not _is_open(request):
            candidates = shown_tokens(request)
            if not policy.knows_token(candidates):
                raise web.HTTPUnauthorized(text=_wrong_token(candidates), headers=_CHALLENGE)
        return await handler(request)

    return check


def cross_origin_headers(
    policy: AccessPolicy,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A signal handler that lets pages from allowed origins read the answers."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin and policy.allows_origin(origin, request.headers.get(hdrs.HOST)):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin

    return add


def shown_tokens(request: web.Request) -> list[str]:
    """The tokens that a request carries, in all the places where it may."""
    tokens = [name.removeprefix(SUBPROTOCOL_PREFIX) for name in bearer_subprotocols(request)]
    scheme, _, credentials = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer":
        tokens.append(credentials.strip())
    return tokens + request.query.getall("token", [])


def bearer_subprotocols(request: web.Request) -> tuple[str, ...]:
    """The `bearer.` subprotocols that a WebSocket client offers: one must be answered.

    Pass them as `protocols` to `WebSocketResponse`: browsers drop a connection whose server
    answers none of those offered, and aiohttp logs what is offered in vain, token and all.
    """
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])).split(",")
    names = (name.strip() for name in offered)
    return tuple(name for name in names if name.startswith(SUBPROTOCOL_PREFIX))


def _embedding_page(request: web.Request) -> str | None:
    """The origin of another page that has us in it, as a picture for example.

    Returns:
        `null` where its browser does not say which; None where there is no such page, or
        somebody has followed a link.
    """
    headers = request.headers
    if headers.get(_FETCH_SITE) not in _FROM_ELSEWHERE or headers.get(_FETCH_DEST) == _LINK:
        return None
    try:
        page = urlsplit(headers.get(hdrs.REFERER, ""))
    except ValueError:
        return _NO_ORIGIN
    return f"{page.scheme}://{page.netloc}" if page.netloc else _NO_ORIGIN


def _is_open(request: web.Request) -> bool:
    return getattr(request.match_info.handler, "open_to_all", False)


def _is_preflight(request: web.Request) -> bool:
    asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    return request.method == hdrs.METH_OPTIONS and asked and hdrs.ORIGIN in request.headers


def _preflight_answer(request: web.Request) -> web.Response:
    """What the Fetch standard asks before requests that a plain form could not send.

    The token is no concern here: a preflight never carries one.
    """
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, HEAD, POST, DELETE",
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type",
            hdrs.ACCESS_CONTROL_MAX_AGE: str(_PREFLIGHT_LASTS_S),
        },
    )


def _refused(header: str, value: str | None, setting: str) -> str:
    shown = ascii((value or "")[:100])
    return f"{header} {shown} is not allowed; add it to the setting {setting} if it should be"


def _wrong_token(candidates: list[str]) -> str:
    if candidates:
        return "the token is wrong"
    places = "Authorization: Bearer, ?token= or the WebSocket subprotocol bearer.<token>"
    return f"a token is needed: {places}"
