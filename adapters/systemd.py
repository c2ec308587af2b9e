"""Readiness, status and watchdog datagrams to systemd, sd_notify(3), in plain Python."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

import structlog

log = structlog.get_logger()

# The service manager's queue is hardly ever full; then a lost READY costs more than this wait.
_SEND_LIMIT_S: Final = 0.05
_MAX_STATUS_CHARS: Final = 200
_MICROSECONDS: Final = 1_000_000


class SystemdNotifier:
    """Tells the service manager how the daemon is; does nothing outside a service.

    No method raises: a daemon does not fail because nobody listens to how it is.

    Args:
        environ: where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are looked up.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._failed = False
        self.watchdog_interval_s = _watchdog_interval_s(environ)
        """Seconds between two `watchdog()` calls: half the limit, as sd_watchdog_enabled(3)
        recommends; None where the service manager keeps no watch."""

    @property
    def enabled(self) -> bool:
        """A service manager listens."""
        return self._address is not None

    def ready(self, status: str | None = None) -> None:
        """Start-up has finished; or a reload, after `reloading()`."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def reloading(self) -> None:
        """A reload has begun; `ready()` must follow."""
        now_us = int(time.clock_gettime(time.CLOCK_MONOTONIC) * _MICROSECONDS)
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, status: str | None = None) -> None:
        """Shutting down has begun."""
        self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> None:
        """Still making progress."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.settimeout(_SEND_LIMIT_S)
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd_not_told", error=str(error))
            self._failed = True
        else:
            self._failed = False


def _address(name: str) -> str | None:
    """An abstract socket is written `@name`, and addressed with a null byte in its place."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _status(text: str | None) -> tuple[str, ...]:
    """The STATUS field, on one line whatever is in `text`."""
    if text is None:
        return ()
    return ("STATUS=" + " ".join(text.split())[:_MAX_STATUS_CHARS],)


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    try:
        limit_us = int(environ.get("WATCHDOG_USEC", ""))
        pid = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    if limit_us <= 0 or pid != os.getpid():
        return None
    return limit_us / _MICROSECONDS / 2
