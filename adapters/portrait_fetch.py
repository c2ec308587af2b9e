"""Pictures by URL: fetched with httpx, from nowhere but where it may.

A client could otherwise have the daemon fetch what only the daemon can reach: its own machine and
network, a cloud's metadata service. So a name is resolved once, every address that it has is
checked, and the connection goes to a checked address, whatever the name says a moment later (DNS
rebinding). A redirect is another fetch with all the same checks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import httpx

from pipeline.errors import ErrorCode, InvalidEventError

FIELD: Final = "url"
MAX_URL_CHARS: Final = 2048
MAX_REDIRECTS: Final = 3
_CONNECTIONS: Final = 4
_ACCEPT: Final = "image/jpeg,image/png,image/webp;q=0.9,*/*;q=0.1"
_PORTS: Final = {"http": 80, "https": 443}
# NAT64 (RFC 6052): an IPv4 address in the last four bytes, which is what is reached.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# All that is given out for the internet (RFC 4291); the old site-local, for one, is not in it.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# Not everywhere in `ipaddress`: relays of 6to4 (RFC 7526), documentation (RFC 9637).
_NOBODYS: Final = (ipaddress.ip_network("192.88.99.0/24"), ipaddress.ip_network("3fff::/20"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to the texts of its addresses; raises OSError."""


class Reach(Enum):
    """Which addresses may be fetched from."""

    OFF = "off"
    PUBLIC = "public"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class _Target:
    """One request: what was asked for, and the checked address that it goes to."""

    url: httpx.URL
    address: str

    @property
    def name(self) -> str:
        return self.url.raw_host.decode("ascii")

    @property
    def pinned(self) -> httpx.URL:
        return self.url.copy_with(host=self.address)

    @property
    def host_header(self) -> str:
        return self.url.netloc.decode("ascii")


class PortraitFetcher:
    """Fetches pictures.

    Args:
        reach: from where.
        max_bytes: of a picture.
        total_s: for all of it, redirects included.
        resolve: name to addresses; the system's resolver unless a test has another.
        tls: whom to trust; those whom everybody trusts unless a test has others.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        max_bytes: int,
        total_s: float,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._reach = reach
        self._max_bytes = max_bytes
        self._total_s = total_s
        self._resolve = resolve or _resolve
        self._client: httpx.AsyncClient | None = None

    async def fetch(self, url: str) -> bytes:
        """The body of what is at `url`; whether it is a picture is for others to find out.

        Raises:
            InvalidEventError: not a URL that may be fetched (`invalid_message`), too large, or it
                could not be fetched (`fetch_failed`).
        """
        if self._reach is Reach.OFF:
            raise _refused("url: fetching is off (characters.fetch); send the file instead")
        try:
            async with asyncio.timeout(self._total_s):
                return await self._followed(_parsed(url))
        except TimeoutError:
            raise _failed(f"it took longer than {self._total_s:g} s") from None
        except httpx.HTTPError as error:
            raise _failed(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close what is left open; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _followed(self, url: httpx.URL) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._got(await self._target(url))
            if isinstance(found, bytes):
                return found
            url = _parsed(found)
        raise _failed(f"more than {MAX_REDIRECTS} redirects")

    async def _target(self, url: httpx.URL) -> _Target:
        name = url.raw_host.decode("ascii")
        try:
            addresses = await self._resolve(name, url.port or _PORTS[url.scheme])
        except (OSError, ValueError) as error:
            raise _failed(f"{name[:80]} has no address: {error}") from error
        if not addresses:
            raise _failed(f"{name[:80]} has no address")
        if self._reach is Reach.PUBLIC:
            for each in addresses:
                if not is_public(each):
                    raise _refused(
                        f"url: {name[:80]} is at {each}, which is no public address; "
                        'characters.fetch = "any" would allow it'
                    )
        return _Target(url, addresses[0])

    async def _got(self, target: _Target) -> bytes | str:
        """The body, or where a redirect leads."""
        request = self._opened().build_request(
            "GET",
            target.pinned,
            headers={"Host": target.host_header, "Accept": _ACCEPT},
            # The certificate must be the name's, though the connection goes to an address.
            extensions={"sni_hostname": target.name},
        )
        response = await self._opened().send(request, stream=True)
        try:
            if response.has_redirect_location:
                return self._led_to(target.url, response.headers["location"])
            if response.status_code != httpx.codes.OK:
                raise _failed(f"it answered {response.status_code} {response.reason_phrase}"[:80])
            return await self._body(response)
        finally:
            await response.aclose()

    def _led_to(self, url: httpx.URL, location: str) -> str:
        try:
            return str(url.join(location[:MAX_URL_CHARS]))
        except (httpx.InvalidURL, ValueError) as error:
            raise _failed(f"it redirects to no address: {error}"[:200]) from error

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        # As it comes over the wire: unpacked, a small body could become an endless one.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _failed("it came with a content encoding, which pictures do not have")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                problem = f"url: a file of more than {self._max_bytes / 2**20:.3g} MiB"
                raise InvalidEventError(ErrorCode.TOO_LARGE, problem, field=FIELD)
        return bytes(body)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:  # loading certificates takes a while, and few need it
            self._client = httpx.AsyncClient(
                verify=True if self._tls is None else self._tls,
                timeout=self._total_s,
                trust_env=False,  # a proxy of the environment would resolve names by itself
                follow_redirects=False,
                limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=0),
                headers={"User-Agent": "avatar-orchestrator", "Accept-Encoding": "identity"},
            )
        return self._client


def is_public(address: str) -> bool:
    """It is an address of the internet, and none of this machine or its networks."""
    try:
        return all(_is_global(each) for each in _meant(ipaddress.ip_address(address)))
    except ValueError:  # with a zone: link-local
        return False


def _is_global(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    if any(address in network for network in _NOBODYS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _meant(address: Address) -> list[Address]:
    """The address, and IPv4 addresses inside it that packets may end up at."""
    inside: list[Address] = []
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address in _NAT64:
            return [ipaddress.IPv4Address(address.packed[-4:])]
        if address.sixtofour is not None:
            inside.append(address.sixtofour)
        if address.teredo is not None:
            inside.extend(address.teredo)
    return [address, *inside]


def _parsed(text: str) -> httpx.URL:
    if len(text) > MAX_URL_CHARS:
        raise _refused(f"url: at most {MAX_URL_CHARS} characters")
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise _refused(f"url: {error}"[:200]) from error
    if url.scheme not in _PORTS or not url.raw_host:
        raise _refused("url: expected an http:// or https:// address")
    if url.userinfo:
        raise _refused("url: no user name or password can be sent")
    return url


def _refused(problem: str) -> InvalidEventError:
    return InvalidEventError(ErrorCode.INVALID_MESSAGE, problem, field=FIELD)


def _failed(problem: str) -> InvalidEventError:
    message = f"url: it could not be fetched: {problem}"
    return InvalidEventError(ErrorCode.FETCH_FAILED, message, field=FIELD)


async def _resolve(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
