"""Fetching by URL: from a real server, and from nowhere that is not allowed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.portrait_fetch import MAX_REDIRECTS, PortraitFetcher, Reach, is_public
from pipeline.errors import ErrorCode, InvalidEventError

PICTURE = b"\xff\xd8\xff some picture"


class Origin:
    """A web server on the loopback, and a resolver that knows where names lead."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.hosts: list[str | None] = []
        self.names: dict[str, list[list[str]]] = {}
        self.resolved: list[str] = []
        self.over = asyncio.Event()

    def url(self, path: str = "/face.jpg", host: str = "face.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Each time the next answer for that name; the last one for ever."""
        self.resolved.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise OSError("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.hosts.append(request.headers.get("Host"))
        match request.path:
            case "/face.jpg":
                return web.Response(body=PICTURE, content_type="text/html")
            case "/large":
                return web.Response(body=bytes(2000))
            case "/endless":
                return await self._endless(request)
            case "/slow":
                await self.over.wait()
            case "/gzip":
                return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
            case "/away":
                raise web.HTTPFound(request.query["to"])
            case "/odd":
                return web.Response(status=302, headers={"Location": "http://[oops/x"})
            case "/around":
                raise web.HTTPFound("/around")
            case "/nowhere":
                return web.Response(status=302)
        return web.Response(status=404)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(500))
        except ConnectionError:
            return response


Fetch = Callable[[str], Awaitable[bytes]]


@asynccontextmanager
async def origin(tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    made = Origin()
    application = web.Application()
    application.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    made.port = runner.addresses[0][1]
    made.names["face.example"] = [["127.0.0.1"]]
    try:
        yield made
    finally:
        made.over.set()
        await runner.cleanup()
        await asyncio.sleep(0.05)  # what was cut off in the middle ends


@asynccontextmanager
async def fetcher(
    source: Origin, reach: Reach = Reach.ANY, total_s: float = 5.0
) -> AsyncIterator[PortraitFetcher]:
    made = PortraitFetcher(reach, max_bytes=1000, total_s=total_s, resolve=source.resolve)
    try:
        yield made
    finally:
        await made.close()


async def refusal(made: PortraitFetcher, url: str) -> InvalidEventError:
    with pytest.raises(InvalidEventError) as refused:
        await made.fetch(url)
    assert refused.value.field == "url"
    return refused.value


# --- fetching -----------------------------------------------------------------------------


async def test_what_is_there_is_fetched() -> None:
    """Whatever it says it is; the server hears the name that was asked for."""
    async with origin() as source, fetcher(source) as made:
        assert await made.fetch(source.url()) == PICTURE
        assert source.hosts == [f"face.example:{source.port}"]


async def test_a_certificate_is_of_the_name_though_the_address_is_connected_to(
    certificate: tuple[Path, Path],
) -> None:
    """A server with another name's certificate is none to fetch from."""
    key, signed = certificate
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(signed, key)
    async with origin(serving) as source:
        source.names["other.example"] = [["127.0.0.1"]]
        trusting = ssl.create_default_context(cafile=str(signed))
        made = PortraitFetcher(
            Reach.ANY, max_bytes=1000, total_s=5.0, resolve=source.resolve, tls=trusting
        )
        try:
            there = source.url().replace("http:", "https:")
            assert await made.fetch(there) == PICTURE
            error = await refusal(made, there.replace("face.", "other."))
            assert error.code is ErrorCode.FETCH_FAILED
            assert "certificate" in error.message
            assert source.asked == ["/face.jpg"]
        finally:
            await made.close()


async def test_the_proxies_of_the_environment_are_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would resolve names themselves."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with origin() as source, fetcher(source) as made:
        assert await made.fetch(source.url()) == PICTURE


async def test_a_few_redirects_are_followed() -> None:
    """Relative ones too, up to a number."""
    async with origin() as source, fetcher(source) as made:
        assert await made.fetch(source.url("/away?to=/face.jpg")) == PICTURE
        source.asked.clear()
        error = await refusal(made, source.url("/around"))
        assert error.code is ErrorCode.FETCH_FAILED
        assert source.asked == ["/around"] * (MAX_REDIRECTS + 1)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/large", ErrorCode.TOO_LARGE),
        ("/endless", ErrorCode.TOO_LARGE),
        ("/gzip", ErrorCode.FETCH_FAILED),
        ("/missing", ErrorCode.FETCH_FAILED),
        ("/nowhere", ErrorCode.FETCH_FAILED),
        ("/odd", ErrorCode.FETCH_FAILED),
    ],
)
async def test_what_cannot_be_taken_is_refused(path: str, code: ErrorCode) -> None:
    """Too large, packed, or not there."""
    async with origin() as source, fetcher(source) as made:
        assert (await refusal(made, source.url(path))).code is code


