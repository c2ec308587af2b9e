"""What adapters that dial out share: how, delays between attempts, and what to log of it."""

from __future__ import annotations

import random
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

_FIRST_DELAY_S: Final = 0.5
_MAX_REASON_CHARS: Final = 200


class Dial(connect):
    """A WebSocket to the address that the settings name, and to no other.

    Who answers there could otherwise send us on to what only we can reach, with our tokens in the
    address, and be answered in our name.
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        """A redirect is a failure like any other, and shows as its status."""
        return exc


class Backoff:
    """Delays between attempts: doubling up to a limit, each shortened at random by up to half.

    Args:
        limit_s: longest delay.
        rng: source of the jitter, which keeps many daemons from dialling in step.
    """

    def __init__(self, limit_s: float, rng: random.Random) -> None:
        self._limit_s = limit_s
        self._rng = rng
        self._next_s = min(_FIRST_DELAY_S, limit_s)

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self._next_s = min(_FIRST_DELAY_S, self._limit_s)

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        delay_s = self._next_s
        self._next_s = min(2.0 * delay_s, self._limit_s)
        return delay_s * self._rng.uniform(0.5, 1.0)


def without_secrets(url: str) -> str:
    """The URL without user name, password, query and fragment, which may carry tokens."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def reason(error: Exception, url: str) -> str:
    """Why a connection to `url` failed or ended, for the log."""
    text = str(error).replace(url, without_secrets(url))
    return f"{type(error).__name__}: {text}"[:_MAX_REASON_CHARS]
