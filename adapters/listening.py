"""Sockets that listen, and an application served on them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from adapters.reception import FIRST_REQUEST_S, Reception
from adapters.ws_throttle import FRAMES_PER_S
from pipeline.errors import ConfigError, PortTakenError

BACKLOG: Final = 1024  # connections that the kernel holds for us: a crowd of viewers at once

_NO_SUCH_ADDRESS: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_KEEP_ALIVE_S: Final = 75.0
_LONGEST_PROBE_S: Final = 32_767  # tcp(7): the kernel takes no more
_LINGER_S: Final = 2.0  # how long the rest of a refused body is read and discarded
_TLS_GOODBYE_S: Final = 2.0


class HttpServer:
    """An application that is being served."""

    def __init__(
        self,
        runner: web.AppRunner,
        listening: list[asyncio.Server],
        sockets: list[socket.socket],
    ) -> None:
        self._runner = runner
        self._listening = listening
        self._addresses = [each.getsockname()[:2] for each in sockets]

    @property
    def port(self) -> int:
        """The TCP port, also where a free one was asked for."""
        return int(self._addresses[0][1])

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Every address and port that it listens on."""
        return list(self._addresses)

    async def close(self) -> None:
        """Stop listening, let requests end for `shutdown_s`, then cut them off; idempotent."""
        for each in self._listening:
            each.close()
        await self._runner.cleanup()


async def serve(
    application: web.Application,
    host: str,
    port: int,
    *,
    tcp_user_timeout_s: float = 15.0,
    shutdown_s: float = 2.0,
    tls: ssl.SSLContext | None = None,
    most: int | None = None,
    first_request_s: float = FIRST_REQUEST_S,
    frames_per_s: float = FRAMES_PER_S,
) -> HttpServer:
    """Listen, and serve until the returned server is closed.

    Args:
        host: name or address; empty is every address, `::` is every IPv6 and IPv4 address.
        port: TCP port; 0 takes a free one.
        tcp_user_timeout_s: the kernel drops a client that acknowledges nothing for so long,
            and asks one that nothing is sent to whether it is still there.
        shutdown_s: what running requests get when the server is closed.
        tls: speak TLS with this; None speaks plainly.
        most: connections at a time; those beyond are hung up on. None is as many as come.
        first_request_s: time for a new connection to ask for something, and before that for
            its TLS handshake.
        frames_per_s: how fast each WebSocket is read.

    Raises:
        ConfigError: cannot listen there; names `server.host` or `server.port`.
        PortTakenError: another process does.
    """
    sockets = await _listen(host, port, tcp_user_timeout_s)
    runner = web.AppRunner(application, shutdown_timeout=shutdown_s)
    listening: list[asyncio.Server] = []
    try:
        await runner.setup()
        assert runner.server is not None
        reception = Reception(
            runner.server,
            most=most,
            first_request_s=first_request_s,
            frames_per_s=frames_per_s,
            access_log=None,
            logger=_server_log(),
            auto_decompress=False,  # limits are for what was sent, not for what it unpacks to
            keepalive_timeout=_KEEP_ALIVE_S,
            lingering_time=_LINGER_S,
        )
        loop = asyncio.get_running_loop()
        for each in sockets:
            server = await loop.create_server(
                reception,
                sock=each,
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else first_request_s,
                ssl_shutdown_timeout=None if tls is None else _TLS_GOODBYE_S,
            )
            listening.append(server)
    except BaseException:
        for server in listening:
            server.close()
        await runner.cleanup()
        _close_all(sockets)
        raise
    return HttpServer(runner, listening, sockets)


async def _listen(host: str, port: int, tcp_user_timeout_s: float) -> list[socket.socket]:
    """Bound sockets for every address of `host`, all on the same port."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError("server.host", f"{host!r} is no name or address: {error}") from error
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        # The first one chooses if a free port is asked for.
        at_port = sockets[0].getsockname()[1] if sockets else port
        try:
            bound = _bound(family, (address[0], at_port, *address[2:]), len(addresses) == 1)
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS:
                missing = error  # `localhost` on a machine without IPv6; another may do
                continue
            _close_all(sockets)
            raise _cannot_listen(host, port, error) from error
        _notice_vanishing(bound, tcp_user_timeout_s)
        sockets.append(bound)
    if missing is not None and not sockets:
        raise _cannot_listen(host, port, missing) from missing
    return sockets


def _bound(family: int, address: tuple[Any, ...], alone: bool) -> socket.socket:
    """A listening socket."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` alone takes IPv4 as well; beside an IPv4 socket on the same port it cannot.
            both = alone and address[0] == "::" and socket.has_dualstack_ipv6()
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        made.setblocking(False)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _notice_vanishing(listening: socket.socket, timeout_s: float) -> None:
    """Have connections end whose far end is gone without a goodbye; they inherit all of this.

    Pings alone do not notice a client whose receive window is shut, because closing waits for
    what is still to be sent. And nobody pings who watches a frame a minute, or has been answered:
    the kernel asks those by itself after a third of the time, and again every third of it.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe_s = min(max(1, round(timeout_s / 3.0)), _LONGEST_PROBE_S)
    options = {
        "TCP_USER_TIMEOUT": int(timeout_s * 1000),
        "TCP_KEEPIDLE": probe_s,
        "TCP_KEEPINTVL": probe_s,
    }
    for name, value in options.items():
        option = getattr(socket, name, None)  # not every system has all of them
        if option is not None:
            listening.setsockopt(socket.IPPROTO_TCP, option, value)


def _close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError | PortTakenError:
    match error.errno:
        case errno.EADDRINUSE:
            return PortTakenError("server.port", "TCP", port)
        case errno.EACCES | errno.EPERM:
            return ConfigError(
                "server.port",
                f"listening on port {port} is not permitted; choose one above 1023",
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return ConfigError("server.host", f"{host!r} is no address of this machine")
        case _:
            return ConfigError("server.port", f"cannot listen on {host!r}, port {port}: {error}")


def _server_log() -> logging.Logger:
    """aiohttp's logger, without a traceback for all who do not speak HTTP, or hang up."""
    logger = logging.getLogger("aiohttp.server")
    if _is_about_us not in logger.filters:
        logger.addFilter(_is_about_us)
    # What it says of handshakes quotes the subprotocols offered: a token, if misspelt.
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    return logger


def _is_about_us(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)
