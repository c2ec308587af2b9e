"""From what a user writes to the WebSocket address of an endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from orchestrator.client.errors import AddressError

_SCHEMES: Final[Mapping[str, str]] = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def endpoint(base: str, path: str, query: Mapping[str, str | None]) -> str:
    """The address of `path` on the daemon at `base`.

    Args:
        base: `http://`, `https://`, `ws://` or `wss://`, host, and where a proxy puts the
            daemon below a path, that path.
        path: such as `v1/events`.
        query: names to values; None leaves one out.

    Raises:
        AddressError: it is no such address.
    """
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname, parts.port
    except ValueError as error:  # which may say user and password again
        problem = f"{_shown(base)} is no address: its host or port cannot be read"
        raise AddressError(problem) from error
    if parts.scheme not in _SCHEMES or not host:
        raise AddressError(
            f"{_shown(base)} is no address of a daemon; write it like http://127.0.0.1:8081"
        )
    if parts.query or parts.fragment:
        raise AddressError(
            f"{_shown(base)} must end there; token and stage are given beside the address"
        )
    if parts.username is not None:
        raise AddressError("an address holds no user and password here; use the token")
    given = {name: value for name, value in query.items() if value is not None}
    at = f"{parts.path.rstrip('/')}/{path}"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, at, urlencode(given), ""))


def _shown(base: str) -> str:
    """What was written, but for what may be secret in it."""
    shown, *rest = re.split(r"[?#]", base, maxsplit=1)
    if "@" in "".join(rest):  # a password that has one of these in it
        return repr(re.sub(r"//.*", "//...", shown))
    return repr(re.sub(r"//.*@", "//", shown))
