"""TLS from files, and connections that ask for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from adapters.access import AccessPolicy
from adapters.http_api import build_application
from adapters.listening import HttpServer, serve
from adapters.metrics import PrometheusMetrics
from adapters.tls import Certificate, pinned
from pipeline.errors import ConfigError
from tests.fakes.http_server import served
from tests.fakes.stage import FakeDaemon

Pair = tuple[Path, Path]


def made_certificate(folder: Path, name: str, *options: str) -> Pair:
    """A key and a certificate for that name."""
    key, signed = folder / f"{name}.key", folder / f"{name}.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2"
    where = ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(signed)]
    plain = [] if options else ["-nodes"]
    subprocess.run([*command.split(), *plain, *where, *options], check=True, capture_output=True)
    return key, signed


@contextlib.asynccontextmanager
async def small_server(
    tls: ssl.SSLContext | None = None,
    *,
    most: int | None = None,
    first_request_s: float = 10.0,
) -> AsyncIterator[HttpServer]:
    application = build_application(
        FakeDaemon(), metrics=PrometheusMetrics(), access=AccessPolicy()
    )
    server = await serve(
        application, "127.0.0.1", 0, tls=tls, most=most,
        first_request_s=first_request_s, shutdown_s=0.2,
    )  # fmt: skip
    try:
        yield server
    finally:
        await server.close()


async def shown_name(port: int) -> str:
    """The name in the certificate that is shown, verified or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "multiline"]
    told = await asyncio.to_thread(
        subprocess.run, command, input=shown, check=True, capture_output=True
    )
    return str(told.stdout.decode()).rpartition("=")[2].strip()


# --- certificates ---------------------------------------------------------------------------


async def test_a_producer_talks_over_wss(certificate: Pair) -> None:
    """HTTP and WebSocket, with a certificate from files, checked by its own name."""
    key, signed = certificate
    trusting = ssl.create_default_context(cafile=str(signed))
    async with served(tls=Certificate(signed, key).context) as running:
        async with connect(f"wss://{running.address}/v1/events", ssl=trusting) as producer:
            assert '"hello"' in str(await producer.recv())
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trusting)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()


async def test_its_own_page_has_the_origin_with_https(certificate: Pair) -> None:
    """A page that came over TLS may connect; one that claims another scheme's port may not."""
    key, signed = certificate
    trusting = ssl.create_default_context(cafile=str(signed))
    async with served(tls=Certificate(signed, key).context) as running:
        url = f"wss://{running.address}/v1/events"
        async with connect(url, ssl=trusting, origin=f"https://{running.address}") as producer:
            await producer.recv()


async def test_who_speaks_plainly_to_tls_gets_nothing(certificate: Pair) -> None:
    """The connection ends, and the next client is served."""
    key, signed = certificate
    async with small_server(Certificate(signed, key).context) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in await asyncio.wait_for(reader.read(), 5.0)
        writer.close()
        assert await shown_name(server.port) == "localhost"


async def test_old_versions_of_tls_are_not_spoken(certificate: Pair) -> None:
    """TLS 1.2 at least."""
    context = Certificate(certificate[1], certificate[0]).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    """Connections after `renew` see the new one."""
    key, signed = made_certificate(tmp_path, "first")
    new_key, new_signed = made_certificate(tmp_path, "second")
    certificate = Certificate(signed, key)
    async with small_server(certificate.context) as server:
        assert await shown_name(server.port) == "first"
        new_key.replace(key)
        new_signed.replace(signed)
        certificate.renew()
        assert await shown_name(server.port) == "second"


async def test_a_renewal_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """Half of a new pair, in the middle of being copied, leaves the old one on."""
    key, signed = made_certificate(tmp_path, "first")
    _, other = made_certificate(tmp_path, "second")
    certificate = Certificate(signed, key)
    async with small_server(certificate.context) as server:
        other.replace(signed)
        with pytest.raises(ConfigError) as refused:
            certificate.renew()
        assert refused.value.where == "server.tls_cert"
        assert await shown_name(server.port) == "first"


def test_a_key_may_be_in_the_certificates_file(certificate: Pair, tmp_path: Path) -> None:
    """As some tools write it."""
    both = tmp_path / "both.pem"
    both.write_bytes(certificate[0].read_bytes() + certificate[1].read_bytes())
    Certificate(both)


def test_wrong_files_are_named(certificate: Pair, tmp_path: Path) -> None:
    """Each mistake says which setting it is in."""
    key, signed = certificate
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    locked, locked_signed = made_certificate(tmp_path, "locked", "-passout", "pass:secret")
    for files, where in (
        ((tmp_path / "missing.pem", key), "server.tls_cert"),
        ((signed, tmp_path / "missing.key"), "server.tls_key"),
        ((nonsense, key), "server.tls_cert"),
        ((signed, nonsense), "server.tls_cert"),
        ((signed, None), "server.tls_cert"),
        ((tmp_path, key), "server.tls_cert"),
        ((locked_signed, locked), "server.tls_key"),
    ):
        with pytest.raises(ConfigError) as refused:
            Certificate(*files)
        assert refused.value.where == where, files
    with pytest.raises(ConfigError):
        pinned(nonsense)


async def test_the_owner_trusts_this_certificate_and_no_other(
    certificate: Pair, tmp_path: Path
) -> None:
    """Whatever name is in it."""
    key, signed = made_certificate(tmp_path, "some.name.example")
    async with small_server(Certificate(signed, key).context) as server:
        context = pinned(signed)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=pinned(certificate[1]))


# --- connections that ask for nothing -------------------------------------------------------


SLOW_STARTS = [
    b"",
    b"GET /",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n",
    b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgr",
]


@pytest.mark.parametrize("sent", SLOW_STARTS, ids=["nothing", "a line", "headers", "handshake"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_request_that_never_ends_is_not_waited_for(
    sent: bytes, tls: bool, certificate: Pair
) -> None:
    """A connection ends at its deadline, though a byte comes now and then."""
    context = Certificate(certificate[1], certificate[0]).context if tls else None
    client = ssl.create_default_context(cafile=str(certificate[1])) if tls else None
    async with small_server(context, first_request_s=0.3) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client)
        writer.write(sent)

        async def drip() -> None:
            while sent and not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5.0) == b""
        dripping.cancel()
        writer.close()


async def test_a_tls_handshake_that_never_ends_is_not_waited_for(certificate: Pair) -> None:
    """The same deadline."""
    context = Certificate(certificate[1], certificate[0]).context
    async with small_server(context, first_request_s=0.3) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5.0) == b""
        writer.close()


async def test_a_connection_that_has_asked_may_rest() -> None:
    """The deadline is for the first request alone: browsers keep connections."""
    async with small_server(first_request_s=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(2):
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.4)
        writer.close()


async def test_connections_beyond_the_bound_are_hung_up_on() -> None:
    """Those that are there go on, and a place that is given back is there for the next."""
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with small_server(most=3) as server:
        here = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        for _, writer in here:
            writer.write(request)
        for reader, _ in here:
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5.0) == b""
        writer.close()
        here[0][1].write(request)
        assert (await here[0][0].readuntil(b"}")).startswith(b"HTTP/1.1 200")
        here[1][1].close()
        await here[1][1].wait_closed()
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        for _, each in [*here, (reader, writer)]:
            each.close()