async def test_all_of_it_has_so_much_time() -> None:
    """A server that keeps us waiting does not keep us for ever."""
    async with origin() as source, fetcher(source, total_s=0.1) as made:
        error = await refusal(made, source.url("/slow"))
        assert error.code is ErrorCode.FETCH_FAILED
        assert "longer" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "face.jpg",
        "file:///etc/passwd",
        "ftp://face.example/x",
        "gopher://face.example/x",
        "http://",
        "http://user:word@face.example/",
        "http://face.example/" + "x" * 3000,
        "http://[::1",
        "javascript:alert(1)",
    ],
)
async def test_other_addresses_are_no_addresses(url: str) -> None:
    """http and https, without names and passwords."""
    async with origin() as source, fetcher(source) as made:
        assert (await refusal(made, url)).code is ErrorCode.INVALID_MESSAGE
        assert source.asked == []


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(max_size=40).map("http://{}/".format),
        st.from_regex(r"https?://[a-z0-9.:@%\[\]-]{1,30}(/[a-z?#%]{0,9})?", fullmatch=True),
        st.sampled_from(["http://xn--/", "http://xn--a.xn--/", "http://a..b/", "http://[v1.x]/"]),
    )
)
def test_any_text_is_refused_or_fetched_and_nothing_else(url: str) -> None:
    """No address is so odd that it fails in another way."""

    async def nowhere(host: str, port: int) -> Sequence[str]:
        host.encode("idna")
        raise OSError("no such name")

    async def fetch() -> None:
        made = PortraitFetcher(Reach.PUBLIC, max_bytes=10, total_s=5.0, resolve=nowhere)
        with pytest.raises(InvalidEventError):
            await made.fetch(url)

    asyncio.run(fetch())


# --- from nowhere that is not allowed -----------------------------------------------------


async def test_fetching_can_be_off() -> None:
    """The error names the setting."""
    async with origin() as source, fetcher(source, Reach.OFF) as made:
        assert "characters.fetch" in (await refusal(made, source.url())).message
        assert source.resolved == []


async def test_our_own_machine_is_refused_unless_it_is_allowed() -> None:
    """By name or address; nothing is sent there."""
    async with origin() as source, fetcher(source, Reach.PUBLIC) as made:
        source.names |= {"127.0.0.1": [["127.0.0.1"]], "::1": [["::1"]]}
        for host in ("face.example", "127.0.0.1", "[::1]"):
            error = await refusal(made, source.url(host=host))
            assert "no public address" in error.message
        assert source.asked == []


async def test_one_private_address_among_public_ones_is_enough() -> None:
    """Nobody can know which of them would be taken."""
    async with origin() as source, fetcher(source, Reach.PUBLIC) as made:
        source.names["face.example"] = [["93.184.216.34", "10.0.0.1"]]
        assert "10.0.0.1" in (await refusal(made, source.url())).message


async def test_a_redirect_is_checked_like_the_first_address() -> None:
    """From a public server to a private one: refused before anything is sent there."""
    async with origin() as source, fetcher(source, Reach.PUBLIC) as made:
        source.names["inside.example"] = [["192.168.1.1"]]
        target = source.url(host="inside.example")
        checked: list[str] = []

        async def lenient(host: str, port: int) -> Sequence[str]:
            addresses = await source.resolve(host, port)
            checked.append(host)
            return addresses

        made._resolve = lenient
        with pytest.MonkeyPatch.context() as patched:
            # The loopback plays the internet here.
            patched.setattr("adapters.portrait_fetch.is_public", lambda each: each == "127.0.0.1")
            error = await refusal(made, source.url(f"/away?to={target}"))
        assert "192.168.1.1" in error.message
        assert checked == ["face.example", "inside.example"]
        assert source.asked == ["/away"]


async def test_a_name_is_resolved_once_and_the_checked_address_is_used() -> None:
    """What the name says a moment later does not matter (DNS rebinding)."""
    async with origin() as source, fetcher(source, Reach.PUBLIC) as made:
        # First the internet, played by the loopback; then, were it asked again, somewhere else.
        source.names["face.example"] = [["127.0.0.1"], ["10.0.0.1"]]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("adapters.portrait_fetch.is_public", lambda each: each == "127.0.0.1")
            assert await made.fetch(source.url()) == PICTURE
        assert source.resolved == ["face.example"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1",
        "169.254.169.254", "100.64.0.1", "198.18.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
        "64:ff9b:1::7f00:1", "fec0::1", "3fff::1", "5f00::1", "4000::1", "192.88.99.1",
        "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "2001:0:7f00:1::1", "nonsense", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """This machine, its networks, special ranges, and IPv4 addresses wrapped in IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    """The internet."""
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "localhost.",
        "LOCALHOST", "①②⑦.⓪.⓪.①", "127。0。0。1", "127.0.0.1.", "[fe80::1%25lo]",
        "[64:ff9b::7f00:1]",
    ],
)  # fmt: skip
async def test_no_spelling_of_this_machine_is_reached(host: str) -> None:
    """With the system's own resolver, which knows many: refused, or no name; never asked."""
    async with origin() as source:
        made = PortraitFetcher(Reach.PUBLIC, max_bytes=1000, total_s=5.0)
        try:
            error = await refusal(made, source.url(host=host))
        finally:
            await made.close()
        assert error.code in {ErrorCode.INVALID_MESSAGE, ErrorCode.FETCH_FAILED}
        assert not source.asked
