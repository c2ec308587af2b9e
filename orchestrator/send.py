"""`avatar-orchestrator send`: one message from the shell, its receipts on standard output."""

from __future__ import annotations

import argparse
import json
import ssl
import uuid
from pathlib import Path
from typing import Any, Final, TextIO

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import ClientConnection, connect

from adapters.tls import pinned
from orchestrator.client.address import endpoint
from orchestrator.client.errors import AddressError
from orchestrator.lifecycle import ExitStatus
from orchestrator.settings import Settings
from pipeline.errors import AvatarError, ConfigError

REFUSED: Final = 1
ENDINGS: Final = frozenset(
    {"emotion.finished", "emotion.superseded", "emotion.expired", "emotion.rejected", "error"}
)


class DaemonUnreachableError(AvatarError):
    """There is no daemon at that address, or it went away."""

    retryable = True


def send(settings: Settings, options: argparse.Namespace, out: TextIO) -> int:
    """Send, print every answer as a line of JSON, and wait for the message's end.

    Returns:
        0, or 1 when the daemon refused the message.

    Raises:
        DaemonUnreachableError: nobody answers there.
        ConfigError: `--url` is no address.
    """
    message = options.json if options.json is not None else json.dumps(_message(options))
    url = chosen_url(settings, options, "v1/events")
    token = settings.auth.token
    headers = {"Authorization": f"Bearer {token}"} if token else None
    try:
        tls = None if options.url else own_tls(settings)
        with connect(url, additional_headers=headers, open_timeout=5.0, ssl=tls) as connection:
            json.loads(connection.recv(timeout=5.0))  # hello
            connection.send(message)
            return _follow(connection, options.no_wait, out)
    except (OSError, InvalidHandshake, InvalidURI, ConnectionClosed, TimeoutError) as error:
        raise DaemonUnreachableError(f"no answer from {url}: {error}") from error


def _message(options: argparse.Namespace) -> dict[str, Any]:
    message = {"type": "emotion", "id": f"cli-{uuid.uuid4().hex[:12]}", "emotion": options.emotion}
    fields = ("intensity", "attack_ms", "hold_ms", "decay_ms", "policy", "priority")
    given = {name: getattr(options, name) for name in fields}
    return message | {name: value for name, value in given.items() if value is not None}


def chosen_url(settings: Settings, options: argparse.Namespace, path: str) -> str:
    """The WebSocket address of an endpoint where `--url` says, else of the daemon of the settings.

    Raises:
        ConfigError: `--url` is no address.
    """
    try:
        return endpoint(options.url or own_url(settings), path, {"stage": options.stage or None})
    except AddressError as error:
        raise ConfigError("--url", str(error)) from error


def own_url(settings: Settings) -> str:
    """Where the daemon of these settings listens."""
    host = settings.server.host
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    scheme = "wss" if settings.server.tls_cert else "ws"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


def own_tls(settings: Settings) -> ssl.SSLContext | None:
    """How to speak TLS with that daemon, whatever name its certificate is for.

    Raises:
        ConfigError: its certificate cannot be read.
    """
    file = settings.server.tls_cert
    return pinned(Path(file).expanduser()) if file else None


def _follow(connection: ClientConnection, no_wait: bool, out: TextIO) -> int:
    while True:
        text = connection.recv()
        print(text, file=out, flush=True)
        kind = json.loads(text).get("type")
        if kind in ("emotion.rejected", "error"):
            return REFUSED
        if no_wait or kind in ENDINGS or not str(kind).startswith("emotion."):
            return ExitStatus.OK
